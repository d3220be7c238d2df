"""A leaderboard for a terminal of 100 columns, without colours where it goes into a file."""

import io
import math
import statistics
from collections.abc import Iterable

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid

from tocsin.leaderboard.board import Board, Table
from tocsin.leaderboard.rows import Row

WIDTH = 100
NONE = "\N{EN DASH}"
MAX_LOST = 20  # lines of jobs without a result


def render(board: Board, *, top: int = 20, color: bool = False, errors: bool = True) -> str:
    """All tables as text.

    Args:
        board: What to show.
        top: Lines of a table; the best baseline is shown even if it stands below them.
        color: Whether to write the signs that colour a terminal.
        errors: Whether to name jobs without a result, with their errors; else they are only counted.
    """
    out = io.StringIO()
    console = Console(file=out, width=WIDTH, force_terminal=color, no_color=not color, highlight=False)
    for table in board.tables:
        console.print(_grid(table, top))
        for note in _below(table, top):
            console.print(escape(note), style="dim")
        console.print()
    _print_lost(console, board, MAX_LOST if errors else 0)
    return out.getvalue()


def _grid(table: Table, top: int) -> Grid:
    means = f", means over {len(table.entities)} series" if len(table.entities) > 1 else ""
    grid = Grid(
        title=escape(f"{table.title}: by {table.kind.title}, higher is better{means}"),
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        width=WIDTH,
    )
    grid.add_column("#", justify="right", no_wrap=True)
    grid.add_column("entry", ratio=1, overflow="fold")
    for head in (
        table.kind.title,
        *(["lead"] if table.reference else []),
        *table.kind.beside.values(),
        "seeds",
    ):
        grid.add_column(
            head, justify="right", max_width=15, no_wrap=head == table.kind.title and len(head) < 15
        )
    for row in _shown(table, top):
        style = "dim" if row.baseline else "bold" if row.rank == 1 else ""
        grid.add_row(*map(escape, _cells(row, table)), style=style)
    return grid


def _shown(table: Table, top: int) -> list[Row]:
    rows = table.rows[:top]
    if table.reference is not None and table.reference not in rows:
        rows.append(table.reference)
    return rows


def _cells(row: Row, table: Table) -> list[str]:
    label = f"{row.label} (baseline)" if row.baseline else row.label
    beside = [
        number(statistics.fmean(row.metrics[name])) if row.metrics.get(name) else NONE
        for name in table.kind.beside
    ]
    return [
        str(row.rank),
        label,
        spread(row.values.values()),
        *([lead(row)] if table.reference else []),
        *beside,
        seeds(row),
    ]


def _below(table: Table, top: int) -> Iterable[str]:
    if (hidden := len(table.rows) - len(_shown(table, top))) > 0:
        yield f"{hidden} more line(s) in leaderboard.csv and leaderboard.html."
    for row in table.unranked:
        yield f"Without a rank: {row.label}: {row.reason}."
    yield from table.notes


def _print_lost(console: Console, board: Board, most: int) -> None:
    if not board.lost:
        return
    states = [job.state for job in board.lost]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    console.print(f"{len(board.lost)} job(s) without a result: {counts}", style="bold red")
    for job in board.lost[:most]:
        given = " ".join(f"{key}={value}" for key, value in job.overrides.items())
        console.print(escape(f"  {job.folder}: {job.state}: {job.error}" + (f" [{given}]" if given else "")))
    if 0 < most < len(board.lost):
        console.print(f"  and {len(board.lost) - most} more: see leaderboard.html")


# --- cells, for the page too ----------------------------------------------------------------------------------


def number(value: float) -> str:
    """Three digits after the point below 10, three in all above."""
    return NONE if math.isnan(value) else f"{value:.3f}" if abs(value) < 10 else f"{value:,.3g}"


def spread(values: Iterable[float]) -> str:
    """Mean ± standard deviation over seeds; the mean alone of one."""
    numbers = list(values)
    if not numbers:
        return NONE
    mean = number(statistics.fmean(numbers))
    return mean if len(numbers) < 2 else f"{mean} ± {number(statistics.stdev(numbers))}"


def lead(row: Row) -> str:
    """Lead over the best baseline with its mark; a dash in its place where seeds cannot tell."""
    if row.lead is None:
        return ""
    mark = NONE if row.p is None else "*" if row.marked else " "
    return f"{row.lead:+.3f} {mark}".replace("-", "\N{MINUS SIGN}")


def seeds(row: Row) -> str:
    """Seeds with a result, of how many where some have none; nothing for scores that no seed changes."""
    if row.entry is None and len(set(row.values.values())) == 1:
        return NONE
    return str(len(row.values)) if not row.lost else f"{len(row.values)} of {len(row.values) + row.lost}"
