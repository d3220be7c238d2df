"""One folder in which TensorBoard sees every run of a sweep by a name that tells it apart: `model=mae,seed=2`.

TensorBoard names a run by its folder, which for a job of a sweep is a number. So each run gets a folder of its name
with links to its event files, and the first of them one more file with the columns of the HParams table.
"""

import contextlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tocsin.board_columns import write_columns
from tocsin.leaderboard.runs import Lost, Run, find
from tocsin.overrides import differing

EVENTS = "events.out.tfevents."
COLUMNS = f"{EVENTS}0000000000.columns"  # read before all files of runs
LONGEST = 120  # characters of a name


def link_runs(folders: Sequence[Path], into: Path) -> list[str]:
    """Link the event files of all runs below some folders, and take away links to what is gone.

    Args:
        folders: Of sweeps or runs.
        into: Folder for TensorBoard; it may be one of an earlier call, and TensorBoard may be looking at it.

    Returns:
        Names of the runs.

    Raises:
        TocsinError: A folder does not exist, or there are no runs.
    """
    found = find(folders)
    named = run_names([*found.runs, *found.lost], folders)
    wanted = {
        into / name / events.name: events.resolve()
        for name, run in named.items()
        for events in sorted((run.folder / "tensorboard").glob(f"{EVENTS}*"))
    }
    if not wanted:
        return []
    first = next(iter(wanted))
    _synchronise(into, wanted, keep=first.parent / COLUMNS)
    write_columns(first.parent / COLUMNS, found, started=_started(first.name))
    return list(dict.fromkeys(link.parent.relative_to(into).as_posix() for link in wanted))


def after_sweep(sweep_dir: Path) -> Path | None:
    """Link the runs of a sweep in its own folder `tensorboard`; None if none of them has event files."""
    into = sweep_dir / "tensorboard"
    return into if link_runs([sweep_dir], into) else None


def run_names(runs: Sequence[Run | Lost], folders: Sequence[Path]) -> dict[str, Run | Lost]:
    """A name for each run: what sets it apart in its sweep, below the name of the sweep if there are several."""
    sweeps: dict[Path, list[Run | Lost]] = {}
    for run in runs:
        sweeps.setdefault(run.folder.parent, []).append(run)
    named: dict[str, Run | Lost] = {}
    for parent, jobs in sweeps.items():
        above = _above(parent, folders) if len(sweeps) > 1 else ""
        for run, told in zip(jobs, differing([job.overrides for job in jobs]), strict=True):
            short = ",".join(f"{key}={value}" for key, value in told.items())
            name = (_safe(short) if _is_job(run.folder) else "") or run.folder.name
            full = f"{above}/{name}" if above else name
            named[full if full not in named else f"{full},job={run.folder.name}"] = run
    return named


def _is_job(folder: Path) -> bool:
    return (folder / "job.json").is_file() or (folder.parent / "multirun.yaml").is_file()


def _above(parent: Path, folders: Iterable[Path]) -> str:
    """Path of a sweep from the folder it was found below, with the name of that if it is no folder of sweeps."""
    for folder in folders:
        if parent.is_relative_to(folder):
            inside = parent.relative_to(folder).as_posix()
            return folder.name if inside == "." else inside
    return parent.name


def _safe(name: str) -> str:
    """A name that any file system takes."""
    plain = re.sub(r"[^\w.,=+()\[\]-]", "_", name)
    return plain if len(plain) <= LONGEST else plain[:LONGEST]


def _synchronise(into: Path, wanted: Mapping[Path, Path], keep: Path) -> None:
    """Make links as wanted; only links, own files and empty folders are ever removed."""
    for place, _, files in os.walk(into, topdown=False):
        for name in files:
            path = Path(place, name)
            if (path.is_symlink() and path not in wanted) or (name == COLUMNS and path != keep):
                path.unlink()
        with contextlib.suppress(OSError):  # not empty
            Path(place).rmdir()
    for link, target in wanted.items():
        if link.is_symlink() and link.resolve() == target:
            continue
        link.parent.mkdir(parents=True, exist_ok=True)
        temporary = link.with_name(f".{os.getpid()}.tmp")
        # Relative, so that a sweep may be moved as a whole.
        temporary.symlink_to(os.path.relpath(target, link.parent.resolve()))
        temporary.replace(link)


def _started(name: str) -> float:
    """When a run began, by the name of its first event file."""
    stamp = name.removeprefix(EVENTS).partition(".")[0]
    return float(stamp) if stamp.isdecimal() else 0.0
