"""What opens below a line of the page: pictures, what sets its configuration apart, test metrics, and its runs."""

import itertools
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tocsin.leaderboard.entries import Entry
from tocsin.leaderboard.pictures import Picture
from tocsin.leaderboard.rows import Row
from tocsin.leaderboard.text import NONE, number, spread

MAX_DIFFERENCES = 60


def changed_keys(rows: Sequence[Row]) -> dict[str, set[str]]:
    """For each name the keys whose values differ between its entries; of a single entry, between all entries."""
    configs: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row.entry is not None:
            configs.setdefault(row.name, []).append(row.runs[0].config)
    every = [config for own in configs.values() for config in own]
    among_all = _changed(every)
    return {name: _changed(own) if len(own) > 1 else among_all for name, own in configs.items()}


def _changed(configs: Sequence[Mapping[str, Any]]) -> set[str]:
    keys = {key for config in configs for key in config} - {"seed"}
    return {key for key in keys if len({repr(config.get(key)) for config in configs}) > 1}


def detail(
    row: Row, changed: Collection[str], pictures: Sequence[Picture], home: Path, *, n_columns: int
) -> str:
    """A line of the table that is hidden until it is asked for; nothing for scores that need no model.

    Args:
        row: The line.
        changed: Keys of its configuration that are told.
        pictures: Of one of its runs.
        home: Folder of the page: links start there.
        n_columns: Columns of the table.
    """
    if row.entry is None:
        return ""
    shown = "".join(
        f"<figure>{image(picture)}<figcaption>{escape(picture.name.replace('_', ' '))}</figcaption></figure>"
        for picture in pictures
    )
    panels = [
        ("What sets its configuration apart", _pairs(_differences(row, changed))),
        ("Test metrics", _pairs((name, spread(values)) for name, values in row.metrics.items())),
        ("Runs", _runs(row.entry, home)),
    ]
    body = "".join(f"<div><h3>{title}</h3>{content}</div>" for title, content in panels if content)
    pictured = f'<div class="pictures">{shown}</div>' if shown else ""
    inner = f'<div class="within">{pictured}<div class="panels">{body}</div></div>'
    return f'<tr class="detail"><td colspan="{n_columns}">{inner}</td></tr>\n'


def image(picture: Picture) -> str:
    """A picture that is part of the page."""
    return (
        f'<img loading="lazy" decoding="async" width="{picture.width}" height="{picture.height}" '
        f'alt="{escape(picture.name)}" src="{picture.source}">'
    )


def link(folder: Path, home: Path, text: str) -> str:
    """A link to a folder, relative so that both may be moved together."""
    relative = Path(os.path.relpath(folder, home)).as_posix()
    return f'<a href="{escape(quote(relative))}/">{escape(text)}</a>'


def _differences(row: Row, changed: Collection[str]) -> Iterator[tuple[str, str]]:
    told = ((key, str(value)) for key, value in row.runs[0].config.items() if key in changed)
    return itertools.islice(told, MAX_DIFFERENCES)


def _pairs(pairs: Iterable[tuple[str, str]]) -> str:
    items = "".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in pairs)
    return f"<dl>{items}</dl>" if items else ""


def _runs(entry: Entry, home: Path) -> str:
    several = len({entity for entity, _ in entry.runs}) > 1
    items = []
    for (entity, seed), run in sorted(entry.runs.items(), key=lambda item: item[0][::-1]):
        value = run.sections["test"].get(run.kind.metric) if run.kind else None
        where = f" on {entity}" if several else ""
        text = f"seed {seed}{where}: {NONE if value is None else number(value)}"
        items.append(f"<li>{escape(text)} · {link(run.folder, home, run.folder.name)}</li>")
    for job in entry.lost:
        items.append(f'<li class="bad">{escape(job.state)}: {link(job.folder, home, job.folder.name)}</li>')
    return f'<ul class="list">{"".join(items)}</ul>'
