"""What a patch job leaves in its folder, as others read it while it runs and when it is done.

All of it is written whole or not at all, but for `progress.jsonl`, which grows by lines, and is cut when a job goes
on from a checkpoint.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

PROGRESS, PICTURE, FINAL_PICTURE = "progress.jsonl", "patch_now.png", "patch.png"
_TAIL = 16_384  # bytes, more than the last lines have
_CHUNK = 65_536
_OF_A_START = (
    "hydra.run.dir=",
    "ckpt_path=",
    "trainer=",
    "trainer.accelerator=",
    "trainer.devices=",
    "cache_dir=",
)


def job_folder(folder: Path, id: str) -> Path:
    """Folder of a job; its run folder."""
    return folder.absolute() / "jobs" / id


def checkpoint_time(folder: Path) -> float | None:
    """Time of the last checkpoint of a job; None where there is none."""
    try:
        return (folder / "checkpoints" / "last.ckpt").stat().st_mtime
    except FileNotFoundError:
        return None


def kept_overrides(folder: Path) -> list[str] | None:
    """Overrides of a job as it was first started: a run that goes on elsewhere must be the same run.

    Returns:
        None where there is no checkpoint to go on from.
    """
    saved = folder / ".hydra" / "overrides.yaml"
    if checkpoint_time(folder) is None or not saved.is_file():
        return None
    loaded = OmegaConf.to_container(OmegaConf.load(saved), resolve=False)
    assert isinstance(loaded, list)
    return [text for text in loaded if not str(text).startswith(_OF_A_START)]


def last_line(folder: Path) -> dict[str, Any] | None:
    """The latest line of the progress of a job; None before the first."""
    try:
        with (folder / PROGRESS).open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL))
            lines = file.read().split(b"\n")[:-1]  # what follows the last newline is still being written
    except FileNotFoundError:
        return None
    return dict(json.loads(lines[-1])) if lines else None


class Follower:
    """Reads the lines of a progress file that grows, each once, by the number of their iteration.

    Args:
        folder: Of the job.
        after: Number of the last iteration that is known already.
    """

    def __init__(self, folder: Path, *, after: int = 0) -> None:
        self._path = folder / PROGRESS
        self.after = after
        self._place = (-1, 0)  # which file it was, and how far it was read

    def more(self) -> Iterator[tuple[int, str]]:
        """Number and text of some lines that are new; none when there are none yet."""
        try:
            with self._path.open("rb") as file:
                found = os.fstat(file.fileno())
                which, place = self._place
                if which != found.st_ino or place > found.st_size:  # cut: lines that were read come again
                    place = 0
                file.seek(place)
                chunk = file.read(_CHUNK)
        except FileNotFoundError:
            return
        complete = chunk[: chunk.rfind(b"\n") + 1]
        self._place = (found.st_ino, place + len(complete))
        for line in complete.decode().splitlines():
            number = int(json.loads(line)["iteration"])
            if number > self.after:
                self.after = number
                yield number, line

    @property
    def at_end(self) -> bool:
        """Whether all that is there has been read."""
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return True
        return self._place[0] == found.st_ino and self._place[1] >= found.st_size


def picture_of_patch(folder: Path) -> bytes | None:
    """The patch as PNG: the finished one, else as it is now; None before the first."""
    for name in (FINAL_PICTURE, PICTURE):
        try:
            return (folder / name).read_bytes()
        except FileNotFoundError:
            continue
    return None


def report_of(folder: Path) -> dict[str, Any] | None:
    """Sections of metrics.json, less what only concerns the machine, and names of pictures; None before the end."""
    try:
        metrics = json.loads((folder / "metrics.json").read_text())
    except FileNotFoundError:
        return None
    for name in ("overrides", "git"):
        metrics.get("run", {}).pop(name, None)
    return {"metrics": metrics, "pictures": pictures_of(folder)}


def pictures_of(folder: Path) -> list[str]:
    """Names of the pictures of a finished job."""
    return sorted(path.name for path in (folder / "plots").glob("*.png"))
