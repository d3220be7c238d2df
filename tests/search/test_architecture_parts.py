"""The parts of a network as a batch meets them."""

import torch
from torch import Tensor, nn

from tocsin.batch import SeriesBatch
from tocsin.models.base import SeriesDetector
from tocsin.models.mae import MaskedAutoencoder
from tocsin.search.architecture import parts_of


class Two(SeriesDetector):
    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(5))
        self.first = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
        self.unused = nn.Linear(2, 2, bias=False)
        self.empty = nn.Identity()

    def loss(self, batch: SeriesBatch) -> dict[str, Tensor]:
        return {"loss": self.first(batch.x).mean()}

    def deviations(self, x: Tensor) -> Tensor:
        return x


def test_parts_have_their_parameters_and_the_shape_they_gave() -> None:
    batch = SeriesBatch(torch.zeros(2, 7, 3), torch.zeros(2, dtype=torch.long))
    detector = Two()
    rows = [tuple(part) for part in parts_of(detector, batch)]
    x = "\N{MULTIPLICATION SIGN}"
    assert rows == [
        ("token", "Parameter", 0, 5, "5"),
        ("first", "Sequential", 0, 16, f"2 {x} 7 {x} 4"),
        ("0", "Linear", 1, 16, f"2 {x} 7 {x} 4"),
        ("1", "ReLU", 1, 0, f"2 {x} 7 {x} 4"),
        ("unused", "Linear", 0, 4, ""),
    ]
    assert not any(module._forward_hooks for module in detector.modules())


def test_outermost_parts_of_the_masked_auto_encoder_are_all_of_its_parameters() -> None:
    detector = MaskedAutoencoder(window=20, n_channels=4, mask_unit="both", d_model=16, n_heads=2)
    batch = SeriesBatch(torch.zeros(2, 20, 4), torch.zeros(2, dtype=torch.long))
    parts = parts_of(detector, batch)
    assert sum(p.parameters for p in parts if p.depth == 0) == sum(p.numel() for p in detector.parameters())
    assert {"encoder", "teacher", "detail"} <= {part.name for part in parts if part.shape}
