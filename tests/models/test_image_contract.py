"""What every detector for images promises, for every option in conf/model.

Networks of full size are slow here: a test file says under SMALL_OPTIONS which overrides make its option small.
"""

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
from tocsin.batch import ImageBatch
from tocsin.config import conf_dir, locate
from tocsin.models.base import FitOnceDetector, ImageDetector
from tocsin.pipeline import build_detector

HEIGHT, WIDTH = 64, 96
STEPS = 150  # of training
PLACE = (2, slice(20, 36), slice(50, 70))  # image, rows and columns of the planted anomaly

OPTIONS = [path.stem for path in sorted((conf_dir() / "model").glob("*.yaml"))]
IMAGES = [
    name
    for name in OPTIONS
    if locate(OmegaConf.load(conf_dir() / "model" / f"{name}.yaml")._target_).kind == "image"  # type: ignore[attr-defined]
]


def said_by_test_files(name: str) -> dict[str, Any]:
    """A table that the test files beside this one share in."""
    table: dict[str, Any] = {}
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
                table |= ast.literal_eval(node.value)
    return table


COUNTS = said_by_test_files("PARAMETERS")
OVERRIDES = said_by_test_files("SMALL_OPTIONS")


@functools.cache
def config_of(name: str, *overrides: str) -> DictConfig:
    cli.register()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("train", overrides=[f"model={name}", *overrides])


def made(name: str, seed: int = 0) -> ImageDetector:
    torch.manual_seed(seed)
    cfg = config_of(name, *OVERRIDES.get(name, []))
    detector = build_detector(cfg.model, {"height": HEIGHT, "width": WIDTH})
    assert isinstance(detector, ImageDetector)
    return detector


def stripes(batch: int, seed: int) -> Tensor:
    """(B, 3, H, W) slanted stripes, the same in each image but for noise."""
    generator = torch.Generator().manual_seed(seed)
    row, column = torch.arange(HEIGHT)[:, None], torch.arange(WIDTH)[None, :]
    clean = 0.5 + 0.25 * torch.sin(0.5 * row + 0.25 * column)
    tint = torch.tensor([1.0, 0.9, 0.8]).reshape(3, 1, 1)
    noise = 0.03 * torch.randn(batch, 3, HEIGHT, WIDTH, generator=generator)
    return (clean * tint + noise).clamp(0, 1)


def batch_of(images: Tensor, label: Tensor | None = None) -> ImageBatch:
    return ImageBatch(images, torch.arange(len(images)), label)


def planted() -> Tensor:
    images = stripes(4, seed=1_000)
    image, rows, columns = PLACE
    images[image, :, rows, columns] = images[image, :, rows, columns].flip(0, 2) * 0.3
    return images


@functools.cache
def training_batches() -> list[ImageBatch]:
    return [
        ImageBatch(stripes(4, seed), torch.arange(4) + 4 * seed, torch.zeros(4, dtype=torch.bool))
        for seed in range(STEPS)
    ]


def begin(detector: ImageDetector) -> list[torch.nn.Parameter]:
    """What the task does before the first step; returns what is optimised."""
    detector.prepare(training_batches()[:8])
    detector.requires_grad_(False)
    for parameter in detector.trainable("train"):
        parameter.requires_grad_(True)
    detector.train()
    return [parameter for parameter in detector.parameters() if parameter.requires_grad]


def learn(detector: ImageDetector) -> ImageDetector:
    optimised = begin(detector)
    if isinstance(detector, FitOnceDetector):
        for batch in training_batches()[:8]:
            detector.collect(batch)
        detector.finish()
    else:
        optimizer = torch.optim.Adam(optimised, lr=2e-3)
        for batch in training_batches():
            optimizer.zero_grad()
            detector.loss(batch)["loss"].backward()
            optimizer.step()
    detector.eval()
    with torch.inference_mode():
        detector.finalize(training_batches()[:4])
    return detector


@pytest.fixture(scope="module", params=IMAGES)
def trained(request: pytest.FixtureRequest) -> tuple[str, ImageDetector]:
    """Each detector after a short training; tests must leave it as it is."""
    return request.param, learn(made(request.param))


# --- tables -------------------------------------------------------------------------------------------------


def test_no_option_is_left_out() -> None:
    assert {"draem", "draem_sevnet", "patchcore", "dinomaly"} <= set(IMAGES)
    assert set(IMAGES) <= set(COUNTS)


@pytest.mark.parametrize("name", IMAGES)
def test_number_of_parameters_as_configured(name: str) -> None:
    cfg = config_of(name, *(["model.weights=random"] if "weights" in config_of(name).model else []))
    with torch.device("meta"):  # without the time and memory of drawing their values
        detector = build_detector(cfg.model, {"height": HEIGHT, "width": WIDTH})
    assert sum(parameter.numel() for parameter in detector.parameters()) == COUNTS[name]


# --- scores -------------------------------------------------------------------------------------------------


@torch.inference_mode()
def test_shapes_and_types(trained: tuple[str, ImageDetector]) -> None:
    maps, scores = trained[1].score(stripes(3, seed=7))
    assert maps.shape == (3, HEIGHT, WIDTH)
    assert scores.shape == (3,)
    for values in (maps, scores):
        assert values.dtype == torch.float32
        assert torch.isfinite(values).all()
    assert maps.std() > 0


@torch.inference_mode()
def test_planted_anomaly_is_found_and_its_place_too(trained: tuple[str, ImageDetector]) -> None:
    maps, scores = trained[1].score(planted())
    image, rows, columns = PLACE
    assert int(scores.argmax()) == image
    inside = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    inside[rows, columns] = True
    assert maps[image][inside].mean() > 1.2 * maps[image][~inside].mean()


@torch.inference_mode()
def test_scores_are_repeatable_and_do_not_depend_on_the_batch(trained: tuple[str, ImageDetector]) -> None:
    _, detector = trained
    images = planted()
    first = detector.score(images)
    assert torch.equal(images, planted())
    assert torch.equal(detector.score(images).map, first.map)
    alone = [detector.score(image) for image in images.split(1)]
    torch.testing.assert_close(torch.cat([one.map for one in alone]), first.map, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(torch.cat([one.image for one in alone]), first.image, rtol=1e-3, atol=1e-4)


@torch.inference_mode()
def test_a_fresh_detector_with_its_weights_scores_alike(trained: tuple[str, ImageDetector]) -> None:
    name, detector = trained
    fresh = made(name, seed=1)
    fresh.load_state_dict(detector.state_dict())
    assert torch.equal(fresh.eval().score(planted()).image, detector.score(planted()).image)


# --- training -----------------------------------------------------------------------------------------------


@torch.inference_mode()
def test_validation_loss_is_a_number_and_repeatable(trained: tuple[str, ImageDetector]) -> None:
    _, detector = trained
    batch = batch_of(stripes(4, seed=2_000))
    torch.manual_seed(0)
    first = detector.loss(batch)["loss"]
    torch.manual_seed(1)
    assert torch.isfinite(first)
    assert torch.equal(detector.loss(batch)["loss"], first)


@torch.inference_mode()
def test_labels_move_no_loss(trained: tuple[str, ImageDetector]) -> None:
    _, detector = trained
    images = stripes(4, seed=2_000)
    with_labels = detector.loss(batch_of(images, torch.ones(4, dtype=torch.bool)))["loss"]
    assert torch.equal(detector.loss(batch_of(images))["loss"], with_labels)


@pytest.mark.parametrize("name", IMAGES)
def test_gradient_reaches_every_trained_parameter_and_no_other(name: str) -> None:
    detector = made(name)
    optimised = begin(detector)
    if isinstance(detector, FitOnceDetector):
        assert optimised == []
        return
    optimizer = torch.optim.SGD(optimised, lr=1e-2)
    reached: set[str] = set()
    for batch in training_batches()[:6]:
        detector.zero_grad()
        detector.loss(batch)["loss"].backward()
        optimizer.step()
        for key, parameter in detector.named_parameters():
            assert parameter.requires_grad or parameter.grad is None, key
            if parameter.grad is not None and parameter.grad.abs().sum() > 0:
                assert torch.isfinite(parameter.grad).all()
                reached.add(key)
    assert reached == {key for key, parameter in detector.named_parameters() if parameter.requires_grad}
