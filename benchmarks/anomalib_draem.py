"""The side of anomalib in `draem_synthesis.py`, run by the Python of an environment that has anomalib.

Prints one line of JSON. `anomalib_draem.py synthesis SIZE BATCH ROUNDS FOLDER` times its generator of anomalies
with images of a folder as textures and describes what it makes; `anomalib_draem.py step SIZE BATCH ROUNDS` times a
training step of its DRAEM: forward, loss, backward.
"""

import json
import sys
import time

import torch

SEED = 0


def synthesis(size: int, batch: int, rounds: int, folder: str) -> dict[str, float | list[float]]:
    from anomalib.data.utils.generators.perlin import PerlinAnomalyGenerator

    generator = PerlinAnomalyGenerator(anomaly_source_path=folder)
    images = torch.rand(batch, 3, size, size)
    seconds, areas = [], []
    for _ in range(rounds):
        start = time.process_time()
        _, masks = generator(images)
        seconds.append(time.process_time() - start)
        areas += masks.mean(dim=(1, 2, 3)).tolist()
    return {"seconds": seconds, "areas": areas}


def step(size: int, batch: int, rounds: int) -> dict[str, float | list[float]]:
    from anomalib.models.image.draem.loss import DraemLoss
    from anomalib.models.image.draem.torch_model import DraemModel

    model, criterion = DraemModel().train(), DraemLoss()
    images, masks = torch.rand(batch, 3, size, size), (torch.rand(batch, 1, size, size) < 0.05).float()
    seconds = []
    for _ in range(rounds):
        model.zero_grad()
        start = time.process_time()
        reconstruction, prediction = model(images)
        criterion(images, reconstruction, masks, prediction).backward()
        seconds.append(time.process_time() - start)
    return {"seconds": seconds, "parameters": sum(p.numel() for p in model.parameters())}


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    task, numbers, rest = sys.argv[1], map(int, sys.argv[2:5]), sys.argv[5:]
    found = synthesis(*numbers, *rest) if task == "synthesis" else step(*numbers)
    print(json.dumps(found))
