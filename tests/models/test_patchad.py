import math

import pytest
import torch
from torch import Tensor, nn

from tocsin.batch import SeriesBatch
from tocsin.models.patchad import PatchAD, discrepancy, gradient_only, log_distributions, opposed
from tocsin.models.patchad_mixer import choose_patch_sizes, proper_divisors

PARAMETERS = {"patchad": 31_839}  # of window 60 and 3 channels

TINY = {"d_model": 8, "n_layers": 2, "dropout": 0.0}


def tiny(**changes: object) -> PatchAD:
    torch.manual_seed(0)
    return PatchAD(**{"window": 30, "n_channels": 3, **TINY, **changes})


def batch_of(x: Tensor) -> SeriesBatch:
    return SeriesBatch(x, torch.zeros(len(x), dtype=torch.int64))


def noise(batch: int = 4, window: int = 30, channels: int = 3) -> Tensor:
    return torch.randn(batch, window, channels, generator=torch.Generator().manual_seed(5))


def inputs_of(modules: list[nn.Module], model: PatchAD, x: Tensor) -> list[Tensor]:
    """What each module reads while the model looks at x."""
    seen: list[Tensor] = []
    for module in modules:
        module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))
    model.deviations(x)
    return seen


def kl(log_a: Tensor, log_b: Tensor) -> Tensor:
    return (log_a.exp() * (log_a - log_b)).sum(dim=-1)


# --- patch sizes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("window", "sizes", "padded"),
    [
        (105, [3, 5, 7], 105),
        (60, [3, 5, 6], 60),
        (100, [4, 5, 10], 100),
        (128, [2, 4, 8], 128),
        (127, [2, 4, 8], 128),
    ],
)
def test_chosen_patch_sizes(window: int, sizes: list[int], padded: int) -> None:
    assert choose_patch_sizes(window) == (sizes, padded)


def test_any_window_gets_three_patch_sizes_and_little_padding() -> None:
    for window in range(8, 301):
        sizes, padded = choose_patch_sizes(window)
        assert len(set(sizes)) == 3
        assert all(padded % size == 0 and 2 <= size <= padded // 2 for size in sizes)
        assert 0 <= padded - window <= 5


@pytest.mark.parametrize("window", [30, 97, 105])
def test_any_window_works(window: int) -> None:
    model = tiny(window=window).eval()
    x = noise(window=window)
    assert model.deviations(x).shape == x.shape
    assert torch.isfinite(model.loss(batch_of(x))["loss"])


def test_padding_repeats_the_first_step() -> None:
    model = tiny(window=97).eval()
    model.positions.zero_()
    x = noise(window=97)
    (seen,) = inputs_of([model.scales[0]], model, x)
    assert torch.equal(seen[..., 2:], x.transpose(1, 2))
    assert torch.equal(seen[..., :2], x[:, :1].transpose(1, 2).expand(-1, -1, 2))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch_sizes": [4]}, r"patch_sizes=\[4\] do not cut window=30: .*2, 3, 5, 6, 10, 15, or null"),
        ({"patch_sizes": [3, 3]}, r"patch_sizes=\[3, 3\] do not cut window=30: use different ones of 2, 3"),
        ({"patch_sizes": []}, r"patch_sizes=\[\] do not cut"),
        ({"patch_sizes": [30]}, r"patch_sizes=\[30\] do not cut"),
        ({"window": 97, "patch_sizes": [97]}, r"patch_sizes=\[97\] do not cut window=97: use null"),
        ({"layer_mode": "serial"}, "layer_mode='serial' is not one of 'parallel', 'stacked'"),
        ({"activation": "tanh"}, "activation='tanh' is not one of 'relu', 'gelu'"),
        ({"d_model": 7}, "d_model=7 is not a positive even number"),
        ({"n_layers": 0}, "n_layers=0 is not at least 1"),
        ({"dropout": 1.0}, r"dropout=1.0 is not in \[0, 1\)"),
        ({"bottleneck": 1}, "bottleneck=1 is not at least 2, or null"),
        ({"mse_weight": 0.0}, "mse_weight=0.0 is not above 0"),
        ({"projection_share": 1.5}, r"projection_share=1.5 is not in \[0, 1\]"),
        ({"beta": -0.1}, r"beta=-0.1 is not in \[0, 1\]"),
    ],
)
def test_error_says_what_is_possible(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**changes)


def test_divisors_leave_two_patches_of_two_steps() -> None:
    assert proper_divisors(12) == [2, 3, 4, 6]
    assert proper_divisors(97) == []


# --- network ------------------------------------------------------------------------------------------------


def test_channels_are_not_interleaved() -> None:
    model = tiny().eval()
    model.positions.zero_()
    x = torch.arange(3.0).expand(2, 30, 3)
    for scale in model.scales:
        for seen in inputs_of([scale.embed_num, scale.embed_size], model, x):
            assert torch.equal(seen, torch.arange(3.0)[None, :, None, None].expand_as(seen))


def test_branches_read_patches_and_places() -> None:
    model = tiny(patch_sizes=[5]).eval()
    model.positions.zero_()
    x = torch.arange(30.0)[None, :, None].expand(2, 30, 3)
    scale = model.scales[0]
    patches, places = inputs_of([scale.embed_num, scale.embed_size], model, x)
    assert patches[0, 0, 1].tolist() == [5, 6, 7, 8, 9]
    assert places[0, 0, 1].tolist() == [1, 6, 11, 16, 21, 26]


@pytest.mark.parametrize(("released", "copies"), [(False, [1, 1, 1]), (True, [1, 2, 3])])
def test_positions_pile_up_only_as_released(released: bool, copies: list[int]) -> None:
    model = tiny(released_behaviour=released).eval()
    seen = inputs_of(list(model.scales), model, torch.zeros(2, 30, 3))
    for values, times in zip(seen, copies, strict=True):
        torch.testing.assert_close(values[0], times * model.positions)


@pytest.mark.parametrize("mode", ["parallel", "stacked"])
def test_what_a_layer_reads(mode: str) -> None:
    model = tiny(layer_mode=mode, n_layers=3).eval()
    layers = list(model.scales[0].layers)
    outputs: list[Tensor] = []
    for layer in layers:
        layer.register_forward_hook(lambda _, inputs, output: outputs.append(output[0]))
    first, second, third = inputs_of(layers, model, noise())
    assert torch.equal(second, (first if mode == "parallel" else outputs[0]).relu())
    assert torch.equal(third, (first if mode == "parallel" else outputs[1]).relu())


def test_there_is_no_attention() -> None:
    kinds = {type(module) for module in tiny().modules()}
    assert kinds & {nn.Linear, nn.LayerNorm} == {nn.Linear, nn.LayerNorm}
    assert not kinds & {nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.Conv1d}


def test_reconstruction_joins_heads_layers_and_patch_sizes() -> None:
    model = tiny().eval()
    expected = torch.zeros(4, 3, 30)
    with torch.no_grad():
        for scale in model.scales:
            scale.share.fill_(0.3)
            scale.layer_weights.copy_(torch.tensor([0.0, math.log(3.0)]))  # weights 1/4 and 3/4
            output = scale(noise().transpose(1, 2) + model.positions)
            for weight, num, size in zip([0.25, 0.75], output.num, output.size, strict=True):
                heads = 0.3 * scale.head_num(num) + 0.7 * scale.head_size(size)
                expected += weight * heads / 3
        torch.testing.assert_close(model.deviations(noise()), noise() - expected.transpose(1, 2))


# --- contrast -----------------------------------------------------------------------------------------------


def test_discrepancy_of_known_distributions() -> None:
    one = torch.tensor([[[0.75, 0.25]]]).log()
    other = torch.tensor([[[0.25, 0.75], [0.75, 0.25]]]).log()
    torch.testing.assert_close(discrepancy(one, other), torch.tensor([[[math.log(3.0), 0.0]]]))


def test_distribution_is_the_mean_over_channels() -> None:
    features = torch.randn(2, 3, 5, 8)
    torch.testing.assert_close(log_distributions(features).exp(), features.softmax(dim=-1).mean(dim=1))


def test_contrast_is_zero_with_the_gradient_of_its_definition() -> None:
    """D_num(A, B) - D_size(A, B), each with one side detached."""
    torch.manual_seed(1)
    logits = [torch.randn(2, n, 8) for n in (6, 5)]

    def both(transform: bool) -> tuple[Tensor, list[Tensor]]:
        a, b = (values.clone().requires_grad_() for values in logits)
        log_a, log_b = a.log_softmax(dim=-1), b.log_softmax(dim=-1)
        if transform:
            value = gradient_only(discrepancy(log_a, opposed(log_b)).mean())
        else:
            up_a = log_a.repeat_interleave(5, dim=1)  # step t in patch t // P
            up_b = log_b.repeat(1, 6, 1)  # at place t % P
            d_num = (kl(up_a, up_b.detach()) + kl(up_b.detach(), up_a)).mean()
            d_size = (kl(up_a.detach(), up_b) + kl(up_b, up_a.detach())).mean()
            value = d_num - d_size
        value.backward()
        return value.detach(), [a.grad, b.grad]

    (ours, our_gradients), (reference, gradients) = both(True), both(False)
    assert ours == 0.0
    assert abs(float(reference)) < 1e-6
    torch.testing.assert_close(our_gradients, gradients, rtol=1e-4, atol=1e-6)


def test_loss_moves_patches_away_from_places_and_places_towards_patches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny(projection_share=0.0, patch_sizes=[5], n_layers=1)
    num, size = (torch.randn(4, 3, n, 8, requires_grad=True) for n in (6, 5))
    views = model._look(noise())._replace(num=[num], size=[size])
    monkeypatch.setattr(model, "_look", lambda _: views)
    terms = model.loss(batch_of(noise()))
    before = terms["skl"]
    terms["loss"].backward()
    for moved, rises in ((num, True), (size, False)):
        with torch.no_grad():
            after = {id(v): v - 0.5 * v.grad if v is moved else v for v in (num, size)}
            _, skl = model._contrast(views._replace(num=[after[id(num)]], size=[after[id(size)]]))
        assert bool(skl > before) == rises


@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_projectors_are_contrasted_crosswise(share: float) -> None:
    """c L_proj + (1 - c) L_cont with L_proj = [D_num - D_size](P_num, Q_size) + [D_num - D_size](Q_num, P_size)."""
    model = tiny(projection_share=share, patch_sizes=[5], n_layers=1)
    views = model._look(noise())
    num, size = views.num[0].detach().requires_grad_(), views.size[0].detach().requires_grad_()
    inputs = [num, size]
    if share:
        inputs += [*model.project_num.parameters(), *model.project_size.parameters()]

    def between(a: Tensor, b: Tensor) -> Tensor:
        """Gradient of D_num(A, B) - D_size(A, B): that of their divergence, with the sign of B turned."""
        a, b = a.repeat_interleave(5, dim=1), b.repeat(1, 6, 1)
        b = b.detach() - (b - b.detach())
        return (kl(a, b) + kl(b, a)).mean()

    p_num, p_size = log_distributions(num), log_distributions(size)
    reference = (1 - share) * between(p_num, p_size)
    if share:
        q_num = model.project_num(num.mean(dim=1)).log_softmax(dim=-1)
        q_size = model.project_size(size.mean(dim=1)).log_softmax(dim=-1)
        reference = reference + share * (between(p_num, q_size) + between(q_num, p_size))
    contrast, _ = model._contrast(views._replace(num=[num], size=[size]))
    assert contrast == 0.0
    found = torch.autograd.grad(contrast, inputs, allow_unused=True)
    expected = torch.autograd.grad(reference, inputs, allow_unused=True)
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("released", [False, True])
def test_discrepancy_of_a_step_is_that_of_its_patch_and_place(released: bool) -> None:
    model = tiny(patch_sizes=[5], n_layers=1, released_behaviour=released).eval()
    views = model._look(noise())
    log_num, log_size = log_distributions(views.num[0]), log_distributions(views.size[0])
    t = torch.arange(30)
    patch, place = (t % 6, t // 6) if released else (t // 5, t % 5)
    a, b = log_num[:, patch], log_size[:, place]
    torch.testing.assert_close(model._steps_discrepancy(views), kl(a, b) + kl(b, a), rtol=1e-4, atol=1e-6)


# --- loss and gradients -------------------------------------------------------------------------------------


def test_loss_is_the_weighted_error_and_deterministic_in_evaluation() -> None:
    model = tiny(dropout=0.5, mse_weight=7.0).eval()
    terms = model.loss(batch_of(noise()))
    torch.testing.assert_close(terms["loss"], 7.0 * model.deviations(noise()).square().mean())
    torch.testing.assert_close(terms["loss"], 7.0 * terms["mse"])
    assert terms["skl"] > 0
    assert torch.equal(model.loss(batch_of(noise()))["loss"], terms["loss"])
    model.train()
    assert not torch.equal(model.loss(batch_of(noise()))["loss"], terms["loss"])


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"n_channels": 1},
        {"n_layers": 1},
        {"projection_share": 0.0},
        {"projection_share": 1.0},
        {"layer_mode": "stacked", "activation": "gelu"},
        {"instance_norm": True},
        {"released_behaviour": True},
        {"window": 31},
    ],
)
def test_gradient_reaches_what_is_trained_and_nothing_else(changes: dict[str, object]) -> None:
    model = tiny(**changes)
    trained = {id(p) for p in model.trainable("train")}
    x = noise(8, model.positions.shape[1] - model.padding, model.positions.shape[0])
    model.loss(batch_of(x))["loss"].backward()
    for name, parameter in model.named_parameters():
        reached = parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
        assert reached == (id(parameter) in trained), name


def test_reconstruction_is_trained_except_as_released() -> None:
    def heads(model: PatchAD) -> list[bool]:
        trained = {id(p) for p in model.trainable("train")}
        return [id(p) in trained for s in model.scales for p in s.reconstruction_parameters()]

    assert all(heads(tiny()))
    assert not any(heads(tiny(released_behaviour=True)))


def test_loss_and_scores_are_finite_in_half_precision() -> None:
    model = tiny(beta=0.3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = model.loss(batch_of(noise()))
        deviations = model.deviations(noise())
    terms["loss"].backward()
    assert terms["loss"].dtype == deviations.dtype == torch.float32
    assert deviations.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    torch.testing.assert_close(terms["mse"], model.loss(batch_of(noise()))["mse"], rtol=0.05, atol=0.05)


def test_reconstruction_is_learned_as_a_whole() -> None:
    """Three waves on one phase; a broken relation of a channel to the others shows in its error."""
    model = tiny(d_model=16, n_layers=1, patch_sizes=[3, 5])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    time = torch.arange(30)[None, :, None] * 0.4
    shifts = torch.tensor([0.0, 0.7, 1.5])
    for _ in range(100):
        loss = model.loss(batch_of(torch.sin(time + torch.rand(16, 1, 1) * 6.283 + shifts)))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    x = torch.sin(time + torch.rand(8, 1, 1) * 6.283 + shifts)
    x[3, 14:17, 1] += 3.0
    scores = model.eval().channel_scores(x)
    assert scores[:3].mean() < 0.1
    window, rest = divmod(int(scores.argmax()), 30 * 3)
    assert (window, rest % 3) == (3, 1)
    assert rest // 3 in (14, 15, 16)


# --- score --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_squared_deviation_is_the_published_score(beta: float) -> None:
    model, plain = tiny(beta=beta).eval(), tiny().eval()
    error = plain.deviations(noise())
    alike = (-plain._steps_discrepancy(plain._look(noise()))).softmax(dim=1)
    score = (1 - beta) * error.square().mean(dim=-1) + beta * alike
    torch.testing.assert_close(model.point_scores(noise()), score)
    assert torch.equal(model.deviations(noise()) < 0, error < 0)


def test_instance_norm_forgets_level_and_scale() -> None:
    x = noise()
    normed, plain = tiny(instance_norm=True).eval(), tiny().eval()
    torch.testing.assert_close(
        normed.deviations(5.0 + 3.0 * x), 3.0 * normed.deviations(x), rtol=1e-3, atol=1e-3
    )
    assert (plain.deviations(5.0 + 3.0 * x) - 3.0 * plain.deviations(x)).abs().max() > 1.0


def test_released_layers_count_alike() -> None:
    model = tiny(released_behaviour=True, patch_sizes=[5]).eval()
    scale = model.scales[0]
    assert scale.layer_weights is None
    output = scale(noise().transpose(1, 2))
    heads = [
        0.5 * scale.head_num(num) + 0.5 * scale.head_size(size)
        for num, size in zip(output.num, output.size, strict=True)
    ]
    torch.testing.assert_close(output.expected, (heads[0] + heads[1]) / 2)


def test_every_channel_is_read_by_every_other() -> None:
    model, x = tiny().eval(), noise()
    changed = x.clone()
    changed[:, 10:14, 1] += 1.0
    expected = [one - model.deviations(one) for one in (x, changed)]
    assert ((expected[0] - expected[1]).abs().amax(dim=(0, 1)) > 1e-4).all()


def test_released_error_compares_two_scales() -> None:
    x = noise()
    model = tiny(released_behaviour=True).eval()
    torch.testing.assert_close(model.deviations(x + 100.0), model.deviations(x) + 100.0, rtol=1e-3, atol=1e-2)


def test_weights_load_into_a_fresh_object() -> None:
    model = tiny().eval()
    torch.manual_seed(9)
    fresh = PatchAD(window=30, n_channels=3, **TINY)
    assert not torch.equal(model.deviations(noise()), fresh.eval().deviations(noise()))
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(model.deviations(noise()), fresh.deviations(noise()))
