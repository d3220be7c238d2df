"""Writes a trained detector as an ONNX graph, and checks that the graph computes the same.

What is done to the data before the network is part of the graph: it takes windows in the units of the file, or the
pixels of an image. What is decided after it is not: thresholds come along as metadata.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from torch import Tensor, nn

from tocsin.checkpoints import read_checkpoint
from tocsin.config import check
from tocsin.data.cleaning import Scaler
from tocsin.errors import ConfigError, TocsinError
from tocsin.models.base import Detector, ImageDetector, SeriesDetector
from tocsin.pipeline import build_task
from tocsin.tasks.base import Task
from tocsin.tasks.image_anomaly import ImageAnomaly

log = logging.getLogger(__name__)

TOLERANCE = 1e-4  # of the difference between torch and the graph
ADVICE = "pip install 'tocsin[export]'"


class Standardise(nn.Module):
    """A scaler as a layer: raw values (B, T, C) to standardised ones, float32 both.

    Args:
        scaler: Fitted on train; None: values are standardised already.
    """

    center: Tensor | None
    scale: Tensor
    unit: Tensor

    def __init__(self, scaler: Scaler | None) -> None:
        super().__init__()
        self.clip = None if scaler is None or scaler.method == "none" else scaler.clip
        self.log = scaler is not None and scaler.unit is not None
        for name in ("center", "scale", "unit"):  # in float64, as the scaler computes
            values = None if scaler is None else getattr(scaler, name)
            self.register_buffer(name, None if values is None else torch.from_numpy(values.copy()))

    def forward(self, x: Tensor) -> Tensor:
        if self.center is None:
            return x
        values = x.double()
        if self.log:
            logs = values.sign() * torch.log1p(values.abs() / self.unit)
            values = torch.where(torch.isnan(self.unit), values, logs)
        values = (values - self.center) / self.scale
        if self.clip is not None:
            values = values.clamp(-self.clip, self.clip)
        return values.float()


class SeriesGraph(nn.Module):
    """Windows (B, T, C) to deviations (B, T, K)."""

    inputs, outputs = ("windows",), ("deviations",)

    def __init__(self, detector: SeriesDetector, scaler: Scaler | None) -> None:
        super().__init__()
        self.standardise = Standardise(scaler)
        self.detector = detector

    def forward(self, windows: Tensor) -> Tensor:
        return self.detector.deviations(self.standardise(windows))


class ImageGraph(nn.Module):
    """Images (B, 3, H, W) to the map (B, H, W) and the score (B,)."""

    inputs, outputs = ("images",), ("map", "score")

    def __init__(self, detector: ImageDetector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        found = self.detector.score(images)
        return found.map, found.image


def to_onnx(
    detector: Detector,
    example: Tensor,
    path: Path,
    *,
    scaler: Scaler | None = None,
    metadata: Mapping[str, str] | None = None,
) -> float:
    """Write a detector as an ONNX graph, whole or not at all.

    Args:
        detector: For series or images, trained.
        example: (B, T, C) or (B, 3, H, W) float32, B at least 2, of typical values. The graph takes any number of
            windows or images, of this size.
        path: File to write.
        scaler: Of the series; None: the graph takes standardised windows.
        metadata: Texts to keep in the file.

    Returns:
        Largest difference between torch and the graph, on inputs that were not used to make it.

    Raises:
        ConfigError: The packages that it takes are not installed.
        TocsinError: The detector does something that ONNX cannot, or the graph computes something else.
    """
    graph: SeriesGraph | ImageGraph
    if isinstance(detector, ImageDetector):
        graph = ImageGraph(detector)
    elif isinstance(detector, SeriesDetector):
        graph = SeriesGraph(detector, scaler)
    else:
        raise TocsinError(
            f"{type(detector).__name__} cannot be exported: there are graphs of detectors of anomalies in series and "
            f"images, not of {detector.kind}"
        )
    graph.eval()
    temporary = path.with_name(f".{path.name}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        _write(graph, example, temporary, metadata or {})
        difference = _difference(graph, example, temporary)
        if not difference < TOLERANCE:
            raise TocsinError(
                f"{type(detector).__name__} cannot be exported: its graph differs from torch by {difference:.2g}, "
                f"more than {TOLERANCE:g}; it draws random numbers, or what it does depends on the values"
            )
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return difference


def _write(graph: SeriesGraph | ImageGraph, example: Tensor, path: Path, metadata: Mapping[str, str]) -> None:
    name = type(graph.detector).__name__
    try:
        program = torch.onnx.export(
            graph,
            (example,),
            input_names=graph.inputs,
            output_names=graph.outputs,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            dynamo=True,
            verbose=False,
        )
    except torch.onnx.OnnxExporterError as error:
        raise TocsinError(f"{name} cannot be exported: {_reason(error)}") from error
    except ImportError as error:
        raise ConfigError(f"export needs packages that are not installed ({error}); {ADVICE}") from error
    assert program is not None
    program.model.metadata_props.update(metadata)
    program.save(str(path), external_data=False)


def _reason(error: BaseException) -> str:
    """First line of what went wrong in the first place."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


@torch.inference_mode()
def _difference(graph: SeriesGraph | ImageGraph, example: Tensor, path: Path) -> float:
    """Largest difference on random mixtures of the examples, more and fewer of them."""
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigError(f"export needs packages that are not installed ({error}); {ADVICE}") from error
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    if not isinstance(session.get_inputs()[0].shape[0], str):  # a name where any number will do
        raise TocsinError(
            f"{type(graph.detector).__name__} cannot be exported: its graph would be for {len(example)} inputs at a "
            "time, as the method leaves torch or takes their number as a constant"
        )
    generator = torch.Generator().manual_seed(0)
    largest = 0.0
    for n in (1, len(example) + 1):
        weights = torch.rand(n, len(example), generator=generator)
        weights = weights / weights.sum(dim=1, keepdim=True)
        mixed = torch.einsum("nb,b...->n...", weights, example)
        expected = graph(mixed)
        expected = expected if isinstance(expected, tuple) else (expected,)
        found = session.run(list(graph.outputs), {graph.inputs[0]: mixed.numpy()})
        for ours, array in zip(expected, found, strict=True):
            theirs = torch.from_numpy(array)
            gap = (ours.float() - theirs).abs()
            gap = torch.where(torch.isnan(ours) & torch.isnan(theirs), 0.0, gap)  # not scored by either
            largest = max(largest, float(gap.nan_to_num(nan=torch.inf).max()))
    return largest


# --- the command --------------------------------------------------------------------------------------------


def export(cfg: DictConfig) -> None:
    """Write the detector of `cfg.ckpt_path` to `cfg.output`."""
    check(cfg)
    checkpoint = read_checkpoint(cfg.ckpt_path)
    task = build_task(cfg, checkpoint["dims"], checkpoint=checkpoint).eval()
    output = Path(cfg.output) if cfg.output else Path(HydraConfig.get().runtime.output_dir) / "model.onnx"
    if output.suffix != ".onnx":
        raise ConfigError(f"output={output}: {output.suffix!r} cannot be written; give a name with .onnx")
    scaler = Scaler.from_state(checkpoint["data"]["scaler"]) if task.accepts == "series" else None
    difference = to_onnx(
        task.detector,
        typical_input(checkpoint["dims"], scaler),
        output,
        scaler=scaler,
        metadata=_metadata(task, checkpoint),
    )
    log.info("%s: the graph differs from torch by at most %.1g", output, difference)


def typical_input(dims: Mapping[str, int], scaler: Scaler | None) -> Tensor:
    """Two random windows in the units of the data, or two random images in [0, 1]."""
    generator = torch.Generator().manual_seed(0)
    if scaler is None:
        return torch.rand(2, 3, dims["height"], dims["width"], generator=generator)
    noise = torch.randn(2, dims["window"], dims["n_channels"], generator=generator)
    return torch.from_numpy(scaler.inverse(noise.numpy()))


def _metadata(task: Task, checkpoint: Mapping[str, Any]) -> dict[str, str]:
    """Names of the channels; thresholds, which those of series are not, as they are of folded, normalised scores."""
    texts = {"model": str(checkpoint["choices"].get("model"))}
    if isinstance(task, ImageAnomaly):
        texts["image_threshold"] = repr(float(task.image_threshold))
        texts["pixel_threshold"] = repr(float(task.pixel_threshold))
    elif task.accepts == "series":
        texts["channels"] = ",".join(checkpoint["data"]["channel_names"])
    return texts
