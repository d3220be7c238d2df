"""What sets the jobs of a sweep apart, in short names: `mask_ratio=0.5`, `seed=2`, not all of the command line."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import PurePath


def as_mapping(overrides: Iterable[str]) -> dict[str, str]:
    """Keys and values of overrides as on the command line, less those of Hydra itself and the signs that add keys."""
    pairs = (override.lstrip("+").partition("=") for override in overrides)
    return {key: value for key, _, value in pairs if not key.startswith(("hydra.", "hydra/"))}


def differing(jobs: Sequence[Mapping[str, str]], ignored: Collection[str] = ()) -> list[dict[str, str]]:
    """For each job the overrides that are not the same for all of them, keys and values as short as they stay clear.

    Args:
        jobs: Overrides of each.
        ignored: Keys that are told elsewhere.
    """
    keys = dict.fromkeys(key for job in jobs for key in job if key not in ignored)
    values = {key: {job.get(key) for job in jobs} for key in keys}
    told = [key for key in keys if len(values[key]) > 1]
    names = short_keys(told)
    texts = {key: _short_values(value for value in values[key] if value is not None) for key in told}
    return [{names[key]: texts[key][job[key]] for key in told if key in job} for job in jobs]


def short_keys(keys: Iterable[str]) -> dict[str, str]:
    """For each dotted key its last part, or as many of its last parts as no other key ends with."""
    parts = {key: key.split(".") for key in keys}
    names = {}
    for key, own in parts.items():
        others = [other for other in parts if other != key]
        for n in range(1, len(own) + 1):
            name = ".".join(own[-n:])
            if not any(other == name or other.endswith(f".{name}") for other in others):
                break
        names[key] = name
    return names


def _short_values(values: Iterable[str]) -> dict[str, str]:
    """Paths by their last part, where that keeps them apart."""
    every = set(values)
    short = {value: PurePath(value).name if "/" in value and "[" not in value else value for value in every}
    return short if len(set(short.values())) == len(every) else {value: value for value in every}
