"""Inputs of a network within a range, errors in full."""

import pytest
import torch

from tocsin.models.input_limit import limited
from tocsin.models.mae import MaskedAutoencoder
from tocsin.models.patchad import PatchAD
from tocsin.models.patchtrad import PatchTrad

DETECTORS = (MaskedAutoencoder, PatchAD, PatchTrad)


def test_small_values_stay_and_large_ones_end_at_the_limit() -> None:
    x = torch.tensor([-1e3, -0.1, 0.0, 0.1, 5.0, 1e3])
    inside = limited(x, 4.0)
    torch.testing.assert_close(inside[1:4], x[1:4], rtol=1e-3, atol=0)
    assert inside.tolist() == sorted(inside.tolist())
    assert inside.abs().max() <= 4.0
    assert limited(x, None) is x


@pytest.mark.parametrize("detector", DETECTORS)
def test_an_excursion_is_an_error_in_full_and_is_not_read(detector: type[MaskedAutoencoder]) -> None:
    torch.manual_seed(0)
    model = detector(window=40, n_channels=3, input_limit=4.0).eval()
    x = torch.randn(2, 40, 3)
    far, further = x.clone(), x.clone()
    far[0, 20, 1], further[0, 20, 1] = 1e3, 3e3
    with torch.inference_mode():
        a, b = model.deviations(far), model.deviations(further)
    # Both look the same to the network, so their errors differ by the excursion alone.
    change = b - a
    assert float(change[0, 20, 1]) == pytest.approx(2e3, rel=1e-3)
    change[0, 20, 1] = 0.0
    assert float(change.abs().max()) < 1e-2


@pytest.mark.parametrize("detector", DETECTORS)
def test_error_says_what_is_possible(detector: type[MaskedAutoencoder]) -> None:
    with pytest.raises(ValueError, match=r"input_limit=-1\.0 is not above 0, or null"):
        detector(window=40, n_channels=3, input_limit=-1.0)


def test_released_behaviour_reads_inputs_without_a_limit() -> None:
    x = torch.randn(2, 40, 3)
    x[0, 20, 1] = 50.0

    def deviations(limit: float | None, *, released: bool) -> torch.Tensor:
        torch.manual_seed(0)
        model = PatchAD(window=40, n_channels=3, input_limit=limit, released_behaviour=released).eval()
        with torch.inference_mode():
            return model.deviations(x)

    assert torch.equal(deviations(1.0, released=True), deviations(None, released=True))
    assert not torch.allclose(deviations(1.0, released=False), deviations(None, released=False))
