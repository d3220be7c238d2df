"""PatchCore against anomalib's: the same images, network, layers, sizes and ratio, each side in a process of its own.

`python benchmarks/patchcore.py --root DIR --weights tf_efficientnet_lite0.pth --peer PYTHON`, where PYTHON belongs to
an environment with anomalib 2.7.0. DIR has the layout of MVTec, or the folders MT_Free, MT_Blowhole and MT_Crack of
the magnetic tiles; only of these are the pixels measured. Either side sees grey images as the same three channels.

A side that does not end within `--limit-s` is killed, and its time printed as a lower bound. `--skip-fit-of-peer`
gives the peer our memory instead of one of its own, to compare the searches where its fit takes too long.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

TARGETS = {"fit": 10.0, "predict": 2.0, "memory": 2.0}
SLACK = 0.005  # of an AUROC: the peer draws its first pick
BATCH = 16
SIDES = ("ours", "anomalib")


# --- either side, in its own process; what it needs of torch is imported there --------------------------------


def run_side(options: argparse.Namespace, folder: Path) -> None:
    """Fit on train.npy, score test.npy; leaves scores and measurements in the folder."""
    import torch

    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    side = Ours(options) if options.side == "ours" else Anomalib(options)
    train, test = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("train", "test"))
    found: dict[str, Any] = {"start_mb": resident_mb()}
    bank = folder / "ours_bank.npy"
    start = perf_counter()
    if options.side == "anomalib" and options.skip_fit_of_peer:
        side.model.memory_bank = torch.from_numpy(np.load(bank))
    else:
        for images in batches(train):
            side.collect(images)
        found["collect_s"] = perf_counter() - start
        side.finish()
        found |= {"fit_s": perf_counter() - start, "fit_peak_mb": peak_mb() - found["start_mb"]}
    if options.side == "ours":
        np.save(bank, side.bank())
    scored, maps = [], []
    seconds = 0.0
    for images in batches(test):
        start = perf_counter()
        image, pixels = side.score(images)
        seconds += perf_counter() - start
        scored.append(image.numpy())
        maps.append(pixels.half().numpy())
    found |= {"predict_s": seconds, "peak_mb": peak_mb() - found["start_mb"], "total_mb": peak_mb()}
    np.savez(folder / f"{options.side}.npz", image=np.concatenate(scored), maps=np.concatenate(maps))
    (folder / f"{options.side}.json").write_text(json.dumps(found))


def batches(images: np.ndarray) -> Any:
    """(B, 3, H, W) float32 tensors in [0, 1] of grey (N, H, W) uint8 images."""
    import torch

    for start in range(0, len(images), BATCH):
        part = torch.from_numpy(np.array(images[start : start + BATCH]))
        yield (part.float() / 255.0)[:, None].repeat(1, 3, 1, 1)


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Ours:
    """This package's detector."""

    def __init__(self, options: argparse.Namespace) -> None:
        from tocsin.models.patchcore import PatchCore

        self.model = PatchCore(
            backbone=options.backbone,
            layers=options.layers,
            weights=str(options.weights),
            coreset_ratio=options.ratio,
            coreset=options.coreset,
            coreset_size=10**9,
        )

    def collect(self, images: Any) -> None:
        import torch

        from tocsin.batch import ImageBatch

        self.model.collect(ImageBatch(images, torch.arange(len(images))))

    def finish(self) -> None:
        self.model.finish()
        self.model.eval()

    def score(self, images: Any) -> tuple[Any, Any]:
        scores = self.model.score(images)
        return scores.image, scores.map

    def bank(self) -> np.ndarray:
        """(M, D) float32, on the scale of the features."""
        bank = self.model.bank.float() * self.model.spread + self.model.origin
        return np.asarray(bank)


class Anomalib:
    """The torch model of anomalib, with the same weights in its network."""

    def __init__(self, options: argparse.Namespace) -> None:
        import torch
        from anomalib.models.image.patchcore.torch_model import PatchcoreModel

        self.model = PatchcoreModel(layers=options.layers, backbone=options.backbone, pre_trained=False)
        network = self.model.feature_extractor.feature_extractor
        missing = network.load_state_dict(
            torch.load(options.weights, weights_only=True), strict=False
        ).missing_keys
        assert not missing, missing
        config = network.pretrained_cfg if hasattr(network, "pretrained_cfg") else network.default_cfg
        mean, std = (torch.tensor(config[name]).reshape(3, 1, 1) for name in ("mean", "std"))
        self.normal = lambda images: (images - mean) / std
        self.ratio = options.ratio
        self.model.train()

    def collect(self, images: Any) -> None:
        self.model(self.normal(images))

    def finish(self) -> None:
        self.model.subsample_embedding(self.ratio)

    def score(self, images: Any) -> tuple[Any, Any]:
        import torch

        self.model.eval()
        with torch.no_grad():
            found = self.model(self.normal(images))
        return found.pred_score, found.anomaly_map[:, 0]


# --- data -----------------------------------------------------------------------------------------------------


def read(options: argparse.Namespace) -> tuple[list[Path], list[Path], np.ndarray, bool]:
    """Training files, test files, labels of these, and whether masks lie beside them."""
    root = options.root
    if (root / "train" / "good").is_dir():
        train, test = sorted(root.glob("train/good/*")), sorted(root.glob("test/*/*"))
        labels = np.array([path.parent.name != "good" for path in test])
        return train[: options.images], test[:: options.every], labels[:: options.every], False
    free = sorted((root / "MT_Free").glob("*.jpg"))
    if not free:
        sys.exit(f"--root {root} has neither train/good nor MT_Free; give the folder above one of them")
    n_train = round(0.7 * len(free))
    test = [*free[n_train:], *sorted(root.glob("MT_Blowhole/*.jpg")), *sorted(root.glob("MT_Crack/*.jpg"))]
    labels = np.array([path.parent.name != "MT_Free" for path in test])
    return free[:n_train][: options.images], test[:: options.every], labels[:: options.every], True


def grey(path: Path, size: int, *, mask: bool = False) -> np.ndarray:
    import cv2

    how = cv2.INTER_NEAREST if mask else cv2.INTER_AREA
    return np.asarray(
        cv2.resize(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), (size, size), interpolation=how)
    )


# --- both -----------------------------------------------------------------------------------------------------


def compare(options: argparse.Namespace, folder: Path) -> bool:
    """Run both sides and print their rows."""
    train, test, labels, has_masks = read(options)
    np.save(folder / "train.npy", np.stack([grey(path, options.size) for path in train]))
    np.save(folder / "test.npy", np.stack([grey(path, options.size) for path in test]))
    masks = np.zeros((len(test), options.size, options.size), dtype=bool)
    for index, path in enumerate(test):
        if has_masks and labels[index]:
            masks[index] = grey(path.with_suffix(".png"), options.size, mask=True) > 127
    shown = f"{options.root.name}, {len(train)} and {len(test)} images of {options.size} pixels"
    print(f"{shown}, {' and '.join(options.layers)}, {options.ratio:.3g} of the patches", flush=True)
    sides = [measured(side, options, folder, labels, masks if has_masks else None) for side in SIDES]
    return print_rows(*sides, options)


def measured(
    side: str, options: argparse.Namespace, folder: Path, labels: np.ndarray, masks: np.ndarray | None
) -> dict[str, float]:
    """What one side took and found; only `fit_s`, the limit, if it was killed."""
    from tocsin.metrics.functional import auc_roc
    from tocsin.metrics.images import pixel_auroc

    python = sys.executable if side == "ours" else str(options.peer)
    command = [python, __file__, "--side", side, "--folder", str(folder), *sys.argv[1:]]
    try:
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=options.limit_s)
    except subprocess.TimeoutExpired:  # by now it is killed
        return {"fit_s": options.limit_s, "killed": 1.0}
    if done.returncode != 0:
        sys.exit(f"{side} failed:\n{done.stderr[-2000:]}")
    found: dict[str, float] = json.loads((folder / f"{side}.json").read_text())
    scores = np.load(folder / f"{side}.npz")
    found["image_auroc"] = auc_roc(scores["image"], labels)
    if masks is not None:
        found["pixel_auroc"] = pixel_auroc(scores["maps"].astype(np.float32), masks)
    found["images_per_s"] = len(labels) / found["predict_s"]
    return found


def print_rows(ours: dict[str, float], peer: dict[str, float], options: argparse.Namespace) -> bool:
    """Print the rows; returns whether the targets were met."""
    killed = bool(peer.get("killed"))
    rows = (
        ("fit", "fit_s", "s", False),
        ("  of it the features", "collect_s", "s", False),
        ("predict", "images_per_s", "images/s", True),
        ("peak memory of the fit, above the start", "fit_peak_mb", "MiB", False),
        ("peak memory, above the start", "peak_mb", "MiB", False),
        ("peak memory in all", "total_mb", "MiB", False),
        ("image AUROC", "image_auroc", "", True),
        ("pixel AUROC", "pixel_auroc", "", True),
    )
    ratios = {}
    for name, key, unit, higher in rows:
        if key not in ours or (key not in peer and not killed):
            continue
        other = "killed"
        ratios[key] = float("nan")
        if key in peer:
            ratios[key] = ours[key] / peer[key] if higher else peer[key] / ours[key]
            other = f"{'>' if killed else ''}{peer[key]:.4g}"
        ratio = f"{'>' if killed and key in peer else ''}{ratios[key]:.3g}x"
        print(f"  {name:<46}{ours[key]:>10.4g} {other:>10} {unit:<9}{ratio:>9}", flush=True)
    fit = options.skip_fit_of_peer or ratios["fit_s"] >= TARGETS["fit"]
    if killed:
        return fit
    accurate = all(ratios.get(key, 1.0) >= 1.0 - SLACK for key in ("image_auroc", "pixel_auroc"))
    fast = ratios["images_per_s"] >= TARGETS["predict"] and ratios["peak_mb"] >= TARGETS["memory"]
    return fit and fast and accurate


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--peer", type=Path, required=True, help="python with anomalib 2.7.0")
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--layers", nargs="+", default=["blocks.2", "blocks.4"])
    parser.add_argument("--coreset", default="greedy")
    parser.add_argument("--ratio", type=float, default=0.1)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--images", type=int, default=None, help="training images at most")
    parser.add_argument("--every", type=int, default=1, help="test on each n-th test image")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--limit-s", type=float, default=1500.0)
    parser.add_argument("--skip-fit-of-peer", action="store_true")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    arguments = parsed()
    if arguments.side:
        run_side(arguments, arguments.folder)
        sys.exit()
    with tempfile.TemporaryDirectory() as name:
        passed = compare(arguments, Path(name))
    wanted = ", ".join(f"{what} {ratio:g}x" for what, ratio in TARGETS.items())
    sys.exit(0 if passed else f"missed: {wanted}, and AUROCs at most {SLACK:g} of theirs below")
