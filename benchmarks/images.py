"""AUPRO against the direct way to compute it: `python benchmarks/images.py [--peer <python with anomalib>]`."""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from report import best_of, row
from scipy import ndimage

from tocsin.metrics.images import aupro, pixel_metrics

LIMIT = 0.3
PEER = """
import json, sys, time
import numpy as np, torch
from anomalib.metrics.aupro import _AUPRO
torch.set_num_threads(1)
data = np.load(sys.argv[1])
maps, masks = torch.from_numpy(data["maps"]), torch.from_numpy(data["masks"])
times = []
for _ in range(3):
    start = time.perf_counter()
    metric = _AUPRO(fpr_limit=float(sys.argv[2]))
    metric.update(maps, masks.int())
    value = float(metric.compute())
    times.append(time.perf_counter() - start)
print(json.dumps({"seconds": min(times), "value": value}))
"""


def scored(n: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Maps (n, size, size) float32 of smooth noise that leans towards the masks: up to five defects in two thirds."""
    rng = np.random.default_rng(0)
    masks = np.zeros((n, size, size), bool)
    for mask in masks[: 2 * n // 3]:
        for _ in range(rng.integers(1, 6)):
            y, x = rng.integers(0, size, 2)
            mask[y : y + rng.integers(3, size // 8), x : x + rng.integers(3, size // 8)] = True
    noise = ndimage.gaussian_filter(rng.normal(size=masks.shape).astype(np.float32), (0, 4, 4))
    lean = ndimage.gaussian_filter(masks.astype(np.float32), (0, 6, 6))
    return noise / noise.std() + 2 * lean, masks


def aupro_by_loop(maps: np.ndarray, masks: np.ndarray, thresholds: np.ndarray) -> float:
    """One pass over all images and one over all regions for each threshold, from the highest down."""
    regions = []
    for index, mask in enumerate(masks):
        numbered, count = ndimage.label(mask, np.ones((3, 3)))
        regions += [maps[index][numbered == number] for number in range(1, count + 1)]
    normal = maps[~masks]
    rate = [0.0, *((normal >= threshold).mean() for threshold in thresholds)]
    overlap = [0.0, *(np.mean([(r >= threshold).mean() for r in regions]) for threshold in thresholds)]
    rates, overlaps = np.array(rate), np.array(overlap)
    last = np.searchsorted(rates, LIMIT)
    x, y = np.append(rates[:last], LIMIT), np.append(overlaps[:last], np.interp(LIMIT, rates, overlaps))
    return float(np.trapezoid(y, x) / LIMIT)


def bench_exact() -> None:
    maps, masks = scored(6, 48)
    ours_s, ours = best_of(5, lambda: aupro(maps, masks, fpr_limit=LIMIT))
    peer_s, peer = best_of(1, lambda: aupro_by_loop(maps, masks, np.unique(maps)[::-1]))
    row("AUPRO, 6 images 48x48: loop over every score", ours_s, peer_s, abs(ours - peer) < 1e-9)


def bench_loop(maps: np.ndarray, masks: np.ndarray) -> None:
    ours_s, ours = best_of(3, lambda: aupro(maps, masks, fpr_limit=LIMIT))
    cuts = np.quantile(maps[~masks], np.linspace(1, 1 - 1.1 * LIMIT, 100))
    peer_s, peer = best_of(1, lambda: aupro_by_loop(maps, masks, cuts))
    row("AUPRO, 160 images 256x256: loop over 100 thresholds", ours_s, peer_s, abs(ours - peer) < 1e-3)


def bench_anomalib(maps: np.ndarray, masks: np.ndarray, python: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "scored.npz"
        np.savez(file, maps=maps, masks=masks)
        done = subprocess.run(
            [python, "-c", PEER, file, str(LIMIT)], check=True, capture_output=True, text=True
        )
    peer = json.loads(done.stdout.splitlines()[-1])
    ours_s, ours = best_of(3, lambda: aupro(maps, masks, fpr_limit=LIMIT))
    row("AUPRO, 160 images 256x256: anomalib", ours_s, peer["seconds"], abs(ours - peer["value"]) < 1e-3)
    known = np.ones(len(maps), bool)
    all_s, together = best_of(3, lambda: pixel_metrics(maps, masks, known, fpr_limit=LIMIT))
    row(
        "... its AUPRO alone against our AUROC, AP and AUPRO",
        all_s,
        peer["seconds"],
        together["aupro"] == ours,
    )
    print(f"    AUPRO: ours {ours:.7f} in float64, anomalib {peer['value']:.7f} in float32")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", help="a Python that has anomalib")
    peer = parser.parse_args().peer
    bench_exact()
    scores, truth = scored(160, 256)
    bench_loop(scores, truth)
    if peer:
        bench_anomalib(scores, truth, peer)
