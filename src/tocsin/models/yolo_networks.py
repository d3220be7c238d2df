"""Networks of ultralytics 8.x for detection: from a file, from the hub, or by description with random weights."""

import logging
import shutil
import tempfile
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from torch import nn

from tocsin.errors import ConfigError
from tocsin.models.attack_packages import require_ultralytics

log = logging.getLogger(__name__)

_GIVE = "give the path of a .pt file of ultralytics, a name of its hub such as yolov8n.pt, or standin"


def yolo_network(source: str | dict[str, Any], *, cache_dir: str | Path | None = None) -> nn.Module:
    """A `DetectionModel` of ultralytics as it was trained: float32, on the CPU.

    Args:
        source: A .pt file; a name of the hub (`yolov8n.pt`); or a description (`yolov8n.yaml`, a path, or what such a
            file holds) for random weights.
        cache_dir: Where weights of the hub are kept; None keeps them nowhere.

    Raises:
        ConfigError: ultralytics is not installed, there is no such file or name, it holds no detector, or the hub
            cannot be reached.
    """
    require_ultralytics()
    if isinstance(source, dict) or source.endswith((".yaml", ".yml")):
        return _with_arguments(_described(source))
    if "://" in source:
        raise ConfigError(f"victim {source} is an address; download the file, and give its path")
    path = Path(source).expanduser()
    network = _read(path) if path.is_file() else _from_hub(path, cache_dir)
    return _with_arguments(network)


def _described(source: str | dict[str, Any]) -> nn.Module:
    from ultralytics.nn.tasks import DetectionModel

    try:
        network: nn.Module = DetectionModel(source, ch=3, verbose=False)  # type: ignore[no-untyped-call]
    except FileNotFoundError as error:
        raise ConfigError(f"victim {source}: ultralytics has no such description; {_GIVE}") from error
    return network


def _read(path: Path) -> nn.Module:
    from ultralytics.nn.modules import Detect
    from ultralytics.nn.tasks import DetectionModel, load_checkpoint

    try:
        network: Any = load_checkpoint(str(path.resolve()))[0]  # type: ignore[no-untyped-call]
    # What ultralytics and torch raise for files that are damaged, of other programs, or hold code.
    except (
        TypeError,
        RuntimeError,
        ValueError,
        LookupError,
        AttributeError,
        EOFError,
        UnpicklingError,
    ) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f"victim {path} holds no weights of ultralytics: {reason}; {_GIVE}") from error
    head: Any = network.model[-1] if isinstance(network, DetectionModel) else None  # type: ignore[index]
    if not isinstance(head, Detect) or getattr(network, "task", "detect") != "detect":
        raise ConfigError(f"victim {path} holds a {type(network).__name__}, which detects no boxes; {_GIVE}")
    detector: nn.Module = network
    return detector


def _from_hub(path: Path, cache_dir: str | Path | None) -> nn.Module:
    from ultralytics.utils.downloads import GITHUB_ASSETS_NAMES, attempt_download_asset

    name = path.name if path.suffix else f"{path.name}.pt"
    if path.name != str(path) or name not in GITHUB_ASSETS_NAMES:
        raise ConfigError(f"victim {path}: there is no such file, and the hub has no such name; {_GIVE}")
    kept = Path(cache_dir).expanduser() / name if cache_dir is not None else None
    if kept is not None and kept.is_file():
        return _read(kept)
    with tempfile.TemporaryDirectory(dir=_made(kept)) as folder:
        fetched = Path(folder) / name
        log.info("fetching %s of ultralytics", name)
        try:
            attempt_download_asset(str(fetched))
        except (OSError, RuntimeError) as error:  # no network; a file that ends too soon
            raise ConfigError(
                f"victim {name} cannot be fetched without a network; download it elsewhere and give its path "
                f"(model.victims=/path/to/{name}), or use model.victims=standin"
            ) from error
        if kept is not None:
            shutil.move(fetched, kept)  # in one folder: complete or not there
        return _read(kept or fetched)


def _made(kept: Path | None) -> Path | None:
    """The folder of a file, made where it was missing."""
    if kept is None:
        return None
    kept.parent.mkdir(parents=True, exist_ok=True)
    return kept.parent


def _with_arguments(network: nn.Module) -> nn.Module:
    """Give a network the weights of the terms of its loss, which ultralytics looks up in `args`."""
    from ultralytics.cfg import get_cfg

    network.args = get_cfg()  # type: ignore[assignment]
    return network.float()
