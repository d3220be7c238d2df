"""The tables of a leaderboard: entries in order of the metric that ranks their kind, with baselines among them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tocsin.leaderboard.entries import ENTITY, YARDSTICK, Entry, comparable, place_of
from tocsin.leaderboard.rows import Row, row_of, rows_without_model, told_apart
from tocsin.leaderboard.runs import Kind, Lost, find
from tocsin.leaderboard.significance import LEVEL, MIN_SEEDS, holm, p_value
from tocsin.overrides import differing

TOLD_ELSEWHERE = ("seed", "model", "data", "tags")


@dataclass(frozen=True, kw_only=True)
class Table:
    """Entries that were tested on the same data.

    Attributes:
        title: Name of the data.
        kind: Its metrics.
        rows: Best first.
        unranked: Lines that do not compete, each with its reason.
        reference: The best baseline; None without any.
        entities: Series that values are means over.
        notes: What a reader of the numbers must know.
    """

    title: str
    kind: Kind
    rows: list[Row]
    unranked: list[Row]
    reference: Row | None
    entities: list[str]
    notes: list[str]


@dataclass(frozen=True, kw_only=True)
class Board:
    """All tables of some folders.

    Attributes:
        folders: What was read.
        tables: One for each set of test data.
        lost: Jobs without a result.
        n_runs: Finished runs.
    """

    folders: list[Path]
    tables: list[Table]
    lost: list[Lost]
    n_runs: int


def build(folders: Sequence[Path]) -> Board:
    """Read all runs below some folders and rank them.

    Raises:
        TocsinError: A folder does not exist, or no run is below them.
    """
    found = find(folders)
    unlabelled = [run for run in found.runs if run.kind is None]
    lost = [
        *found.lost,
        *(
            Lost(
                folder=run.folder,
                state="no labels",
                error="the test data have no labels, so nothing ranks it",
            )
            for run in unlabelled
        ),
    ]
    sets = comparable([run for run in found.runs if run.kind is not None], found.lost)
    tables = [_table(entries) for entries in sets]
    return Board(
        folders=list(folders), tables=_titled(tables), lost=lost, n_runs=len(found.runs) - len(unlabelled)
    )


def _table(entries: Sequence[Entry]) -> Table:
    kind = entries[0].first.kind
    assert kind is not None
    every = [run for entry in entries for run in entry.runs.values()]
    entities = sorted({place_of(run)[1] for run in every})
    options = differing([entry.first.overrides for entry in entries], (*TOLD_ELSEWHERE, *ENTITY))
    rows = [row_of(entry, own, kind, entities) for entry, own in zip(entries, options, strict=True)]
    rows = told_apart(rows) + rows_without_model(every, kind, entities)
    ranked = _ranked([row for row in rows if not row.reason])
    unranked = [row for row in rows if row.reason]
    reference = next((row for row in ranked if row.baseline), None)
    if reference is not None:
        ranked = _tested(ranked, reference)
    return Table(
        title=place_of(every[0])[0],
        kind=kind,
        rows=ranked,
        unranked=unranked,
        reference=reference,
        entities=entities,
        notes=_notes(ranked, reference, entries),
    )


# --- order ----------------------------------------------------------------------------------------------------


def _ranked(rows: Sequence[Row]) -> list[Row]:
    """Best first; equals share a rank."""
    ordered = sorted(rows, key=lambda row: -row.mean)
    means = [row.mean for row in ordered]
    return [replace(row, rank=1 + means.index(row.mean)) for row in ordered]


def _tested(rows: Sequence[Row], reference: Row) -> list[Row]:
    """Leads over the best baseline, and their p-values."""
    chances = {
        place: chance
        for place, row in enumerate(rows)
        if not row.baseline and (chance := p_value(row.values, reference.values)) is not None
    }
    adjusted = dict(zip(chances, holm(list(chances.values())), strict=True))
    return [
        row if row.baseline else replace(row, lead=row.mean - reference.mean, p=adjusted.get(place))
        for place, row in enumerate(rows)
    ]


def _notes(rows: Sequence[Row], reference: Row | None, entries: Sequence[Entry]) -> list[str]:
    notes = _on_luck(rows, reference)
    if n_lost := sum(len(entry.lost) for entry in entries):
        notes.append(f"{n_lost} job(s) of these entries have no result: means are over the other seeds.")
    if n_old := sum(len(entry.repeated) for entry in entries):
        notes.append(f"{n_old} older run(s) of the same configuration and seed are left out.")
    return notes


def _on_luck(rows: Sequence[Row], reference: Row | None) -> list[str]:
    """What the marks of a table mean, or why there are none."""
    if all(row.baseline for row in rows):
        return []
    if reference is None:
        return ["No baseline was measured here: add model=pca,kmeans,iforest to the sweep."]
    if n_tests := sum(row.p is not None for row in rows):
        many = "1 entry" if n_tests == 1 else f"{n_tests} entries"
        return [
            f"* beats {reference.label}, the best baseline, with p < {LEVEL}: one-sided t-tests over seeds, "
            f"adjusted by Holm's method over {many}; \N{EN DASH}: fewer than {MIN_SEEDS} seeds, or they change "
            "nothing."
        ]
    if len(reference.values) < MIN_SEEDS:
        return [
            f"{reference.label}, the best baseline, has {len(reference.values)} seed(s): it takes {MIN_SEEDS} "
            "of both to tell a lead from luck."
        ]
    return [f"No entry has {MIN_SEEDS} seeds that change its result, so no lead can be told from luck."]


def _titled(tables: Sequence[Table]) -> list[Table]:
    """Tables of data of one name get what sets these data apart."""
    titles = [table.title for table in tables]
    told = list(tables)
    for title in {title for title in titles if titles.count(title) > 1}:
        places = [place for place, table in enumerate(tables) if table.title == title]
        configs = [_of_data(tables[place].rows + tables[place].unranked) for place in places]
        for place, options in zip(places, differing(configs), strict=True):
            marks = [f"{key}={value}" for key, value in options.items()]
            told[place] = replace(tables[place], title=", ".join([title, *marks]))
    titles = [table.title for table in told]
    return [
        replace(table, title=f"{table.title} ({titles[:place].count(table.title) + 1})")
        if titles.count(table.title) > 1
        else table
        for place, table in enumerate(told)
    ]


def _of_data(rows: Sequence[Row]) -> dict[str, str]:
    """Options of the data and of the yardstick that a table stands for."""
    runs = [row.runs[0] for row in rows if row.runs]
    config = {**runs[0].overrides, **runs[0].config}
    return {key: str(value) for key, value in config.items() if key.startswith("data.") or key in YARDSTICK}
