"""Images per second of `data=defects`, and what they cost a training step: `python benchmarks/input_pipeline.py`.

The images are drawn castings of 224 x 224 pixels, the step is that of tf_efficientnet_lite0 (random weights, batch of
32) on the CPU. The last column is the time that a loop of steps waits for its next batch, as a share of all its time.
"""

import argparse
import itertools
import os
import tempfile
from collections.abc import Iterator
from time import perf_counter

import timm
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch.utils.data import DataLoader

from tocsin.batch import ClassBatch
from tocsin.config import conf_dir
from tocsin.data.defects import Defects

BATCH, N_BATCHES, STEPS = 32, 8, 4
TARGET = 0.1  # of the time of a loop of steps


def module(augment: str, cache: bool, workers: int, cache_dir: str) -> Defects:
    node = OmegaConf.load(conf_dir() / "augment" / f"{augment}.yaml")
    data = Defects(
        n_defective=240,
        n_ok=160,
        augment=instantiate(node, _convert_="all")["augment"],
        cache=cache,
        num_workers=workers,
        batch_size=BATCH,
        steps_per_epoch=N_BATCHES,
        cache_dir=cache_dir,
    )
    data.setup()
    return data


def endless(loader: DataLoader[ClassBatch]) -> Iterator[ClassBatch]:
    while True:
        yield from loader


def images_per_second(loader: DataLoader[ClassBatch]) -> float:
    for _ in loader:  # starts the processes
        pass
    start = perf_counter()
    n_images = sum(len(batch.image) for batch in loader)
    return n_images / (perf_counter() - start)


def waiting(loader: DataLoader[ClassBatch], network: torch.nn.Module) -> tuple[float, float]:
    """Seconds of a step, and the share of a loop of steps that goes by until there is a batch."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    batches = endless(loader)
    waited = worked = 0.0
    for number in range(STEPS + 1):
        start = perf_counter()
        batch = next(batches)
        fetched = perf_counter()
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(batch.image), batch.label).backward()
        optimizer.step()
        if number:  # the first batch waits for the processes to start
            waited += fetched - start
            worked += perf_counter() - fetched
    return worked / STEPS, waited / (waited + worked)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    workers = parser.parse_args().workers
    torch.manual_seed(0)
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=2).train()
    print(f"{os.cpu_count()} cores, {torch.get_num_threads()} threads of the network")
    with tempfile.TemporaryDirectory() as folder:
        shares = []
        for augment, cache, n in itertools.product(
            ("none", "light", "manufacturing"), (True, False), workers
        ):
            loader = module(augment, cache, n, folder).train_dataloader()
            rate = images_per_second(loader)
            step, share = waiting(loader, network)
            shares.append(share)
            place = "memory" if cache else "files"
            print(
                f"augment={augment:<14} from {place:<7} num_workers={n}  {rate:>7.0f} images/s   "
                f"step {step:>6.3f} s   waits {share:>6.1%}",
                flush=True,
            )
    raise SystemExit(0 if max(shares) <= TARGET else f"missed: a step waits at most {TARGET:.0%} of the time")
