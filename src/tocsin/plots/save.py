"""Write a figure so that a reader never meets half a file."""

import os
import tempfile
from pathlib import Path

from matplotlib.figure import Figure

DPI = 130


def save(figure: Figure, path: str | Path) -> Path:
    """Write a figure to a temporary name in the same folder and rename it; an older file is replaced.

    Args:
        figure: What to write.
        path: Where; the suffix (`.png`, `.svg`, `.pdf`) chooses the format. Missing folders are made.

    Returns:
        The path written.

    Raises:
        ValueError: The suffix names no format that can be written.
    """
    path = Path(path)
    form = path.suffix.removeprefix(".").lower()
    possible = sorted(figure.canvas.get_supported_filetypes())
    if form not in possible:
        raise ValueError(
            f"cannot write a figure to '{path.name}': the suffix must be one of {', '.join(possible)}"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=f".{form}")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            figure.savefig(file, format=form, dpi=DPI)
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
