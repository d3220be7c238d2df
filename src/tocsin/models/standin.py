"""A small YOLO trained from scratch on drawn figures: a victim that needs neither weights nor photographs.

It is made of YOLOv8's parts, with two strides instead of three and one class. It is trained
by a plain loop with ultralytics' own loss, in a minute or two on one core, and kept in the cache. It is there to try
things out and for tests: what an attack does to it says nothing about a detector of people.
"""

import hashlib
import inspect
import json
import logging
import os
import sys
import time
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tocsin.data.synthetic import figures as drawing
from tocsin.models.yolo_networks import yolo_network

log = logging.getLogger(__name__)

_BATCH = 16
_LR = 4e-3
_WARMUP = 0.1  # share of the steps
_LOG_EVERY = 100
_BN_MOMENTUM = 0.1  # ultralytics' own 0.03 follows too slowly for a training this short
# As ultralytics describes networks: from, repeats, module, arguments.
_DESCRIPTION: dict[str, Any] = {
    "nc": 1,
    "reg_max": 8,
    "scales": {"n": [1.0, 1.0, 1024]},
    "scale": "n",
    "backbone": [
        [-1, 1, "Conv", [16, 3, 2]],
        [-1, 1, "Conv", [32, 3, 2]],
        [-1, 1, "C2f", [32, True]],
        [-1, 1, "Conv", [64, 3, 2]],
        [-1, 1, "C2f", [64, True]],  # 4, stride 8
        [-1, 1, "Conv", [128, 3, 2]],
        [-1, 1, "C2f", [128, True]],
        [-1, 1, "SPPF", [128, 5]],  # 7, stride 16
    ],
    "head": [
        [-1, 1, "nn.Upsample", [None, 2, "nearest"]],
        [[-1, 4], 1, "Concat", [1]],
        [-1, 1, "C2f", [64]],  # 10
        [[10, 7], 1, "Detect", ["nc"]],
    ],
}


def standin_network(
    *,
    cache_dir: str | Path | None = None,
    seed: int = 0,
    steps: int = 600,
    n_images: int = 480,
    size: int = 160,
) -> nn.Module:
    """The trained network, a `DetectionModel` of ultralytics with one class.

    Args:
        cache_dir: Where the weights are kept; None trains anew.
        seed: Of weights, figures and order.
        steps: Optimizer steps of 16 images.
        n_images: Drawn figures to learn from.
        size: Pixels of a side, a multiple of 32.
    """
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        network = yolo_network(deepcopy(_DESCRIPTION))  # it writes into what it gets
        options = {"seed": seed, "steps": steps, "n_images": n_images, "size": size}
        path = None if cache_dir is None else Path(cache_dir).expanduser() / f"standin-{_key(options)}.pt"
        if path is not None and path.is_file():
            network.load_state_dict(torch.load(path, weights_only=True))
        else:
            _train(network, **options)
            if path is not None:
                _write(network, path)
    return network.eval()


def _key(options: dict[str, int]) -> str:
    """Changes with all that the weights depend on."""
    import ultralytics

    made_with = [
        inspect.getsource(sys.modules[__name__]),
        inspect.getsource(drawing),
        ultralytics.__version__,
    ]
    text = json.dumps({**options, "made_with": made_with}, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def _write(network: nn.Module, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    torch.save(network.state_dict(), temporary)
    temporary.replace(path)


# --- training -----------------------------------------------------------------------------------------------


@torch.enable_grad()
def _train(network: nn.Module, *, seed: int, steps: int, n_images: int, size: int) -> None:
    """Minimise ultralytics' loss with AdamW over one cycle of the rate."""
    from ultralytics.utils.loss import v8DetectionLoss

    begin = time.monotonic()
    log.info("training the stand-in victim on %d drawn images; a minute or two", n_images)
    drawn = drawing.figures(n_images=n_images, size=size, seed=seed)
    images = torch.from_numpy(drawn.images).permute(0, 3, 1, 2)  # (N, 3, S, S) uint8
    boxes, owner = torch.from_numpy(drawn.boxes) / size, torch.from_numpy(drawn.owner)
    network.train().requires_grad_(True)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = _BN_MOMENTUM
    criterion = v8DetectionLoss(network)
    optimizer = torch.optim.AdamW(network.parameters(), lr=_LR, weight_decay=5e-4)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LR, total_steps=steps, pct_start=_WARMUP)
    for step in range(steps):
        chosen = torch.randint(n_images, (_BATCH,))
        pixels, labels = _batch(images, boxes, owner, chosen)
        loss = criterion.loss(network(pixels), labels)[0].sum() / _BATCH
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 10.0)
        optimizer.step()
        cycle.step()
        if (step + 1) % _LOG_EVERY == 0:
            log.info("stand-in: step %d of %d, loss %.3f", step + 1, steps, float(loss.detach()))
    log.info("the stand-in was trained in %.0f s", time.monotonic() - begin)


def _batch(images: Tensor, boxes: Tensor, owner: Tensor, chosen: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Chosen images, each mirrored or not, and their boxes as ultralytics wants them."""
    pixels = images[chosen].float() / 255
    mirrored = torch.rand(len(chosen)) < 0.5
    pixels = torch.where(mirrored[:, None, None, None], pixels.flip(3), pixels)
    image, box = (owner[None, :] == chosen[:, None]).nonzero(as_tuple=True)
    corner, far = boxes[box, :2], boxes[box, 2:]
    centre = (corner + far) / 2
    x = torch.where(mirrored[image], 1 - centre[:, 0], centre[:, 0])
    placed = torch.cat([x[:, None], centre[:, 1:], far - corner], dim=1)  # centre and size, in [0, 1]
    return pixels, {"batch_idx": image.float(), "cls": torch.zeros(len(box), 1), "bboxes": placed}
