"""A training step of Dinomaly against anomalib's: the same weights and images, each side in a process of its own.

`python benchmarks/dinomaly_step.py --peer PYTHON`, where PYTHON belongs to an environment with anomalib 2.7.0.

Both sides start from the same random transformer and decoder, without dropout and without biases, which the peer
leaves out; forward, backward, clipping and StableAdamW are timed, one thread each, in seconds of the processor, as
other work on the machine does not lengthen these. Sides take turns, and the shortest median of a turn counts. Loss
and norm of the gradient are compared at the first step, where they must agree, and the loss at the last one, where
rounding may have led them apart.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import Any

SIDES = ("ours", "anomalib")
LR, CLIP = 2e-4, 0.1  # the rate at the end of the published schedule


# --- either side, in its own process; what it needs is imported there -----------------------------------------


def make_ours(options: argparse.Namespace, folder: Path) -> tuple[Any, Callable[[Any], Any], Any]:
    """Model, loss of a batch and optimizer; the first call leaves the weights in the folder."""
    import torch

    from tocsin.batch import ImageBatch
    from tocsin.models.dinomaly import Dinomaly
    from tocsin.optimizers import StableAdamW

    torch.manual_seed(options.seed)
    model = Dinomaly(encoder=options.encoder, weights=None, dropout=0.0, bias=False).train()
    torch.save(model.state_dict(), folder / "weights.pt")

    def loss(images: Any) -> Any:
        value = model.loss(ImageBatch(images, torch.arange(len(images))))["loss"]
        model.after_step()
        return value

    return model, loss, StableAdamW(model.trainable("train"), lr=LR)


def make_anomalib(options: argparse.Namespace, folder: Path) -> tuple[Any, Callable[[Any], Any], Any]:
    """The same of the peer, with our weights."""
    import anomalib.models.components.feature_extractors.timm as extractors
    import timm.models.vision_transformer as timm_vit
    import torch
    from anomalib.models.image.dinomaly.components.optimizer import StableAdamW
    from anomalib.models.image.dinomaly.torch_model import DinomalyModel

    resample, create = timm_vit.resample_abs_pos_embed, extractors.timm.create_model
    extractors.timm.create_model = lambda name, **kwargs: create(name, **{**kwargs, "pretrained": False})
    model = DinomalyModel(encoder_name=options.encoder, bottleneck_dropout=0.0).train()
    timm_vit.resample_abs_pos_embed = (
        resample  # it resizes positions without antialiasing, for the whole process
    )
    weights = torch.load(folder / "weights.pt", weights_only=True)
    encoder = {key.removeprefix("encoder."): weights[key] for key in weights if key.startswith("encoder.")}
    left = model.encoder.feature_extractor.load_state_dict(encoder, strict=False)
    assert not left.unexpected_keys, left
    for part in ("bottleneck", "decoder"):
        own = {key.removeprefix(f"{part}."): weights[key] for key in weights if key.startswith(f"{part}.")}
        names = {
            (f"0.{key}" if part == "bottleneck" else key.replace("attention.", "attn.")): key for key in own
        }
        getattr(model, part).load_state_dict({name: own[key] for name, key in names.items()})
    model.encoder.requires_grad_(False)
    trained = [*model.bottleneck.parameters(), *model.decoder.parameters()]
    mean = torch.tensor([0.485, 0.456, 0.406]).reshape(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).reshape(3, 1, 1)
    steps = iter(range(10**9))

    def loss(images: Any) -> Any:
        return model((images - mean) / std, global_step=next(steps))

    return model, loss, StableAdamW([{"params": trained}], lr=LR, weight_decay=1e-4, amsgrad=True)


def run_side(options: argparse.Namespace, folder: Path) -> None:
    """Train for some steps; leaves the losses and the seconds of each in the folder."""
    import torch

    torch.set_num_threads(1)
    make = make_ours if options.side == "ours" else make_anomalib
    _, loss_of, optimizer = make(options, folder)
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    generator = torch.Generator().manual_seed(1)
    losses, norms, seconds = [], [], []
    for _ in range(options.steps):
        images = torch.rand(options.batch, 3, options.size, options.size, generator=generator)
        begin = process_time()
        optimizer.zero_grad()
        loss = loss_of(images)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(trained, CLIP)
        optimizer.step()
        seconds.append(process_time() - begin)
        losses.append(float(loss.detach()))
        norms.append(float(norm))
    found = {"losses": losses, "norms": norms, "seconds": seconds}
    (folder / f"{options.side}.json").write_text(json.dumps(found))


# --- side by side -------------------------------------------------------------------------------------------


def main(options: argparse.Namespace) -> None:
    medians: dict[str, list[float]] = {side: [] for side in SIDES}
    found: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        for _ in range(options.rounds):
            for side in SIDES:
                python = sys.executable if side == "ours" else str(options.peer)
                given = [
                    f"--{key}={vars(options)[key]}" for key in ("encoder", "size", "batch", "steps", "seed")
                ]
                subprocess.run([python, __file__, "--side", side, "--folder", name, *given], check=True)
                found[side] = json.loads((Path(name) / f"{side}.json").read_text())
                medians[side].append(statistics.median(found[side]["seconds"][2:]))  # the first ones warm up
    ours, peer = (min(medians[side]) for side in SIDES)
    print(f"step of {options.encoder}, {options.batch} images of {options.size} pixels, one thread")
    print(
        f"ours {1000 * ours:.1f} ms, anomalib {1000 * peer:.1f} ms, ratio {peer / ours:.2f} (wanted: 1 or more)"
    )
    for name, place in (("losses", 0), ("norms", 0), ("losses", -1)):
        values = [found[side][name][place] for side in SIDES]
        when = "first" if place == 0 else "last"
        print(f"{name} of the {when} step: {values[0]:.6g} and {values[1]:.6g}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", type=Path, help="python of an environment with anomalib")
    parser.add_argument("--encoder", default="vit_small_patch14_reg4_dinov2")
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        run_side(arguments, arguments.folder)
    elif arguments.peer:
        main(arguments)
    else:
        parser.error("give --peer: the python of an environment with anomalib")
