"""StableAdamW against the formulas written out for one number at a time."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tocsin.optimizers import StableAdamW

OPTIONS = {"lr": 0.1, "betas": (0.8, 0.9), "eps": 1e-3, "weight_decay": 0.2}


def parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(3)
    shapes = [(2, 3), (4,), ()]
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


def gradients(steps: int) -> list[list[Tensor]]:
    """Small ones, but for a jump in the middle."""
    generator = torch.Generator().manual_seed(4)
    scales = [30.0 if step == steps // 2 else 1.0 for step in range(steps)]
    return [[scale * torch.randn(p.shape, generator=generator) for p in parameters()] for scale in scales]


def run(optimizer: torch.optim.Optimizer, made: list[nn.Parameter], grads: list[list[Tensor]]) -> None:
    for step in grads:
        for parameter, gradient in zip(made, step, strict=True):
            parameter.grad = gradient.clone()
        optimizer.step()


def by_hand(value: Tensor, grads: list[Tensor], *, amsgrad: bool, threshold: float = 1.0) -> Tensor:
    """Algorithm 2 of the paper, with the decay first and the largest second moment, in double precision."""
    theta = value.detach().double()
    m, v, v_max = (torch.zeros_like(theta) for _ in range(3))
    lr, (beta1, beta2), eps = OPTIONS["lr"], OPTIONS["betas"], OPTIONS["eps"]
    for t, gradient in enumerate(grads, start=1):
        g = gradient.double()
        theta = theta - lr * OPTIONS["weight_decay"] * theta
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        v_max = torch.maximum(v_max, v) if amsgrad else v
        denominator = (v_max / (1 - beta2**t)).sqrt() + eps
        rms = (g / denominator).square().mean().sqrt()
        rate = lr / max(1.0, float(rms) / threshold)
        theta = theta - rate * (m / (1 - beta1**t)) / denominator
    return theta


@pytest.mark.parametrize("amsgrad", [True, False])
@pytest.mark.parametrize("threshold", [1.0, 0.3])
def test_every_tensor_follows_the_paper(amsgrad: bool, threshold: float) -> None:
    made, grads = parameters(), gradients(9)
    run(StableAdamW(made, **OPTIONS, amsgrad=amsgrad, clip_threshold=threshold), made, grads)
    for index, before in enumerate(parameters()):
        expected = by_hand(before, [step[index] for step in grads], amsgrad=amsgrad, threshold=threshold)
        torch.testing.assert_close(made[index].detach().double(), expected, rtol=1e-5, atol=1e-6)


def test_all_tensors_at_a_time_is_what_one_after_the_other_is() -> None:
    """As on a GPU, where each operation takes all tensors."""
    one, all_together, grads = parameters(), parameters(), gradients(9)
    run(StableAdamW(one, **OPTIONS), one, grads)
    optimizer = StableAdamW(all_together, **OPTIONS)
    with torch.no_grad():
        for step in grads:
            for parameter, gradient in zip(all_together, step, strict=True):
                parameter.grad = gradient.clone()
            optimizer._update(all_together, optimizer.param_groups[0])
    assert all(torch.equal(a, b) for a, b in zip(all_together, one, strict=True))


@pytest.mark.parametrize("amsgrad", [True, False])
def test_without_clipping_it_is_adamw(amsgrad: bool) -> None:
    ours, theirs, grads = parameters(), parameters(), gradients(9)
    run(StableAdamW(ours, **OPTIONS, amsgrad=amsgrad, clip_threshold=math.inf), ours, grads)
    run(torch.optim.AdamW(theirs, **OPTIONS, amsgrad=amsgrad), theirs, grads)
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their)


def test_only_the_tensor_whose_gradient_jumps_is_slowed_down() -> None:
    made = [nn.Parameter(torch.zeros(4)) for _ in range(3)]
    calm = [torch.full((4,), 0.01)] * 2
    grads = [[*calm, torch.full((4,), 0.01)]] * 5 + [[*calm, torch.full((4,), 1.0)]]
    optimizer = StableAdamW(made, lr=0.1, weight_decay=0.0)
    run(optimizer, made, grads[:5])
    before = [p.detach().clone() for p in made]
    run(optimizer, made, grads[5:])
    moved = [float((p.detach() - b).abs().max()) for p, b in zip(made, before, strict=True)]
    assert moved[0] == moved[1] == pytest.approx(0.1, rel=1e-3)
    free = [nn.Parameter(torch.zeros(4)) for _ in range(3)]
    run(torch.optim.AdamW(free, lr=0.1, weight_decay=0.0, amsgrad=True), free, grads)
    assert moved[2] < 0.5 * float((free[2].detach() - before[2]).abs().max())


@pytest.mark.parametrize("stop", [1, 4])
def test_state_is_plain_and_resumes_bitwise(stop: int, tmp_path: Path) -> None:
    made, grads = parameters(), gradients(9)
    run(StableAdamW(made, **OPTIONS), made, grads)

    first = parameters()
    optimizer = StableAdamW(first, **OPTIONS)
    run(optimizer, first, grads[:stop])
    torch.save({"parameters": first, "optimizer": optimizer.state_dict()}, tmp_path / "state.pt")

    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    fresh = [nn.Parameter(p.detach().clone()) for p in saved["parameters"]]
    resumed = StableAdamW(fresh)  # options come with the state, too
    resumed.load_state_dict(saved["optimizer"])
    run(resumed, fresh, grads[stop:])
    assert all(torch.equal(a, b) for a, b in zip(fresh, made, strict=True))


def test_parameters_without_a_gradient_stay_and_count_no_step() -> None:
    used, unused = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = StableAdamW([used, unused], lr=0.1)
    used.grad = torch.ones(2)
    optimizer.step()
    assert torch.equal(unused, torch.ones(2))
    assert not torch.equal(used, torch.ones(2))
    unused.grad = torch.ones(2)  # its first step, and as large as the first of the other
    first = used.detach().clone()
    optimizer.step()
    torch.testing.assert_close(unused.detach(), first)


def test_groups_have_their_own_rates_and_a_closure_is_evaluated() -> None:
    slow, fast = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    optimizer = StableAdamW([{"params": [slow], "lr": 0.01}, {"params": [fast]}], lr=0.1, weight_decay=0.0)

    def closure() -> Tensor:
        loss = (slow + fast).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure) == 2.0
    assert float(slow.detach()) == pytest.approx(0.99)
    assert float(fast.detach()) == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1.0}, "lr=-1.0 is not at least 0"),
        ({"weight_decay": -0.1}, "weight_decay=-0.1 is not at least 0"),
        ({"eps": 0.0}, "eps=0.0 is not more than 0"),
        ({"clip_threshold": 0.0}, "clip_threshold=0.0 is not more than 0"),
        ({"betas": (1.0, 0.9)}, r"betas\[0\]=1.0 is not in \[0, 1\)"),
        ({"betas": (0.9, 1.0)}, r"betas\[1\]=1.0 is not in \[0, 1\)"),
    ],
)
def test_option_out_of_range_is_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StableAdamW(parameters(), **options)
