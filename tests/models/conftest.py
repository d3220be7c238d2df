"""Shared by the tests of all detectors."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import torch


class Victim(NamedTuple):
    """A trained network of ultralytics, and images that it knows."""

    network: torch.nn.Module
    batch: Any


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Models this small are slower on several threads, by far on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_victim() -> Victim:
    """A small YOLO that has learned eight drawn images by heart, and these images: seconds of training."""
    from tocsin.batch import DetectionBatch
    from tocsin.data.synthetic.figures import figures
    from tocsin.models import standin

    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        patch.setattr(standin, "_BATCH", 8)
        network = standin.standin_network(seed=0, steps=100, n_images=8, size=64)
        torch.set_num_threads(threads)
    drawn = figures(n_images=8, size=64, seed=0)
    n = len(drawn.boxes)
    batch = DetectionBatch(
        image=torch.from_numpy(drawn.images).permute(0, 3, 1, 2).float() / 255,
        position=torch.arange(8),
        boxes=torch.from_numpy(drawn.boxes),
        owner=torch.from_numpy(drawn.owner),
        target=torch.ones(n, dtype=torch.bool),
        crowd=torch.zeros(n, dtype=torch.bool),
    )
    return Victim(network, batch)
