"""What every detector for series promises, for every option in conf/model."""

import ast
import functools
from pathlib import Path
from typing import Any

import lightning.pytorch  # noqa: F401  # sets variables of the environment when first imported
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from tocsin import cli
from tocsin.batch import SeriesBatch
from tocsin.config import conf_dir, locate
from tocsin.models.base import FitOnceDetector, SeriesDetector
from tocsin.pipeline import build_detector, build_task

WINDOW, CHANNELS = 60, 3
STEPS = 40  # of training, in each stage
PLACE = (5, 31, 1)  # window, step and channel of the planted anomaly

# Parameters of every option as configured, with windows of 60 steps and 3 channels. That of a new option may
# stand in its own test file, as PARAMETERS = {"name": number}.
PARAMETERS = {
    "ensemble": 0,  # beside those of its members; it needs trained ones, so tests/test_members.py checks it
    "iforest": 0,
    "kmeans": 0,
    "mae": 1_048_458,
    "pca": 0,
}

OPTIONS = [path.stem for path in sorted((conf_dir() / "model").glob("*.yaml"))]
SERIES = [
    name
    for name in OPTIONS
    if name != "ensemble"
    and locate(OmegaConf.load(conf_dir() / "model" / f"{name}.yaml")._target_).kind == "series"  # type: ignore[attr-defined]
]


@functools.cache
def config_of(name: str) -> DictConfig:
    cli.register()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("train", overrides=[f"model={name}"])


def made(name: str, seed: int = 0) -> SeriesDetector:
    torch.manual_seed(seed)
    detector = build_detector(config_of(name).model, {"window": WINDOW, "n_channels": CHANNELS})
    assert isinstance(detector, SeriesDetector)
    return detector


def waves(batch: int, seed: int) -> Tensor:
    """Three channels on one phase, so that each value can be known from what is around it."""
    generator = torch.Generator().manual_seed(seed)
    phase = torch.rand(batch, 1, 1, generator=generator) * 6.283
    time = torch.arange(WINDOW)[None, :, None] * 0.4
    clean = torch.sin(time * torch.tensor([1.0, 0.5, 1.0]) + phase + torch.tensor([0.0, 0.7, 1.5]))
    return clean + 0.05 * torch.randn(batch, WINDOW, CHANNELS, generator=generator)


def batch_of(x: Tensor) -> SeriesBatch:
    return SeriesBatch(x, torch.zeros(len(x), dtype=torch.int64))


@functools.cache
def training_batches() -> list[SeriesBatch]:
    """One for each step, with windows that start one after the other, as those of a series do."""
    return [SeriesBatch(waves(16, seed), torch.arange(16) * 10 + 160 * seed) for seed in range(STEPS)]


def enter(detector: SeriesDetector, stage: str) -> list[torch.nn.Parameter]:
    """Begin a stage as the task does; returns what it optimises."""
    if stage == detector.stages[0].name:
        detector.prepare(training_batches())
    detector.stage = stage
    detector.requires_grad_(False)
    for parameter in detector.trainable(stage):
        parameter.requires_grad_(True)
    detector.begin_stage(stage, training_batches())
    detector.train()
    return [parameter for parameter in detector.parameters() if parameter.requires_grad]


def learn(detector: SeriesDetector) -> SeriesDetector:
    """All stages of a training on normal waves."""
    if isinstance(detector, FitOnceDetector):
        for seed in range(8):
            detector.collect(batch_of(waves(16, seed)))
        detector.finish()
        return detector.eval()
    for stage in detector.stages:
        optimizer = torch.optim.AdamW(enter(detector, stage.name), lr=2e-3)
        for step in range(STEPS):
            detector.epoch = step // 10
            loss = detector.loss(training_batches()[step])["loss"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return detector.eval()


@pytest.fixture(scope="module", params=SERIES)
def trained(request: pytest.FixtureRequest) -> tuple[str, SeriesDetector]:
    """Each detector after a short training; tests must leave it as it is."""
    return request.param, learn(made(request.param))


def planted() -> Tensor:
    x = waves(8, seed=1_000)
    x[PLACE] += 4.0
    return x


# --- tables -------------------------------------------------------------------------------------------------


def parameters() -> dict[str, int]:
    """The table above and those of the test files beside this one."""
    table = dict(PARAMETERS)
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PARAMETERS":
                table |= ast.literal_eval(node.value)
    return table


def test_no_option_is_left_out() -> None:
    assert sorted(parameters()) == OPTIONS
    assert set(SERIES) <= set(OPTIONS)
    assert {"mae", "pca", "kmeans", "iforest"} <= set(SERIES)


@pytest.mark.parametrize("name", SERIES)
def test_number_of_parameters(name: str) -> None:
    assert sum(parameter.numel() for parameter in made(name).parameters()) == parameters()[name]


# --- scores -------------------------------------------------------------------------------------------------


def scored_steps(deviations: Tensor) -> Tensor:
    """(T,) bool: steps that are scored. NaN says "not scored": of whole steps, the same in every window."""
    unscored = deviations.isnan().movedim(1, 0).flatten(1)  # (T, B * K)
    assert (unscored.all(dim=1) == unscored.any(dim=1)).all()
    scored = ~unscored.any(dim=1)
    assert 2 * scored.sum() >= len(scored)
    return scored


def assert_same(first: Tensor, second: Tensor) -> None:
    """Equal to the last bit; NaN equals NaN."""
    torch.testing.assert_close(first, second, rtol=0, atol=0, equal_nan=True)


def test_what_may_be_left_unscored() -> None:
    deviations = torch.zeros(2, 4, 3)
    assert scored_steps(deviations).tolist() == [True] * 4
    deviations[:, :2] = torch.nan
    assert scored_steps(deviations).tolist() == [False, False, True, True]
    for place in ((0, 3), (slice(None), 3, 1), (slice(None), 2)):  # one window, one channel, more than half
        wrong = deviations.clone()
        wrong[place] = torch.nan
        with pytest.raises(AssertionError):
            scored_steps(wrong)


@torch.inference_mode()
def test_shapes_and_signs(trained: tuple[str, SeriesDetector]) -> None:
    _, detector = trained
    x = waves(4, seed=7)
    deviations, scores, points = detector.deviations(x), detector.channel_scores(x), detector.point_scores(x)
    assert deviations.shape[:2] == (4, WINDOW)
    assert deviations.shape[2] == 1 or deviations.shape[2] % CHANNELS == 0
    assert scores.shape in ((4, WINDOW, CHANNELS), (4, WINDOW, 1))
    assert points.shape == (4, WINDOW)
    scored = scored_steps(deviations)
    for values in (deviations, scores, points):
        assert values.dtype == torch.float32
        assert torch.isfinite(values[:, scored]).all()
    assert (scores[:, scored] >= 0).all()
    assert scores[:, scored].std() > 0
    torch.testing.assert_close(points, scores.mean(dim=-1), equal_nan=True)


@torch.inference_mode()
def test_planted_anomaly_ranks_first(trained: tuple[str, SeriesDetector]) -> None:
    _, detector = trained
    points = detector.point_scores(planted()).nan_to_num(nan=-torch.inf)
    window, step = divmod(int(points.argmax()), WINDOW)
    assert window == PLACE[0]
    assert abs(step - PLACE[1]) <= 10
    scores = detector.channel_scores(planted())
    if scores.shape[2] == CHANNELS:  # and the channel to blame is named
        assert int(scores[PLACE[0], step].argmax()) == PLACE[2]


@torch.inference_mode()
def test_score_does_not_depend_on_the_batch(trained: tuple[str, SeriesDetector]) -> None:
    _, detector = trained
    x = planted()
    alone = torch.cat([detector.deviations(window) for window in x.split(1)])
    torch.testing.assert_close(detector.deviations(x), alone, rtol=1e-3, atol=1e-4, equal_nan=True)


@torch.inference_mode()
def test_scores_are_repeatable_and_leave_the_input_alone(trained: tuple[str, SeriesDetector]) -> None:
    _, detector = trained
    x = planted()
    first = detector.deviations(x)
    assert_same(detector.deviations(x), first)
    assert torch.equal(x, planted())
    loss = detector.loss(batch_of(x))["loss"]
    assert torch.equal(detector.loss(batch_of(x))["loss"], loss)


# --- training -----------------------------------------------------------------------------------------------


@torch.inference_mode()
def test_training_lowers_the_loss_and_the_loss_tells_normal_from_not(
    trained: tuple[str, SeriesDetector],
) -> None:
    name, detector = trained
    normal, odd = batch_of(waves(16, seed=2_000)), batch_of(waves(16, seed=2_000).flip(2) + 2.0)
    usual = float(detector.loss(normal)["loss"])
    assert usual == usual != float("inf")
    if isinstance(detector, FitOnceDetector):
        assert float(detector.loss(odd)["loss"]) > 1.1 * usual
        return
    before = float(made(name).eval().point_scores(normal.x).nanmean())
    assert (
        float(detector.point_scores(normal.x).nanmean()) < 0.9 * before
    )  # a slow learner has taken 40 steps only


@pytest.mark.parametrize("name", SERIES)
def test_gradient_reaches_every_parameter_of_each_stage_and_no_other(name: str) -> None:
    detector = made(name)
    if isinstance(detector, FitOnceDetector):
        assert not list(detector.parameters())
        return
    ever: set[str] = set()
    for stage in detector.stages:
        optimizer = torch.optim.SGD(enter(detector, stage.name), lr=1e-2)
        reached: set[str] = set()
        for batch in training_batches()[:24]:  # random masks, paths that start at zero: one is not enough
            detector.zero_grad()
            detector.loss(batch)["loss"].backward()
            optimizer.step()
            for key, parameter in detector.named_parameters():
                assert parameter.requires_grad or parameter.grad is None, (stage.name, key)
                if parameter.grad is not None and parameter.grad.abs().sum() > 0:
                    assert torch.isfinite(parameter.grad).all()
                    reached.add(key)
        assert reached == {key for key, parameter in detector.named_parameters() if parameter.requires_grad}
        ever |= reached
    assert ever == {key for key, _ in detector.named_parameters()}


@pytest.mark.parametrize("name", SERIES)
def test_labels_move_no_loss(name: str) -> None:
    """None of these methods may learn, stop or choose a checkpoint by what nobody knows in use."""
    detector = made(name)
    if isinstance(detector, FitOnceDetector):
        learn(detector)
    for stage in detector.stages:
        if not isinstance(detector, FitOnceDetector):
            enter(detector, stage.name)
        for mode in (True, False):
            detector.train(mode)
            found = []
            for labels in (None, torch.ones(16, WINDOW, dtype=torch.bool)):
                torch.manual_seed(3)
                batch = training_batches()[1]
                found.append(detector.loss(SeriesBatch(batch.x, batch.start, labels))["loss"])
            assert torch.equal(*found), (stage.name, mode)


@pytest.mark.parametrize("name", SERIES)
def test_shares_of_the_stages_fill_the_training(name: str) -> None:
    stages = made(name).stages
    assert sum(stage.share for stage in stages) == pytest.approx(1.0)
    assert len({stage.name for stage in stages}) == len(stages)


# --- checkpoints --------------------------------------------------------------------------------------------


@torch.inference_mode()
def test_fresh_task_with_a_checkpoint_scores_like_the_trained_one(
    trained: tuple[str, SeriesDetector], tmp_path: Path
) -> None:
    name, detector = trained
    cfg, dims = config_of(name), {"window": WINDOW, "n_channels": CHANNELS}
    task = build_task(cfg, dims)
    task.detector.load_state_dict(detector.state_dict())
    task.stage_index = len(detector.stages) - 1  # where the training has ended
    checkpoint: dict[str, Any] = {"state_dict": task.state_dict()}
    task.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, tmp_path / "a.ckpt")

    torch.manual_seed(99)
    read = torch.load(tmp_path / "a.ckpt", weights_only=True)
    fresh = build_task(cfg, dims, checkpoint=read).eval()
    x = planted()
    untrained = made(name, seed=99).eval().point_scores(x)
    assert not torch.allclose(untrained, detector.point_scores(x), equal_nan=True)
    assert_same(fresh.detector.deviations(x), detector.deviations(x))  # type: ignore[operator]
