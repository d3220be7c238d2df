"""Reading and writing checkpoints: plain data only, written whole or not at all."""

import os
import shutil
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from tocsin.errors import TocsinError

# What torch raises for damaged, foreign and hostile files.
BAD_FILE = (
    UnpicklingError,
    RuntimeError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
)
TORCH_ADVICE = (
    "Weights only load failed",
    "Check the documentation",
    "Please file an issue",
)  # lines not shown
REQUIRED = ("state_dict", "stage", "config", "choices", "dims", "data")


def read_checkpoint(path: str | Path, *, mmap: bool = False) -> dict[str, Any]:
    """Load a checkpoint of a run onto the CPU.

    Args:
        path: Of the file.
        mmap: Leave tensors on the disk until they are used: for a look at the other entries.

    Returns:
        Lightning's entries, and `stage` (the part of the training it is from), `config` (the run's
        configuration), `choices` (names of its model and data options), `dims` (arguments of the detector that
        came from the data) and `data` (what new data need to be treated alike).

    Raises:
        TocsinError: The file is missing, no checkpoint, holds more than plain data, or is not of this project.
    """
    path = Path(path)
    if not path.is_file():
        raise TocsinError(f"ckpt_path={path}: there is no such file; checkpoints lie in <run>/checkpoints/")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except BAD_FILE as error:
        raise TocsinError(
            f"ckpt_path={path} is not a readable checkpoint of plain data: {_reason(error)}"
        ) from error
    missing = [key for key in REQUIRED if key not in checkpoint] if isinstance(checkpoint, dict) else REQUIRED
    if missing:
        raise TocsinError(f"ckpt_path={path} was not written by train.py: it has no {', '.join(missing)}")
    return dict(checkpoint)


def _reason(error: BaseException) -> str:
    """What torch found, on one line, without its advice to load the file unsafely."""
    text = str(error).rpartition("WeightsUnpickler error:")[2]
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith(TORCH_ADVICE)]
    return lines[0] if lines else "it ends too soon"


def write_checkpoint(checkpoint: dict[str, Any], path: Path) -> None:
    """Write to a temporary name and rename, so that a reader never sees half a file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    torch.save(checkpoint, temporary)
    temporary.replace(path)


def replace_with_copy(source: Path, target: Path) -> None:
    """Copy a file over another one; a reader sees the old or the new one, never half of it."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    shutil.copyfile(source, temporary)
    temporary.replace(target)


def find_last(run_dir: Path) -> Path:
    """The last checkpoint of a run.

    Raises:
        TocsinError: The run has none.
    """
    path = run_dir / "checkpoints" / "last.ckpt"
    if not path.is_file():
        raise TocsinError(f"ckpt_path=last: {path} does not exist; start the run without ckpt_path")
    return path
