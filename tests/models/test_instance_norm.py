"""Windows on their own scales, and back."""

import torch

from tocsin.models.instance_norm import standardise_instances


def test_levels_and_sizes_are_forgotten_and_come_back() -> None:
    x = torch.randn(4, 30, 3, generator=torch.Generator().manual_seed(0))
    instance = standardise_instances(5.0 + 3.0 * x)
    torch.testing.assert_close(instance.x, standardise_instances(x).x, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(instance.x.mean(dim=1), torch.zeros(4, 3), rtol=0, atol=1e-5)
    torch.testing.assert_close(instance.x.std(dim=1, correction=0), torch.ones(4, 3), rtol=0, atol=1e-3)
    torch.testing.assert_close(instance.undo(instance.x), 5.0 + 3.0 * x)


def test_a_constant_window_stays_finite() -> None:
    instance = standardise_instances(torch.full((2, 10, 1), 7.0))
    assert torch.equal(instance.x, torch.zeros(2, 10, 1))
    assert torch.equal(instance.undo(instance.x), torch.full((2, 10, 1), 7.0))
