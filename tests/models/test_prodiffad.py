import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from tocsin.batch import SeriesBatch
from tocsin.models.diffusion import (
    add_noise,
    alpha_sigma,
    ddim_step,
    fixed_noise,
    level_of,
    one_step_target,
    predict,
    predict_noise,
    truncated_snr,
)
from tocsin.models.prodiffad import ProDiffAD, halvings
from tocsin.models.unet1d import UNet1d, level_sinusoids, linear_attention

PARAMETERS = {"prodiffad": 871_737}  # three networks: the teacher and students of two steps and of one

TINY = {"dim": 8, "dim_mults": (1, 2), "n_heads": 2, "head_dim": 4}


def tiny(**changes: object) -> ProDiffAD:
    torch.manual_seed(0)
    return ProDiffAD(**{"window": 40, "n_channels": 3, **TINY, **changes})


def batch_of(x: Tensor) -> SeriesBatch:
    return SeriesBatch(x, torch.zeros(len(x), dtype=torch.int64))


def waves(batch: int, window: int = 40) -> Tensor:
    """Three channels on one phase."""
    phase = torch.rand(batch, 1, 1) * 6.283
    time = torch.arange(window)[None, :, None] * 0.4
    return torch.sin(time * torch.tensor([1.0, 0.5, 1.0]) + phase + torch.tensor([0.0, 0.7, 1.5]))


def train_steps(model: ProDiffAD, stage: str, steps: int) -> list[float]:
    model.begin_stage(stage, [])
    model.train()
    optimizer = torch.optim.AdamW(list(model.trainable(stage)), lr=3e-3)
    losses = []
    for _ in range(steps):
        loss = model.loss(batch_of(waves(16)))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def weights_of(network: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(network.parameters()).detach().clone()


class Gaussian(nn.Module):
    """The best denoiser of normal data of variance s^2 is linear: E[x | z] = a s^2 z / (a^2 s^2 + sigma^2)."""

    def __init__(self, variance: float) -> None:
        super().__init__()
        self.variance = variance

    def gain(self, level: Tensor) -> Tensor:
        alpha, sigma = alpha_sigma(level)
        return alpha * self.variance / (alpha.square() * self.variance + sigma.square())

    def forward(self, z: Tensor, level: Tensor) -> Tensor:
        alpha, sigma = alpha_sigma(level)
        return (alpha - self.gain(level)) * z / sigma  # v, from x_hat = alpha z - sigma v


# --- diffusion ----------------------------------------------------------------------------------------------


def test_signal_and_noise_share_the_variance() -> None:
    alpha, sigma = alpha_sigma(torch.linspace(0, 1, 11, dtype=torch.float64))
    torch.testing.assert_close(alpha.square() + sigma.square(), torch.ones_like(alpha))
    assert (alpha[0], sigma[0]) == (1, 0)
    assert alpha[:, 0, 0].diff().max() < 0


def test_v_tells_both_the_window_and_the_noise() -> None:
    x, noise = torch.randn(2, 4, 10, 3).double().unbind()
    level = torch.tensor([0.05, 0.2, 0.5, 0.9]).double()
    alpha, sigma = alpha_sigma(level)

    class Truth(nn.Module):
        def forward(self, z: Tensor, level: Tensor) -> Tensor:
            return alpha * noise - sigma * x

    z = add_noise(x, noise, level)
    torch.testing.assert_close(predict(Truth(), z, level), x, atol=1e-6, rtol=0)  # v itself is float32
    torch.testing.assert_close(predict_noise(Truth(), z, level), noise, atol=1e-6, rtol=0)


def test_ddim_step_with_the_truth_keeps_window_and_noise() -> None:
    x, noise = torch.randn(2, 4, 10, 3).double().unbind()
    level, to = torch.full((4,), 0.4).double(), torch.tensor([0.3, 0.2, 0.1, 0.0]).double()
    stepped = ddim_step(add_noise(x, noise, level), x, level, to)
    torch.testing.assert_close(stepped, add_noise(x, noise, to))


@pytest.mark.parametrize("end", [0.0, 0.1])
def test_one_step_target_of_a_linear_gaussian_denoiser_is_the_result_of_two_steps(end: float) -> None:
    denoiser = Gaussian(variance=0.7)
    z = torch.randn(5, 20, 2).double()
    u, middle, to = (torch.full((5,), level).double() for level in (0.3, (0.3 + end) / 2, end))
    half_way = ddim_step(z, denoiser.gain(u) * z, u, middle)
    arrived = ddim_step(half_way, denoiser.gain(middle) * half_way, middle, to)
    target = one_step_target(z, arrived, u, to)
    torch.testing.assert_close(ddim_step(z, target, u, to), arrived, rtol=1e-12, atol=1e-12)
    if end == 0.0:
        torch.testing.assert_close(target, arrived, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(target, denoiser.gain(u) * z, rtol=1e-3)  # two steps go elsewhere than one


def test_weight_is_the_truncated_ratio_of_signal_to_noise() -> None:
    levels = torch.tensor([1e-6, 0.25, 0.5, 0.9])
    expected = torch.tensor([20.0, 1 / math.tan(math.pi / 8) ** 2, 1.0, 1.0])
    torch.testing.assert_close(truncated_snr(levels, 20.0).flatten(), expected)


def test_draws_of_noise_cancel_in_pairs_and_do_not_touch_the_global_generator() -> None:
    before = torch.get_rng_state()
    noise = fixed_noise(4, 50, 3, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(noise[:2], -noise[2:])
    assert 0.8 < noise.std() < 1.2
    assert fixed_noise(3, 50, 3, seed=1).shape == (3, 50, 3)
    assert torch.equal(fixed_noise(4, 50, 3, seed=1), noise)
    assert not torch.equal(fixed_noise(4, 50, 3, seed=2), noise)


# --- network ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [30, 37, 40, 101, 300])
def test_network_takes_any_length(steps: int) -> None:
    torch.manual_seed(0)
    network = UNet1d(n_channels=2, dim=8, dim_mults=(1, 2, 2, 2), n_heads=2, head_dim=4)
    z = torch.randn(2, steps, 2)
    assert network(z, torch.tensor([0.1, 0.2])).shape == z.shape
    assert tiny(window=steps).eval().deviations(waves(2, steps)).shape == (2, steps, 3)


def test_channels_reach_the_first_convolution_unmixed() -> None:
    model = tiny()
    seen: list[Tensor] = []
    model.denoisers[0].stem.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    x = torch.arange(3.0).expand(2, 40, 3)
    model.denoisers[0](x, torch.zeros(2))
    assert torch.equal(seen[0], torch.arange(3.0)[None, :, None].expand(2, 3, 40))


def test_network_is_told_the_level() -> None:
    torch.manual_seed(0)
    network = UNet1d(n_channels=2, **TINY)
    z = torch.randn(1, 40, 2).expand(2, -1, -1)
    low, high = network(z, torch.tensor([0.1, 0.2]))
    assert not torch.allclose(low, high)
    found = level_sinusoids(torch.tensor([0.0, 0.5]), 8)
    torch.testing.assert_close(found[0], torch.tensor([0.0] * 4 + [1.0] * 4))
    torch.testing.assert_close(found[1, 0], torch.tensor(500.0).sin(), atol=1e-4, rtol=0)


def test_linear_attention_of_constant_keys_is_the_mean_over_time() -> None:
    value = torch.randn(2, 3, 4, 10)  # (B, H, D, T)
    query = torch.randn(2, 3, 4, 10)
    found = linear_attention(query, torch.zeros_like(value), value)
    torch.testing.assert_close(found, (value.mean(dim=3, keepdim=True) / 2).expand_as(value))


# --- stages and distillation --------------------------------------------------------------------------------


def test_rounds_halve_the_steps() -> None:
    assert halvings(8, 1) == (8, 4, 2, 1)
    assert halvings(64, 16) == (64, 32, 16)
    assert [stage.name for stage in tiny().stages] == ["teacher", "distil_2", "distil_1"]
    assert [stage.name for stage in tiny(student_steps=4).stages] == ["teacher"]
    assert sum(stage.share for stage in tiny(student_steps=4).stages) == 1.0


def test_student_starts_as_a_copy_of_its_teacher_and_leaves_it_alone() -> None:
    model = tiny()
    train_steps(model, "teacher", 3)
    teacher = weights_of(model.denoisers[0])
    assert not torch.equal(weights_of(model.denoisers[1]), teacher)
    model.begin_stage("distil_2", [])
    assert torch.equal(weights_of(model.denoisers[1]), teacher)
    train_steps(model, "distil_2", 3)
    student = weights_of(model.denoisers[1])
    assert not torch.equal(student, teacher)
    assert torch.equal(weights_of(model.denoisers[0]), teacher)
    model.begin_stage("distil_1", [])
    assert torch.equal(weights_of(model.denoisers[2]), student)


def test_students_loss_is_zero_where_one_step_already_does_what_two_do() -> None:
    model = tiny().eval()

    class Same(nn.Module):
        """Its x_hat is the same at every level, so that one step goes where two go."""

        def forward(self, z: Tensor, level: Tensor) -> Tensor:
            alpha, sigma = alpha_sigma(level)
            return (alpha * z - 0.5) / sigma

    model.stage = "distil_2"
    model.denoisers[0] = model.denoisers[1] = Same()
    assert model.loss(batch_of(waves(4)))["loss"] < 1e-9
    model.denoisers[0] = Gaussian(0.7)
    assert model.loss(batch_of(waves(4)))["loss"] > 0.01


@pytest.mark.parametrize("start_noise", [(0.5,), (0.3, 0.8)])
def test_students_target_is_where_two_steps_of_a_linear_gaussian_teacher_lead(
    start_noise: tuple[float, ...],
) -> None:
    """The only student without a loss is one whose single step goes exactly there, in closed form."""
    model = tiny(teacher_steps=8, start_noise=start_noise).eval()
    model.stage = "distil_4"
    teacher = Gaussian(0.7)

    class Student(nn.Module):
        def forward(self, z: Tensor, level: Tensor) -> Tensor:
            grid = model.start_levels[:, None] * torch.arange(5) / 4  # (starts, 5)
            gap = (level[:, None, None] - grid).abs()  # (B, starts, 5)
            flat = gap.flatten(1).argmin(dim=1)
            assert gap.flatten(1).amin(dim=1).max() < 1e-6  # no level off the grid is asked for
            view, i = flat // 5, flat % 5
            step = model.start_levels[view] / 4
            middle, end = level - step / 2, model.start_levels[view] * (i - 1) / 4
            half_way = ddim_step(z, teacher.gain(level) * z, level, middle)
            arrived = ddim_step(half_way, teacher.gain(middle) * half_way, middle, end)
            alpha, sigma = alpha_sigma(level)
            alpha_end, sigma_end = alpha_sigma(end)
            ratio = sigma_end / sigma
            wanted = (arrived - ratio * z) / (alpha_end - ratio * alpha)
            return (alpha * z - wanted) / sigma

    model.denoisers[0], model.denoisers[1] = teacher, Student()
    assert model.loss(batch_of(waves(4)))["loss"] < 1e-7
    model.denoisers[1] = teacher  # one step of the teacher goes elsewhere
    terms = model.loss(batch_of(waves(4)))
    assert terms["loss"] > 1e-4
    model.max_loss_weight = 1.0  # else noise that is small next to the signal counts for more
    flat = model.loss(batch_of(waves(4)))
    torch.testing.assert_close(flat["loss"], flat["distil"])
    assert terms["loss"] > 1.2 * terms["distil"]


def test_teachers_loss_weighs_the_error_of_the_clean_window() -> None:
    model = tiny(train_noise=0.9, max_loss_weight=5.0).eval()
    model.denoisers[0] = Gaussian(0.7)
    noisy = model._made_noisy(waves(4))
    level = level_of(0.9) * noisy.height
    z = add_noise(noisy.x, noisy.noise, level)
    error = (Gaussian(0.7).gain(level) * z - noisy.x).square()
    alpha, sigma = alpha_sigma(level)
    weight = (alpha / sigma).square().clamp(min=1.0, max=5.0)
    terms = model.loss(batch_of(noisy.x[:: len(model.noise)]))
    torch.testing.assert_close(terms["rec"], error.mean(), rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(terms["loss"], (weight * error).mean(), rtol=1e-3, atol=1e-6)


def test_a_student_learns_the_steps_of_its_teacher() -> None:
    model = tiny(start_noise=(0.6,), teacher_steps=2)
    train_steps(model, "teacher", 40)
    torch.manual_seed(1)
    x = waves(8)

    def gap() -> float:
        model.use(weights="teacher", steps=2)
        wanted = model.eval().deviations(x)
        model.use(steps=1)
        return float((model.deviations(x) - wanted).detach().square().mean())

    model.begin_stage("distil_1", [])
    before = gap()  # the teacher's weights in one step
    train_steps(model, "distil_1", 40)
    assert gap() < 0.5 * before


def test_every_round_and_the_undistilled_teacher_can_score() -> None:
    model = tiny()
    for stage in model.stages:
        train_steps(model, stage.name, 3)
    x = waves(2)
    model.eval()
    newest = model.deviations(x)
    found = {}
    for steps in (4, 2, 1):
        model.use(steps=steps)
        found[steps] = model.deviations(x)
        model.use(steps=steps, weights="teacher")
        assert torch.equal(model.deviations(x), found[steps]) == (steps == 4)
    assert torch.equal(found[1], newest)
    model.use(weights="teacher")
    assert torch.equal(model.deviations(x), found[4])
    model.use(weights="teacher", steps=16)
    assert model.deviations(x).isfinite().all()


def test_repo_scheme_starts_students_afresh_at_half_the_level() -> None:
    model = tiny(distill="repo")
    train_steps(model, "teacher", 3)
    fresh = weights_of(model.denoisers[1])
    model.begin_stage("distil_2", [])
    assert torch.equal(weights_of(model.denoisers[1]), fresh)
    network, walk = model._sampler()
    assert network is model.denoisers[1]
    assert walk == [0.5, 0.25, 0.0]  # of the starting level, where the teacher's is [1, .75, .5, .25, 0]
    losses = train_steps(model, "distil_2", 40)
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])


def test_repo_loss_is_nine_parts_noise_and_one_part_teacher() -> None:
    model = tiny(distill="repo").eval()
    model.stage = "distil_2"
    student, teacher = model.denoisers[1], model.denoisers[0]
    x = waves(4)
    terms = model.loss(batch_of(x))
    noisy = model._made_noisy(x)
    level = model.train_level * noisy.height
    z = add_noise(noisy.x, noisy.noise, level)
    found = predict_noise(student, z, level)
    own = (found - noisy.noise).square().mean()
    told = (found - predict_noise(teacher, z, 2 * level)).square().mean()  # of a level that z has not
    torch.testing.assert_close(terms["distil"], told)
    torch.testing.assert_close(terms["loss"], 0.9 * own + 0.1 * told)


def test_running_mean_scores_and_teaches() -> None:
    model = tiny(ema=0.9)
    train_steps(model, "teacher", 5)
    mean, last = weights_of(model.averages[0]), weights_of(model.denoisers[0])
    assert not torch.equal(mean, last)
    model.begin_stage("distil_2", [])
    assert torch.equal(weights_of(model.denoisers[1]), mean)
    assert torch.equal(weights_of(model.averages[1]), mean)
    model.use(weights="teacher")
    assert model._sampler()[0] is model.averages[0]
    trained = {id(p) for stage in model.stages for p in model.trainable(stage.name)}
    assert not trained & {id(p) for p in model.averages.parameters()}


def test_running_mean_moves_by_the_decay() -> None:
    model = tiny(ema=0.75).train()
    model.begin_stage("teacher", [])
    start = weights_of(model.denoisers[0])
    with torch.no_grad():
        for parameter in model.denoisers[0].parameters():
            parameter += 1.0
    model.loss(batch_of(waves(2)))
    torch.testing.assert_close(weights_of(model.averages[0]), start + 0.25)


# --- training and scoring -----------------------------------------------------------------------------------


def test_reconstruction_of_a_linear_gaussian_denoiser_has_a_closed_form() -> None:
    model = tiny(start_noise=(0.5,)).eval()
    model.denoisers[0] = Gaussian(0.7)
    x = waves(3)
    factor = torch.ones(1)
    levels = torch.arange(4, -1, -1) / 4 * (1 / 3)  # sigma = sin(pi / 6) = .5 at the start
    for level, to in pairwise(levels):
        factor = factor * ddim_step(
            torch.ones(1, 1, 1), Gaussian(0.7).gain(level[None]), level[None], to[None]
        )
    alpha = math.sqrt(0.75)  # the noise cancels in pairs, because all is linear
    torch.testing.assert_close(model.deviations(x), x * (1 - factor * alpha), atol=1e-5, rtol=1e-4)


def test_little_noise_gives_every_window_back() -> None:
    x = waves(2)
    x[0, 20, 1] += 5.0
    small = tiny(start_noise=(1e-4,)).eval().deviations(x).abs().max()
    assert small < 1e-3 < tiny(start_noise=(0.9,)).eval().deviations(x).abs().max()


def test_score_is_repeatable_and_leaves_the_global_generator_alone() -> None:
    model, x = tiny().eval(), waves(2)
    before = torch.get_rng_state()
    first = model.deviations(x)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(5)
    assert torch.equal(model.deviations(x), first)
    assert not torch.equal(tiny(noise_seed=1).eval().deviations(x), first)


@pytest.mark.parametrize("stage", ["teacher", "distil_2"])
@pytest.mark.parametrize("distill", ["salimans_ho", "repo"])
def test_validation_loss_is_deterministic_and_does_not_depend_on_the_batch(stage: str, distill: str) -> None:
    model = tiny(distill=distill).eval()
    model.begin_stage(stage, [])
    x = waves(6)
    first = model.loss(batch_of(x))["loss"]
    assert torch.equal(model.loss(batch_of(x))["loss"], first)
    parts = [model.loss(batch_of(part))["loss"] for part in x.split(2)]
    torch.testing.assert_close(torch.stack(parts).mean(), first)
    model.train()
    assert model.loss(batch_of(x))["loss"] != model.loss(batch_of(x))["loss"]


def test_every_step_of_the_student_is_trained_and_no_level_outside_the_grid() -> None:
    model = tiny(teacher_steps=8, start_noise=(0.3, 0.6)).train()
    model.begin_stage("distil_4", [])
    asked: list[Tensor] = []
    model.denoisers[1].register_forward_pre_hook(lambda _, inputs: asked.append(inputs[1]))
    for _ in range(8):
        model.loss(batch_of(waves(16)))
    assert model.start_levels.tolist() == pytest.approx([level_of(0.3), level_of(0.6)])
    expected = (model.start_levels[:, None] * torch.tensor([0.25, 0.5, 0.75, 1.0])).flatten().sort().values
    torch.testing.assert_close(torch.cat(asked).unique(), expected)


def test_each_starting_level_is_a_view_of_every_channel() -> None:
    x = waves(2)
    views = tiny(start_noise=(0.2, 0.6), train_noise=0.8).eval().deviations(x)
    assert views.shape == (2, 40, 6)
    for view, sigma in zip(views.chunk(2, dim=2), (0.2, 0.6), strict=True):
        torch.testing.assert_close(view, tiny(start_noise=(sigma,), train_noise=0.8).eval().deviations(x))


def test_learns_and_ranks_a_planted_anomaly_first() -> None:
    model = tiny(start_noise=(0.6,))
    losses = train_steps(model, "teacher", 80)
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])
    for stage in ("distil_2", "distil_1"):
        train_steps(model, stage, 10)
    torch.manual_seed(1)
    x = waves(8)
    x[3, 21:24, 1] += 3.0
    scores = model.eval().channel_scores(x)
    window, step, channel = torch.unravel_index(scores.argmax(), scores.shape)
    assert (window, channel) == (3, 1)
    assert 20 <= step <= 24


def test_instance_norm_forgives_the_level_and_the_scale_of_a_window() -> None:
    model, x = tiny(instance_norm=True).eval(), waves(2)
    torch.testing.assert_close(
        model.deviations(10.0 * x + 5.0), 10.0 * model.deviations(x), rtol=1e-2, atol=1e-2
    )
    assert not torch.allclose(tiny().eval().deviations(x + 5.0), tiny().eval().deviations(x), atol=1e-2)


@pytest.mark.parametrize("stage", ["teacher", "distil_1"])
def test_reduced_precision_keeps_the_loss_in_float32(stage: str) -> None:
    model = tiny().train()
    model.begin_stage(stage, [])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model.loss(batch_of(waves(4)))["loss"]
        scores = model.eval().deviations(waves(4))
    loss.backward()
    assert loss.dtype == scores.dtype == torch.float32
    assert torch.isfinite(loss)
    assert scores.isfinite().all()


def test_weights_load_into_a_fresh_object_with_every_round() -> None:
    model = tiny(ema=0.9)
    for stage in model.stages:
        train_steps(model, stage.name, 2)
    torch.manual_seed(9)
    fresh = ProDiffAD(window=40, n_channels=3, ema=0.9, **TINY)
    fresh.load_state_dict(model.state_dict())
    fresh.stage = "distil_1"
    x = waves(2)
    assert torch.equal(model.eval().deviations(x), fresh.eval().deviations(x))
    for each in (model, fresh):
        each.use(steps=2)
    assert torch.equal(model.deviations(x), fresh.deviations(x))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"distill": "yes"}, "distill='yes' is not one of 'salimans_ho', 'repo'"),
        ({"weights": "best"}, "weights='best' is not one of 'student', 'teacher'"),
        ({"teacher_steps": 6}, "teacher_steps=6 is not student_steps=1 times a power of two"),
        ({"student_steps": 0}, "student_steps=0 is not at least 1"),
        ({"student_steps": 8}, "teacher_steps=4 is not student_steps=8 times"),
        ({"start_noise": (0.5, 1.0)}, r"start_noise=1.0 is not between 0 and 1"),
        ({"train_noise": 0.1}, r"train_noise=0.1 is not between the largest start_noise=0.35 and 1"),
        ({"start_noise": ()}, r"len\(start_noise\)=0 is not at least 1"),
        ({"steps": 3}, "steps=3 is not one that was distilled: 4, 2, 1; weights='teacher' takes any"),
        ({"steps": 0, "weights": "teacher"}, "steps=0 is not at least 1"),
        ({"draws": 0}, "draws=0 is not at least 1"),
        ({"max_loss_weight": 0.5}, r"max_loss_weight=0.5 is not at least 1"),
        ({"ema": 1.0}, r"ema=1.0 is not at least 0 and below 1"),
        ({"teacher_share": 1.0}, r"teacher_share=1.0 is not between 0 and 1"),
        ({"dim": 12}, "dim=12 is not a positive multiple of 8"),
        ({"dim_mults": ()}, r"len\(dim_mults\)=0 is not at least 1"),
        ({"dim_mults": (1, 0)}, r"min\(dim_mults\)=0 is not at least 1"),
        ({"n_heads": 0}, "n_heads=0 is not at least 1"),
        ({"head_dim": 0}, "head_dim=0 is not at least 1"),
    ],
)
def test_error_says_what_is_possible(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**changes)
