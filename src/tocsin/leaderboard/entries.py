"""From runs to entries and to sets of entries that may be compared.

An entry is one configuration, whatever the seed. Two entries are compared only if they were tested on the same
data, each entity and seed with the same fingerprint, and with the same yardstick (the buffer of VUS, the attacked
detector). A split may depend on the seed, so each seed has a fingerprint of its own, and it is the configurations
that tie seeds together.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tocsin.leaderboard.runs import KINDS, Lost, Run

# They change where and how a run is kept, not what it is.
NO_PART = ("seed", "ckpt_path", "cache_dir", "logger")
ENTITY = ("data.path", "data.train", "data.test")  # which series of a data set
YARDSTICK = ("task.vus_buffer", "model.victim")
SERIES = KINDS[0]


@dataclass(frozen=True, kw_only=True, eq=False)
class Entry:
    """Runs of one configuration, on one or several entities of a data set.

    Attributes:
        key: What makes them one.
        runs: By entity and seed; the newest where there are several.
        repeated: Older runs of the same entity and seed, which are left out.
        lost: Jobs of this configuration without a result.
    """

    key: Hashable
    runs: dict[tuple[str, int], Run] = field(default_factory=dict)
    repeated: list[Run] = field(default_factory=list)
    lost: list[Lost] = field(default_factory=list)

    @property
    def first(self) -> Run:
        """One of its runs, to read what they share from."""
        return next(iter(self.runs.values()))

    def add(self, run: Run) -> None:
        """Take a run, which may be a newer one of an entity and seed."""
        place = (place_of(run)[1], run.seed)
        older = self.runs.get(place)
        if older is not None:
            run, older = sorted((run, older), key=_finished)[::-1]
            self.repeated.append(older)
        self.runs[place] = run


def place_of(run: Run) -> tuple[str, str]:
    """Data set and entity of a run: of series the folder and the file, else the set with its part, and the part."""
    source = run.sections["data"].get("source") or run.sections["run"].get("data") or "data"
    parts = Path(source).parts
    return (parts[-2:][0] if run.kind is SERIES else "/".join(parts[-2:])), parts[-1]


def entry_key(config: Mapping[str, Any], overrides: Mapping[str, str], tags: str) -> Hashable:
    """What makes two runs the same but for the seed and the entity: the configuration, else the command line."""
    told: Mapping[str, Any] = config or overrides
    parts = sorted(
        (key, repr(value))
        for key, value in told.items()
        if key.split(".")[0] not in NO_PART and key not in ENTITY
    )
    return (tags, tuple(parts))


def comparable(runs: Sequence[Run], lost: Iterable[Lost]) -> list[list[Entry]]:
    """Sets of entries that were tested on the same data with the same yardstick.

    Args:
        runs: With labels, of any kinds.
        lost: Jobs without a result; each is added to the entry it belongs to, if that has any runs.
    """
    groups: dict[Hashable, list[Run]] = {}
    for run in runs:
        assert run.kind is not None
        yardstick = tuple(str(run.config.get(key)) for key in YARDSTICK)
        groups.setdefault((run.kind.metric, place_of(run)[0], yardstick), []).append(run)
    sets = [part for group in groups.values() for part in _connected(group)]
    made = [_entries(part) for runs in sets for part in _complete(runs)]
    _hand_out(lost, made)
    return made


def _key(run: Run) -> Hashable:
    return entry_key(run.config, run.overrides, run.name)


def _connected(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs that share test data, directly or through a configuration that was run with several seeds."""
    owner: dict[Hashable, Hashable] = {}

    def root(token: Hashable) -> Hashable:
        while owner.setdefault(token, token) != token:
            token = owner[token]
        return token

    for run in runs:
        owner[root(("data", _print(run)))] = root(("entry", _key(run)))
    parts: dict[Hashable, list[Run]] = {}
    for run in runs:
        parts.setdefault(root(("entry", _key(run))), []).append(run)
    return [piece for part in parts.values() for piece in _unchanged(part)]


def _unchanged(runs: list[Run]) -> list[list[Run]]:
    """The same runs, unless a seed shows two fingerprints: files have changed, so each of them is compared alone."""
    prints: dict[tuple[str, int], set[str]] = {}
    for run in runs:
        prints.setdefault((place_of(run)[1], run.seed), set()).add(_print(run))
    if all(len(found) == 1 for found in prints.values()):
        return [runs]
    parts: dict[str, list[Run]] = {}
    for run in runs:
        parts.setdefault(_print(run), []).append(run)
    return list(parts.values())


def _complete(runs: list[Run]) -> list[list[Run]]:
    """The same runs, or those of each entity alone where no configuration has been run on all entities."""
    entities = {place_of(run)[1] for run in runs}
    covered: dict[Hashable, set[str]] = {}
    for run in runs:
        covered.setdefault(_key(run), set()).add(place_of(run)[1])
    if entities in covered.values():
        return [runs]
    return [[run for run in runs if place_of(run)[1] == entity] for entity in sorted(entities)]


def _entries(runs: Iterable[Run]) -> list[Entry]:
    entries: dict[Hashable, Entry] = {}
    for run in runs:
        key = _key(run)
        entries.setdefault(key, Entry(key=key)).add(run)
    return list(entries.values())


def _hand_out(lost: Iterable[Lost], sets: Iterable[Iterable[Entry]]) -> None:
    """Add each lost job to the entry whose configuration it has; its tags are part of that."""
    owners = {entry.key[1]: entry for entries in sets for entry in entries}  # type: ignore[index]
    for job in lost:
        key = entry_key(job.config, job.overrides, "")
        if (owner := owners.get(key[1])) is not None:  # type: ignore[index]
            owner.lost.append(job)


def _print(run: Run) -> str:
    """Fingerprint of the data; where there is none, what was asked for."""
    known = run.sections["data"].get("fingerprint")
    return str(known) if known else "/".join(place_of(run))


def _finished(run: Run) -> str:
    return str(run.sections["run"].get("finished", ""))
