"""A leaderboard as CSV: one line for each entry, with mean and standard deviation of every test metric."""

import csv
import io
import statistics
from collections.abc import Iterator

from tocsin.leaderboard.board import Board, Table
from tocsin.leaderboard.rows import Row

FIRST = ("data", "metric", "rank", "entry", "options", "baseline", "seeds", "n_seeds", "n_lost", "mean", "sd")
THEN = ("lead", "p", "beats_baseline", "reason", "train_s")


def as_csv(board: Board) -> str:
    """The file: unknown values are empty, and so is the rank of what does not compete."""
    every = [row for table in board.tables for row in (*table.rows, *table.unranked)]
    names = list(dict.fromkeys(name for row in every for name in row.metrics))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    measured = [f"{name}_{part}" for name in names for part in ("mean", "sd")]
    writer.writerow([*FIRST, *THEN, *measured, "folders"])
    for table in board.tables:
        for row in (*table.rows, *table.unranked):
            numbers = [cell for name in names for cell in _mean_and_sd(row.metrics.get(name, []))]
            folders = ";".join(str(run.folder) for run in row.runs)
            writer.writerow([*_first(row, table), *_then(row), *numbers, folders])
    return out.getvalue()


def train_s(row: Row) -> float | None:
    """Seconds of training, mean over runs; None where no model was trained."""
    seconds = [run.sections.get("timing", {}).get("fit_s") for run in row.runs]
    known = [float(value) for value in seconds if value is not None]
    return statistics.fmean(known) if known else None


def _first(row: Row, table: Table) -> Iterator[object]:
    yield from (table.title, table.kind.metric, "" if row.rank is None else row.rank, row.name)
    yield " ".join(f"{key}={value}" for key, value in row.options.items())
    yield from (str(row.baseline).lower(), " ".join(map(str, row.values)), len(row.values), row.lost)
    yield from _mean_and_sd(list(row.values.values()))


def _then(row: Row) -> Iterator[object]:
    for value in (row.lead, row.p):
        yield "" if value is None else value
    yield "" if row.p is None else str(row.marked).lower()
    yield row.reason
    seconds = train_s(row)
    yield "" if seconds is None else seconds


def _mean_and_sd(values: list[float]) -> tuple[object, object]:
    mean = statistics.fmean(values) if values else ""
    return mean, statistics.stdev(values) if len(values) > 1 else ""
