"""Generated series and folders on disk, found again by a hash of the generator's arguments and source code.

Of several processes that need the same one, as the jobs of a sweep do, one makes it while the others wait.
"""

import fcntl
import hashlib
import io
import json
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd

from tocsin.data.series_data import SeriesData

log = logging.getLogger(__name__)

FORMAT = 2  # of the files; another one is never read

Arguments = Mapping[str, int | float | str | bool | None]


def cached_series(
    make: Callable[[], SeriesData], *, name: str, arguments: Arguments, cache_dir: str | Path | None
) -> SeriesData:
    """Read a generated series from the cache, or make and keep it.

    Args:
        make: Draws the series.
        name: Module of the generator; all modules of its package count towards the hash, so that a changed
            generator never reads what an older one wrote.
        arguments: All that the result depends on.
        cache_dir: Folder of the cache; None draws anew each time.
    """
    if cache_dir is None:
        return make()
    path = Path(cache_dir).expanduser() / f"{name.rsplit('.', 1)[-1]}-{_key(name, arguments)}.npz"
    with _one_at_a_time(path):
        if not path.exists():
            series = make()
            _write(path, series)
            return series
    log.info("read %s from the cache: %s", name.rsplit(".", 1)[-1], path)
    return _read(path)


def cached_folder(
    write: Callable[[Path], None], *, name: str, arguments: Arguments, cache_dir: str | Path
) -> Path:
    """Find a generated folder in the cache, or make and keep it.

    Args:
        write: Fills an empty folder.
        name: As in `cached_series`.
        arguments: All that the content depends on.
        cache_dir: Folder of the cache.

    Returns:
        The folder. It is complete: it gets its name only when all of it is written.
    """
    path = Path(cache_dir).expanduser() / f"{name.rsplit('.', 1)[-1]}-{_key(name, arguments)}"
    with _one_at_a_time(path):
        if not path.is_dir():
            _write_folder(write, path)
            return path
    log.info("found %s in the cache: %s", name.rsplit(".", 1)[-1], path)
    return path


@contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    """Keep other processes from making the same; the lock is let go when this one is done or dies.

    What is there is never locked: a cache that may only be read still serves.
    """
    if path.exists():
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f".{path.name}.lock")
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
        lock.unlink(missing_ok=True)  # who waits for it has it open, and finds what was made


def _write_folder(write: Callable[[Path], None], path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix=f"{path.name}.", suffix=".tmp", dir=path.parent) as temporary:
        content = Path(temporary) / "content"
        content.mkdir()
        write(content)
        try:
            content.rename(path)
        except OSError:  # another process was faster
            if not path.is_dir():
                raise


def _key(name: str, arguments: Arguments) -> str:
    digest = hashlib.blake2b(
        json.dumps({**arguments, "format": FORMAT}, sort_keys=True).encode(), digest_size=12
    )
    source = sys.modules[name].__file__
    assert source is not None
    for module in sorted(Path(source).parent.glob("*.py")):
        digest.update(module.read_bytes())
    return digest.hexdigest()


def _write(path: Path, series: SeriesData) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {"values": series.values, "lengths": np.asarray(series.lengths)}
    if series.labels is not None:
        arrays["labels"] = series.labels
    if series.timestamps is not None:
        arrays["timestamps"] = series.timestamps
    text: dict[str, object] = {"channel_names": series.channel_names, "names": series.names}
    if series.events is not None:
        text["events"] = series.events.to_json(orient="table", index=False)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        np.savez(file, text=np.array(json.dumps(text)), **arrays)  # type: ignore[arg-type]
    temporary.replace(path)


def _read(path: Path) -> SeriesData:
    with np.load(path, allow_pickle=False) as stored:
        text = json.loads(str(stored["text"]))
        events = None
        if "events" in text:
            events = pd.read_json(io.StringIO(text["events"]), orient="table")
            events["channels"] = [tuple(channels) for channels in events["channels"]]
        return SeriesData(
            values=stored["values"],
            channel_names=tuple(text["channel_names"]),
            labels=stored.get("labels"),
            timestamps=stored.get("timestamps"),
            lengths=tuple(stored["lengths"].tolist()),
            names=tuple(text["names"]),
            events=events,
        )
