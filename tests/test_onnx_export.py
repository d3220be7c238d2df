"""Graphs compute what torch does, on inputs that did not make them; what cannot be a graph is refused in one line."""

import builtins
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from tocsin.batch import SeriesBatch
from tocsin.data.cleaning import Scaler
from tocsin.errors import ConfigError, TocsinError
from tocsin.models.base import ImageClassifier, SeriesDetector
from tocsin.models.dinomaly import Dinomaly
from tocsin.models.kmeans import WindowKMeans
from tocsin.models.patchtrad import PatchTrad
from tocsin.onnx_export import Standardise, to_onnx, typical_input

WINDOW, CHANNELS = 12, 3


class Linear(SeriesDetector):
    """Deviation from a weighted sum of the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(CHANNELS, CHANNELS)

    def deviations(self, x: Tensor) -> Tensor:
        return x - self.layer(x)


class Constant(Linear):
    """Leaves torch on the way, so that its graph is an answer and no computation."""

    def deviations(self, x: Tensor) -> Tensor:
        return torch.from_numpy(np.ones(len(x), dtype=np.float32))[:, None, None] * self.layer(x)


class Random(Linear):
    def deviations(self, x: Tensor) -> Tensor:
        return self.layer(x) + torch.rand_like(x)


def levels() -> np.ndarray:
    """(500, 3): one channel at a large level, one that grows from 0, one constant."""
    rng = np.random.default_rng(0)
    return np.stack(
        [1e4 + 0.1 * rng.standard_normal(500), rng.exponential(5.0, 500), np.full(500, 2.0)], axis=1
    ).astype(np.float32)


def run(path: Path, values: Tensor) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: values.numpy()})


# --- the scaler ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clip", [None, 2.0])
@pytest.mark.parametrize("method", ["standard", "robust", "log", "none"])
def test_layer_standardises_as_the_scaler_does(method: str, clip: float | None) -> None:
    values = levels()
    scaler = Scaler.fit(values, method=method, clip=clip)
    new = (values[:24] + np.float32([0.5, -7.0, 0.3])).reshape(2, 12, 3)
    found = Standardise(scaler)(torch.from_numpy(new))
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), scaler.transform(new), rtol=1e-6, atol=1e-6)


def test_without_a_scaler_values_pass() -> None:
    x = torch.randn(2, 5, 3)
    assert Standardise(None)(x) is x


def test_typical_input_has_the_size_and_the_units_of_the_data() -> None:
    windows = typical_input({"window": WINDOW, "n_channels": CHANNELS}, Scaler.fit(levels()))
    assert windows.shape == (2, WINDOW, CHANNELS)
    assert float(windows[..., 0].mean()) == pytest.approx(1e4, abs=1.0)
    images = typical_input({"height": 24, "width": 40}, None)
    assert images.shape == (2, 3, 24, 40)
    assert images.min() >= 0
    assert images.max() <= 1


# --- graphs -------------------------------------------------------------------------------------------------


def test_graph_of_a_series_detector_takes_raw_windows_of_any_number(tmp_path: Path) -> None:
    detector, scaler = Linear().eval(), Scaler.fit(levels(), method="log")
    path = tmp_path / "deep" / "model.onnx"
    example = typical_input({"window": WINDOW, "n_channels": CHANNELS}, scaler)
    difference = to_onnx(detector, example, path, scaler=scaler, metadata={"channels": "a,b,c"})
    assert 0 <= difference < 1e-4
    assert [file.name for file in path.parent.iterdir()] == [
        "model.onnx"
    ]  # weights inside, nothing left over
    raw = levels()[100 : 100 + 5 * WINDOW].reshape(5, WINDOW, CHANNELS)
    with torch.no_grad():
        expected = detector.deviations(torch.from_numpy(scaler.transform(raw)))
    (found,) = run(path, torch.from_numpy(raw))
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4, rtol=0)
    model = onnx.load(path)
    assert {entry.key: entry.value for entry in model.metadata_props}["channels"] == "a,b,c"
    assert [node.name for node in model.graph.output] == ["deviations"]


def test_graph_of_dinomaly_takes_pixels_of_a_size_that_is_not_square(tmp_path: Path) -> None:
    """Normalisation, resizing to the patches and the resampled positions are in the graph."""
    torch.manual_seed(0)
    options = {"embed_dim": 32, "depth": 1, "num_heads": 2, "patch_size": 8, "img_size": 32, "reg_tokens": 4}
    detector = Dinomaly(
        encoder="vit_tiny_patch16_224", weights=None, encoder_options=options, target_layers=(0,)
    ).eval()
    path = tmp_path / "model.onnx"
    assert to_onnx(detector, torch.rand(2, 3, 35, 51), path) < 1e-4
    images = torch.rand(3, 3, 35, 51) ** 2
    with torch.no_grad():
        expected = detector.score(images)
    maps, scores = run(path, images)
    assert maps.shape == (3, 35, 51)
    np.testing.assert_allclose(maps, expected.map.numpy(), atol=1e-4, rtol=0)
    np.testing.assert_allclose(scores, expected.image.numpy(), atol=1e-4, rtol=0)
    assert expected.map.std() > 1e-3  # there was something to compare


@pytest.mark.slow
def test_graph_of_a_transformer_on_series(tmp_path: Path) -> None:
    torch.manual_seed(0)
    detector = PatchTrad(window=24, n_channels=CHANNELS, d_model=16, n_heads=2, feedforward=32).eval()
    assert to_onnx(detector, torch.randn(2, 24, CHANNELS), tmp_path / "model.onnx") < 1e-4


# --- refusals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("detector", "message"),
    [
        (Constant(), "Constant cannot be exported: its graph would be for 2 inputs at a time"),
        (Random(), r"Random cannot be exported: its graph differs from torch by 0\.\d+, more than 0.0001"),
    ],
)
def test_method_that_is_no_graph_is_refused_and_leaves_nothing(
    detector: SeriesDetector, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    path.write_text("the one before")
    with pytest.raises(TocsinError, match=message) as caught:
        to_onnx(detector, torch.randn(2, WINDOW, CHANNELS), path)
    assert "\n" not in str(caught.value)
    assert [file.read_text() for file in tmp_path.iterdir()] == ["the one before"]


def test_a_classifier_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(TocsinError, match=r"ImageClassifier cannot be exported: .*not of classification$"):
        to_onnx(ImageClassifier(), torch.rand(2, 3, 8, 8), tmp_path / "model.onnx")


@pytest.mark.slow
def test_operator_that_onnx_lacks_is_named(tmp_path: Path) -> None:
    detector = WindowKMeans(window=WINDOW, n_channels=CHANNELS)
    detector.collect(SeriesBatch(torch.randn(20, WINDOW, CHANNELS), torch.arange(20)))
    detector.finish()
    with pytest.raises(TocsinError, match=r"WindowKMeans cannot be exported: .*cdist"):
        to_onnx(detector.eval(), torch.randn(2, WINDOW, CHANNELS), tmp_path / "model.onnx")


@pytest.mark.parametrize("package", ["onnxruntime", "onnxscript"])
def test_missing_package_says_what_to_install(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *args: object, **kwargs: object) -> object:
        if name.split(".")[0] == package:
            raise ModuleNotFoundError(f"No module named {package!r}")
        return real(name, *args, **kwargs)

    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(
        ConfigError, match=rf"not installed \(.*{package}.*\); pip install 'tocsin\[export\]'"
    ):
        to_onnx(Linear().eval(), torch.randn(2, WINDOW, CHANNELS), tmp_path / "model.onnx")
