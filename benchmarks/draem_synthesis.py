"""DRAEM against anomalib's: `python benchmarks/draem_synthesis.py --peer /path/to/bin/python`.

The peer is the Python of an environment with anomalib 2.7.0. Both sides make anomalies on the same number of images
with the same textures, on one thread; then both make a training step of the full networks. Seconds are those
of the processor, and both take turns, so that other work on the machine matters little. The opacity of anomalib's
is drawn from U(0.2, 1), as ours is.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from report import row

from tocsin.batch import ImageBatch
from tocsin.models.anomaly_synthesis import AnomalySynthesis
from tocsin.models.draem import Draem
from tocsin.models.procedural_textures import procedural_textures
from tocsin.models.textures import TextureBank

SIZE, BATCH, ROUNDS, TURNS = 256, 16, 12, 3
STEP_SIZE, STEP_BATCH, STEP_ROUNDS = 128, 2, 3
N_TEXTURES = 64
TARGET = 20.0
CHILD = Path(__file__).parent / "anomalib_draem.py"


def peer(python: str, task: str, *options: object) -> dict[str, Any]:
    command = [python, str(CHILD), task, *map(str, options)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def write_textures(folder: str) -> None:
    for index, texture in enumerate(procedural_textures(N_TEXTURES, (SIZE, SIZE))):
        pixels = (texture.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        cv2.imwrite(f"{folder}/{index:03d}.png", pixels[:, :, ::-1])


def ours(synthesis: AnomalySynthesis, turn: int) -> dict[str, list[float]]:
    images = torch.rand(BATCH, 3, SIZE, SIZE)
    seconds, areas, opacities = [], [], []
    for index in range(ROUNDS):
        seeds = torch.arange(BATCH) + BATCH * (index + ROUNDS * turn)
        start = time.process_time()
        made = synthesis(images, seeds)
        seconds.append(time.process_time() - start)
        areas += made.mask.float().mean(dim=(1, 2)).tolist()
        opacities += made.amplitude[made.amplitude > 0].tolist()
    return {"seconds": seconds, "areas": areas, "opacities": opacities}


def bench_synthesis(python: str) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        write_textures(folder)
        bank = TextureBank(source="dir", directory=folder, n=N_TEXTURES)
        bank.fill(torch.rand(2, 3, SIZE, SIZE))
        synthesis = AnomalySynthesis(
            anomaly="perlin", probability=0.5, amplitude=0.3, rotation=0.0, bank=bank
        )
        mine: dict[str, list[float]] = {"seconds": [], "areas": [], "opacities": []}
        its: dict[str, list[float]] = {"seconds": [], "areas": []}
        for turn in range(TURNS):
            for total, found in (
                (mine, ours(synthesis, turn)),
                (its, peer(python, "synthesis", SIZE, BATCH, ROUNDS, folder)),
            ):
                for name, values in total.items():
                    values += found[name]
    areas = [np.array(side["areas"]) for side in (mine, its)]
    for name, area in zip(("ours", "anomalib"), areas, strict=True):
        odd = area[area > 0]
        print(f"{name:<10} anomalous {len(odd) / len(area):.3f}   mean area of these {odd.mean():.4f}")
    opacity = np.array(mine["opacities"])
    described = f"{opacity.min():.3f} to {opacity.max():.3f}, mean {opacity.mean():.3f}"
    print(f"ours       opacity {described}; U(0.2, 1) is wanted, its mean 0.6")
    means = [area[area > 0].mean() for area in areas]
    same = abs(means[0] / means[1] - 1) < 0.25 and abs(opacity.mean() - 0.6) < 0.05
    per_image = [float(np.median(side["seconds"])) / BATCH for side in (mine, its)]
    row(f"anomalies on an image of {SIZE}x{SIZE}: PerlinAnomalyGenerator", *per_image, same)
    return same and per_image[1] >= TARGET * per_image[0]


def bench_step(python: str) -> bool:
    model = Draem(n_textures=8).train()
    image = torch.rand(STEP_BATCH, 3, STEP_SIZE, STEP_SIZE)
    model.prepare([ImageBatch(image, torch.arange(STEP_BATCH))])
    mine, its = [], []
    for _ in range(TURNS):
        for _ in range(STEP_ROUNDS):
            model.zero_grad()
            start = time.process_time()
            model.loss(ImageBatch(image, torch.arange(STEP_BATCH)))[
                "loss"
            ].backward()  # its synthesis is timed too
            mine.append(time.process_time() - start)
        found = peer(python, "step", STEP_SIZE, STEP_BATCH, STEP_ROUNDS)
        its += found["seconds"]
    same = found["parameters"] == sum(p.numel() for p in model.parameters())
    row(
        f"training step, {STEP_SIZE}x{STEP_SIZE}, batch {STEP_BATCH}: anomalib's DRAEM",
        min(mine),
        min(its),
        same,
    )
    return same and min(mine) <= min(its)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", required=True, help="Python of an environment with anomalib 2.7.0")
    options = parser.parse_args()
    torch.set_num_threads(1)
    passed = [bench_synthesis(options.peer), bench_step(options.peer)]
    sys.exit(0 if all(passed) else f"missed: anomalies {TARGET:g} times as fast, and a step no slower")
