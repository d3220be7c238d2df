"""A leaderboard as one HTML file that needs nothing but a browser: no request leaves it.

Without scripts only sorting and filtering are missing. Text from runs is escaped, and a policy in
the head lets no script run but the one that is part of the page.
"""

import base64
import hashlib
import statistics
from collections.abc import Sequence
from datetime import datetime
from html import escape
from pathlib import Path

from tocsin.leaderboard.board import Board, Table
from tocsin.leaderboard.csv_file import train_s
from tocsin.leaderboard.page_detail import changed_keys, detail, image, link
from tocsin.leaderboard.pictures import Picture, of_options, of_rows
from tocsin.leaderboard.rows import Row
from tocsin.leaderboard.text import NONE, lead, number, seeds, spread

MAX_PICTURED = 60  # entries with pictures; of the others the page has a link to them
MAX_COLUMNS = 8  # options with a column; further ones stand behind the name


def as_html(board: Board, home: Path) -> str:
    """The page.

    Args:
        board: What to show.
        home: Folder that it will lie in: links to runs start there.
    """
    style, script = (Path(__file__).with_name(f"page.{kind}").read_text() for kind in ("css", "js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    pictures = _pictures(board)
    parts = [_section(table, pictures, home) for table in board.tables]
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<link rel="icon" href="data:,">\n'
        f"<title>Leaderboard: {escape(_names(board))}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        f"{_header(board)}<main>\n{_FIND}{''.join(parts)}{_lost(board, home)}"
        f"<footer>Written by tocsin.leaderboard on {datetime.now():%Y-%m-%d %H:%M}.</footer>\n</main>\n"
        f"<script>{script}</script>\n</body>\n</html>\n"
    )


_FIND = (
    '<div class="find" hidden><input type="search" placeholder="Show only, e.g. mae mask_ratio=0.5" '
    'aria-label="Show only lines with these words"><output></output></div>\n'
)


def _names(board: Board) -> str:
    return ", ".join(str(folder) for folder in board.folders)


def _header(board: Board) -> str:
    lost = f', <a href="#lost" class="bad">{len(board.lost)} without a result</a>' if board.lost else ""
    n_lines = sum(len(table.rows) + len(table.unranked) for table in board.tables)
    return (
        f"<header><h1>Leaderboard</h1>\n<p class='soft'>{escape(_names(board))}: {board.n_runs} runs in {n_lines} "
        f"lines{lost}</p></header>\n"
    )


def _pictures(board: Board) -> dict[int, list[Picture]]:
    """Pictures by the identity of their row: of the best rows of all tables in turn."""
    ranked = [
        (place, row) for table in board.tables for place, row in enumerate([*table.rows, *table.unranked])
    ]
    rows = [row for _, row in sorted(ranked, key=lambda pair: pair[0]) if row.entry is not None][
        :MAX_PICTURED
    ]
    return {id(row): found for row, found in zip(rows, of_rows(rows), strict=True)}


# --- a table --------------------------------------------------------------------------------------------------


def _section(table: Table, pictures: dict[int, list[Picture]], home: Path) -> str:
    means = f", means over {len(table.entities)} series" if len(table.entities) > 1 else ""
    notes = "".join(f"<li>{escape(note)}</li>" for note in table.notes)
    options, grid = of_options(table), _grid(table, pictures, home)
    picture = f'<div class="scroll"><figure class="wide">{image(options)}</figure></div>' if options else ""
    return (
        f"<section><h2>{escape(table.title)}</h2>\n<p class='soft'>By {escape(table.kind.title)}, higher is better"
        f"{means}; mean ± standard deviation over seeds.</p>\n{picture}<div class='scroll'>{grid}</div>\n"
        f"<ul class='notes'>{notes}</ul></section>\n"
    )


def _grid(table: Table, pictures: dict[int, list[Picture]], home: Path) -> str:
    rows = [*table.rows, *table.unranked]
    columns = list(dict.fromkeys(name for row in rows for name in row.options))[:MAX_COLUMNS]
    heads = [("#", True), ("entry", False), *((name, False) for name in columns), (table.kind.title, True)]
    heads += [("lead", True), ("p", True)] if table.reference else []
    heads += [*((name, True) for name in table.kind.beside.values()), ("seeds", True), ("train s", True)]
    cells = "".join(
        f'<th scope="col" class="sortable{" right" if right else ""}">{escape(name)}</th>'
        for name, right in heads
    )
    highest = max((row.mean for row in table.rows), default=0.0)
    changed = changed_keys(rows)
    details = [
        detail(row, changed.get(row.name, ()), pictures.get(id(row), []), home, n_columns=len(heads))
        for row in rows
    ]
    lines = zip(rows, details, strict=True)
    bodies = [_entry(row, table, columns, highest, below) for row, below in lines]
    return f"<table>\n<thead><tr>{cells}</tr></thead>\n{''.join(bodies)}</table>"


def _entry(row: Row, table: Table, columns: Sequence[str], highest: float, below: str) -> str:
    kind = "best" if row.rank == 1 else "baseline" if row.baseline else ""
    share = f"{100 * max(0.0, row.mean) / highest:.0f}%" if row.rank and highest > 0 else "0%"
    mean, _, sd = spread(row.values.values()).partition(" ")
    cells = [
        _cell("" if row.rank is None else str(row.rank), "right", row.rank),
        f'<td class="name" data-value="{escape(row.name)}">{_name(row, columns, bool(below))}</td>',
        *(f'<td class="option">{escape(row.options.get(name, ""))}</td>' for name in columns),
        f'<td class="right value" style="--share: {share}" data-value="{row.mean if row.values else ""}">'
        f'{mean} <span class="sd">{sd}</span></td>',
        *(_leads(row) if table.reference else []),
        *(_metric(row, name) for name in table.kind.beside),
        _cell(seeds(row), "right bad" if row.lost else "right", len(row.values)),
        _seconds(row),
    ]
    text = escape(" ".join([row.label, row.reason, "baseline" if row.baseline else ""]))
    line = f'<tr class="line {kind}">{"".join(cells)}</tr>\n'
    return f'<tbody class="entry" data-text="{text}">{line}{below}</tbody>\n'


def _name(row: Row, columns: Sequence[str], opens: bool) -> str:
    rest = " ".join(f"{key}={value}" for key, value in row.options.items() if key not in columns)
    name = escape(f"{row.name} {rest}".strip())
    name += ' <span class="chip">baseline</span>' if row.baseline else ""
    reason = f'<br><span class="chip">no rank</span> <span class="soft">{escape(row.reason)}</span>'
    shown = f"<details><summary>{name}</summary></details>" if opens else name
    return shown + (reason if row.reason else "")


def _leads(row: Row) -> list[str]:
    """Cells of the lead and of its p-value; empty ones where there is nothing to compare."""
    if row.lead is None:
        return [_cell("", "right"), _cell("", "right")]
    p = NONE if row.p is None else f"{row.p:.3f}" if row.p >= 0.001 else "< 0.001"
    style = "right up" if row.marked else "right"
    return [_cell(lead(row).removesuffix(NONE).strip(), style, row.lead), _cell(p, "right", row.p)]


def _metric(row: Row, name: str) -> str:
    values = row.metrics.get(name)
    mean = statistics.fmean(values) if values else None
    return _cell(NONE if mean is None else number(mean), "right", mean)


def _seconds(row: Row) -> str:
    seconds = train_s(row)
    return _cell(NONE if seconds is None else f"{seconds:.3g}", "right", seconds)


def _cell(text: str, style: str, value: float | None = None) -> str:
    """A cell that is sorted by its number; None where that is unknown."""
    return f'<td class="{style}" data-value="{"" if value is None else value}">{escape(text)}</td>'


# --- jobs without a result ------------------------------------------------------------------------------------


def _lost(board: Board, home: Path) -> str:
    if not board.lost:
        return ""
    lines = []
    for job in board.lost:
        given = " ".join(f"{key}={value}" for key, value in job.overrides.items())
        cells = [link(job.folder, home, str(job.folder)), *map(escape, (job.state, job.error, given))]
        lines.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return (
        f'<section id="lost" class="lost"><h2 class="bad">{len(board.lost)} without a result</h2>\n'
        '<div class="scroll"><table><thead><tr><th>folder</th><th>state</th><th>why</th><th>options</th></tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div></section>\n"
    )
