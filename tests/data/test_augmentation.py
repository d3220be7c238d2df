"""Augmentation: the same for the same draw, within range, and never silently at another depth or size."""

import ast
import os
from pathlib import Path

import albumentations as A
import cv2
import numpy as np
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from tocsin.config import conf_dir
from tocsin.data import augmentation
from tocsin.data.augmentation import Augmentation
from tocsin.errors import ConfigError, DataError

PRESETS = sorted(path.stem for path in (conf_dir() / "augment").glob("*.yaml"))


def preset(name: str) -> list[object]:
    node = OmegaConf.load(conf_dir() / "augment" / f"{name}.yaml")
    return list(instantiate(node, _convert_="all")["augment"])


def image(channels: int = 1, dtype: type = np.uint8, size: tuple[int, int] = (40, 56)) -> np.ndarray:
    """(C, H, W) smooth texture over the whole range."""
    noise = cv2.GaussianBlur(np.random.default_rng(0).random((*size, channels)), (0, 0), 2).reshape(
        *size, channels
    )
    unit = (noise - noise.min()) / np.ptp(noise)
    full = {np.uint8: 255, np.uint16: 65535}.get(dtype, 1)
    return np.ascontiguousarray((unit * full).astype(dtype).transpose(2, 0, 1))


def test_presets() -> None:
    assert PRESETS == ["light", "manufacturing", "none"]
    assert preset("none") == []


@pytest.mark.parametrize("name", ["light", "manufacturing"])
@pytest.mark.parametrize("channels", [1, 3])
def test_draw_decides_what_happens(name: str, channels: int) -> None:
    one, same = (Augmentation(preset(name), seed=1) for _ in range(2))
    other = Augmentation(preset(name), seed=2)
    pixels = image(channels)
    views = [one(pixels, draw) for draw in range(12)]
    backwards = [same(pixels, draw) for draw in reversed(range(12))][::-1]
    assert all((a == b).all() for a, b in zip(views, backwards, strict=True))
    assert all(view.shape == pixels.shape and view.dtype == np.uint8 for view in views)
    assert len({view.tobytes() for view in views}) >= 7
    assert any((view != other(pixels, draw)).any() for draw, view in enumerate(views))


def test_transforms_do_not_share_their_coin() -> None:
    """With one seed for each of them, both flips would always happen together."""
    changes = Augmentation([A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5)], seed=0)
    pixels = image()
    flips = {
        "none": pixels,
        "left-right": pixels[:, :, ::-1],
        "up-down": pixels[:, ::-1],
        "both": pixels[:, ::-1, ::-1],
    }
    views = [changes(pixels, draw) for draw in range(200)]
    counts = {name: sum((view == flipped).all() for view in views) for name, flipped in flips.items()}
    assert sum(counts.values()) == 200
    assert min(counts.values()) > 25


def test_strengths_are_sane() -> None:
    """Most of an image stays what it was: a small defect must outlive most of its views."""
    changes = Augmentation(preset("manufacturing"), seed=0)
    pixels = image(size=(224, 224))
    views = np.stack([changes(pixels, draw) for draw in range(60)]).astype(float)
    assert ((views == 0).mean(axis=(1, 2, 3)) < 0.15).all()  # dropped out, or dark
    turned = (pixels, pixels[:, :, ::-1], pixels[:, ::-1], pixels[:, ::-1, ::-1])
    alike = [max(np.corrcoef(view.ravel(), flip.ravel())[0, 1] for flip in turned) for view in views]
    assert np.median(alike) > 0.5
    assert min(np.abs(view - pixels).max() for view in views[:5]) > 0


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
@pytest.mark.parametrize("name", ["light", "none"])
def test_deep_images_keep_their_depth(dtype: type, name: str) -> None:
    changes = Augmentation(preset(name), seed=0)
    pixels = image(dtype=dtype)
    changes.check(pixels)
    views = [changes(pixels, draw) for draw in range(8)]
    if name == "none":
        assert all((view == pixels).all() and view.dtype == dtype for view in views)
    else:
        assert all(view.dtype == np.float32 and 0 <= view.min() <= view.max() <= 1 for view in views)
        assert all(len(np.unique(view)) > 1000 for view in views)


def test_transform_of_8_bits_is_refused_for_deeper_images() -> None:
    changes = Augmentation(preset("manufacturing"), seed=0)
    changes.check(image())
    for dtype in (np.uint16, np.float32):
        with pytest.raises(
            ConfigError, match=rf"CLAHE works on 8 bits alone.* {dtype.__name__}; take augment=light"
        ):
            changes.check(image(dtype=dtype))


def test_floats_beyond_the_range_are_refused() -> None:
    with pytest.raises(DataError, match="values from 0 to 3, but augmentation needs floats between 0 and 1"):
        Augmentation(preset("light"), seed=0)(3 * image(dtype=np.float32), 0)


def test_transform_that_changes_the_size_is_refused() -> None:
    changes = Augmentation([A.OneOf([A.HorizontalFlip(), A.CenterCrop(20, 20)])], seed=0)
    with pytest.raises(ConfigError, match=r"CenterCrop makes \(20, 20, 1\) of \(40, 56, 1\)"):
        changes.check(image())


def test_what_is_no_transform_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"data\.augment\[1\]=light is no transform.*augment=none, light or manu"
    ):
        Augmentation([A.HorizontalFlip(), "light"], seed=0)


@pytest.mark.filterwarnings("ignore:Argument")
def test_old_argument_names_are_refused() -> None:
    with pytest.raises(ConfigError, match="'var_limit' are not valid for transform GaussNoise"):
        Augmentation([A.GaussNoise(var_limit=3)], seed=0)


def test_library_is_imported_late_and_asks_no_network() -> None:
    """It takes seconds, and looks for newer versions of itself where it may."""
    tree = ast.parse(Path(augmentation.__file__).read_text())
    at_once = [ast.unparse(node) for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    inside = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Import)]
    assert not any("albumentations" in line for line in at_once)
    assert any("albumentations" in line for line in inside)
    assert os.environ["NO_ALBUMENTATIONS_UPDATE"] == "1"
