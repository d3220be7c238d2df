"""Two real processes that share a batch do to it what one process does: loss, gradients, statistics."""

import subprocess
import sys

import pair
import pytest
import torch
from torch import Tensor

from tocsin.models.batch_share import ALONE

Found = dict[str, Tensor]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Found, Found]:
    folder = tmp_path_factory.mktemp("pair")
    done = subprocess.run(
        [sys.executable, pair.__file__, str(folder)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return torch.load(folder / "0.pt"), torch.load(folder / "1.pt")


@pytest.fixture(scope="module")
def alone() -> Found:
    return pair.step(ALONE, slice(0, pair.N_ITEMS))


def test_the_mean_of_the_losses_is_that_of_the_batch(both: tuple[Found, Found], alone: Found) -> None:
    torch.testing.assert_close((both[0]["loss"] + both[1]["loss"]) / 2, alone["loss"], rtol=1e-5, atol=1e-6)
    assert abs(float(both[0]["loss"] - both[1]["loss"])) > 1e-3  # it is no mean of equals


def test_the_mean_of_the_gradients_is_that_of_the_batch(both: tuple[Found, Found], alone: Found) -> None:
    for name, _ in pair.network().named_parameters():
        mean = (both[0][name] + both[1][name]) / 2
        torch.testing.assert_close(mean, alone[name], rtol=1e-4, atol=1e-5)


def test_statistics_of_the_norms_are_those_of_the_batch(both: tuple[Found, Found], alone: Found) -> None:
    for name, buffer in pair.network().named_buffers():
        if name.endswith(("mean", "var")):
            for found in both:
                torch.testing.assert_close(found[name], alone[name], rtol=1e-5, atol=1e-6)
            assert not torch.allclose(alone[name], buffer)


def test_a_copy_counts_for_nothing(both: tuple[Found, Found]) -> None:
    assert float(both[1]["lonely loss"]) == 0
    assert torch.isfinite(both[1]["lonely conv.weight"]).all()
    torch.testing.assert_close(both[0]["lonely norm.running_mean"], both[1]["lonely norm.running_mean"])


def test_rows_are_gathered_in_order_whatever_their_type(both: tuple[Found, Found]) -> None:
    expected = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12, 13, 14, 15])
    for found in both:
        assert found["gathered"].tolist() == expected.tolist()
        assert found["gathered bool"].tolist() == (expected % 3 == 0).tolist()
