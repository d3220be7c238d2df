"""Training a patch: our loop against ART's own, and against the bare pass of the victim.

`python benchmarks/patch_attack.py --victim yolov8n.yaml` (or a .pt file, or `standin`). Each side works on the same
victim, images and patch size, in a process of its own; sides take turns, and the best round counts.

- bare: ultralytics' own forward pass of the network, and backward to the image: what no attack can do without.
- native: `YoloPatch`, with a step of Adam: a patch on every figure, all random changes.
- native_bf16: the same in mixed precision, as `trainer.precision=bf16-mixed` trains it.
- native_all: the same with cutout, ShakeDrop and augmentation.
- art: ART's `AdversarialPatchPyTorch` on our estimator: one patch for each image.
- art_stock: the same on ART's own wrapper for ultralytics, repaired so that it runs at all.

Rates are image-iterations per second: of the processor's time with one thread (so that other work on the machine
does not count), of the clock otherwise. Memory is the peak above what the process holds before its first step, per
image of a batch (resident on a CPU, which needs Linux). Before that, two checks: our pass gives the logits of
ultralytics', and both estimators the same loss.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

SIDES = ("bare", "native", "native_bf16", "native_all", "art", "art_stock")
ITERATIONS_WARM = 1


# --- one side, in its own process ---------------------------------------------------------------------------


def make_batch(options: argparse.Namespace) -> Any:
    """Drawn figures; every one of them wears a patch."""
    import torch

    from tocsin.batch import DetectionBatch
    from tocsin.data.synthetic.figures import figures

    drawn = figures(n_images=options.batch, size=options.size, seed=0)
    n = len(drawn.boxes)
    parts = (
        torch.from_numpy(drawn.images).permute(0, 3, 1, 2).float() / 255,
        torch.arange(options.batch),
        torch.from_numpy(drawn.boxes),
        torch.from_numpy(drawn.owner),
        torch.ones(n, dtype=torch.bool),
        torch.zeros(n, dtype=torch.bool),
    )
    return DetectionBatch(*(part.to(options.device) for part in parts))


def make_bare(options: argparse.Namespace) -> Callable[[int], None]:
    from tocsin.models.yolo_victim import load_victim

    victim = load_victim(options.victim, cache_dir=options.cache).to(options.device)
    images = make_batch(options).image.requires_grad_()

    def work(iterations: int) -> None:
        for _ in range(iterations):
            images.grad = None
            raw = victim._network[0](images)[1]
            sum(branch["scores"].sum() for branch in branches_of(raw)).backward()

    return work


def branches_of(raw: Any) -> list[Any]:
    return [raw[name] for name in ("one2one", "one2many") if name in raw] or [raw]


def make_native(options: argparse.Namespace, bf16: bool = False, **changes: float) -> Callable[[int], None]:
    import torch

    from tocsin.models.yolo_patch import YoloPatch

    model = YoloPatch(victim=options.victim, patch_size=options.patch, cache_dir=options.cache, augment=0.0)
    model.to(options.device)
    for name, value in changes.items():
        setattr(model, name, value)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03, amsgrad=True)
    batch = make_batch(options)

    def work(iterations: int) -> None:
        for _ in range(iterations):
            with torch.autocast(options.device.split(":")[0], dtype=torch.bfloat16, enabled=bf16):
                loss = model.loss(batch)["loss"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            model.after_step()

    return work


def make_art(options: argparse.Namespace, stock: bool) -> Callable[[int], None]:
    import numpy as np

    from tocsin.models.art_patch import ArtPatch
    from tocsin.models.attack_packages import require_art

    require_art()
    from art.attacks.evasion import AdversarialPatchPyTorch

    model = ArtPatch(victim=options.victim, patch_size=options.patch, cache_dir=options.cache)
    model.to(options.device)
    batch = make_batch(options)
    model.collect(batch)
    ((images, masks, sides),) = model._collected
    estimator = stock_estimator(model.victims[0], options.size) if stock else model._estimator(images)[1]
    n = len(batch.image)
    labels = [
        {
            "boxes": np.zeros((0, 4), np.float32),
            "labels": np.zeros(0, np.int64),
            "scores": np.zeros(0, np.float32),
        }
    ] * n
    assert len(images) == n

    def work(iterations: int) -> None:
        attack = AdversarialPatchPyTorch(
            estimator,
            rotation_max=20.0,
            scale_min=0.05,
            scale_max=float(np.quantile(sides.numpy(), 0.5)),
            learning_rate=0.03,
            max_iter=iterations,
            batch_size=n,
            patch_shape=(3, options.patch, options.patch),
            patch_type="square",
            verbose=False,
        )
        attack.generate(images, labels, mask=np.ones_like(masks))

    return work


def stock_estimator(victim: Any, size: int) -> Any:
    """ART's own wrapper, with the terms of the loss as the list that it expects."""
    from art.estimators.object_detection import PyTorchYolo

    network = victim._network[0]
    loss = type(network).loss

    def listed(batch: dict[str, Any]) -> tuple[Any, list[Any]]:
        total, items = loss(network, batch)
        return total, list(items.values())

    network.loss = listed
    return PyTorchYolo(
        network,
        input_shape=(3, size, size),
        clip_values=(0.0, 1.0),
        attack_losses=("loss_total",),
        device_type="cpu" if next(network.parameters()).device.type == "cpu" else "gpu",
        is_ultralytics=True,
        model_name="yolov8",
    )


MAKERS: dict[str, Callable[[argparse.Namespace], Callable[[int], None]]] = {
    "bare": make_bare,
    "native": make_native,
    "native_bf16": lambda options: make_native(options, bf16=True),
    "native_all": lambda options: make_native(options, cutout=0.9, shakedrop=0.5, augment=0.5),
    "art": lambda options: make_art(options, stock=False),
    "art_stock": lambda options: make_art(options, stock=True),
}


def run_side(options: argparse.Namespace) -> dict[str, float]:
    """Rate and memory of one side."""
    import torch

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    on_gpu = options.device != "cpu"
    work = MAKERS[options.side](options)
    if on_gpu:
        start = torch.cuda.memory_allocated() / 2**20
    else:
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from what is held now
        start = peak_mb()
    work(ITERATIONS_WARM)
    if on_gpu:
        torch.cuda.synchronize()
    clock = process_time if options.threads == 1 and not on_gpu else perf_counter
    begin = clock()
    work(options.iterations)
    if on_gpu:
        torch.cuda.synchronize()
    seconds = clock() - begin
    peak = torch.cuda.max_memory_allocated() / 2**20 if on_gpu else peak_mb()
    return {
        "rate": options.batch * options.iterations / seconds,
        "memory": (peak - start) / options.batch,
    }


def peak_mb() -> float:
    """Highest resident memory."""
    (line,) = [row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


# --- side by side -------------------------------------------------------------------------------------------


def check(options: argparse.Namespace) -> None:
    """Print whether the sides compute the same thing."""
    import torch

    from tocsin.models.art_estimator import ArtVictim, art_estimator
    from tocsin.models.attack_packages import require_art
    from tocsin.models.yolo_victim import load_victim

    require_art()
    torch.manual_seed(0)
    victim = load_victim(options.victim, cache_dir=options.cache)
    batch = make_batch(argparse.Namespace(**{**vars(options), "device": "cpu"}))
    first = victim(batch.image)[0]
    raw = branches_of(victim._network[0](batch.image)[1])[0]
    difference = float((first.logits - raw["scores"][:, victim.target_class]).abs().max())
    print(f"largest difference of a logit from ultralytics' own pass: {difference:.2e}")
    labels = [
        {
            "boxes": batch.boxes[batch.owner == index],
            "labels": torch.zeros(int((batch.owner == index).sum()), dtype=torch.int64),
        }
        for index in range(options.batch)
    ]
    ours = art_estimator(ArtVictim(victim=victim), size=options.size).compute_loss(batch.image, labels)
    if len(victim.branch_names) == 1:
        stock = stock_estimator(victim, options.size).compute_loss(batch.image, labels)
        print(
            f"loss of our estimator {float(ours.detach()):.5f}, of the repaired one over the batch "
            f"{float(stock.detach()) / options.batch:.5f}"
        )


def main(options: argparse.Namespace) -> None:
    """Print rates, their ratios, and memory."""
    check(options)
    sides = [side for side in SIDES if side in options.sides]
    found: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    keys = ("victim", "size", "patch", "batch", "iterations", "threads", "device")
    given = [f"--{key}={vars(options)[key]}" for key in keys]
    given += [f"--cache={options.cache}"] if options.cache else []
    for _ in range(options.rounds):
        for side in sides:
            done = subprocess.run(
                [sys.executable, __file__, f"--side={side}", *given],
                check=True,
                stdout=subprocess.PIPE,
                text=True,
            )
            found[side].append(json.loads(done.stdout.splitlines()[-1]))
    print(
        f"{options.victim}, {options.size} pixels, patch of {options.patch}, batch of {options.batch}, "
        f"{options.threads} thread(s), {options.device}"
    )
    rates = {side: max(round_["rate"] for round_ in found[side]) for side in sides}
    for side in sides:
        memory = min(round_["memory"] for round_ in found[side])
        ratios = "".join(
            f"  {rates[side] / rates[other]:6.2f} x {other}"
            for other in sides
            if other in ("bare", "art", "art_stock")
        )
        print(f"{side:<11}{rates[side]:10.2f} images/s{memory:10.1f} MiB/image{ratios}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--victim", default="yolov8n.yaml")
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--patch", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--iterations", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--cache", help="where a stand-in is kept")
    parser.add_argument("--sides", nargs="+", default=SIDES, choices=SIDES)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(run_side(arguments)))
    else:
        main(arguments)
