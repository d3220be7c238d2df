"""Long answers as JSON, piece by piece, so that writing one does not hold up everyone else."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

PIECE = 8192  # numbers written at a time


def to_json(answer: Mapping[str, Any]) -> bytes:
    """JSON of nested mappings, lists and 1-D arrays; a number that is not finite becomes null."""
    return "".join(_pieces(answer)).encode()


def _pieces(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for index, (key, inner) in enumerate(value.items()):
            yield f"{', ' if index else '{'}{json.dumps(str(key))}: "
            yield from _pieces(inner)
        yield "}" if value else "{}"
    elif isinstance(value, np.ndarray):
        yield "["
        for begin in range(0, len(value), PIECE):
            text = json.dumps(_plain(value[begin : begin + PIECE]))[1:-1]
            yield f", {text}" if begin else text
        yield "]"
    elif isinstance(value, float) and not np.isfinite(value):
        yield "null"
    else:
        yield json.dumps(value)


def _plain(values: np.ndarray) -> list[Any]:
    """Numbers, truth values and texts of an array; times as text."""
    if values.dtype.kind == "M":
        texts: list[Any] = np.datetime_as_string(values).tolist()
        return texts
    plain: list[Any] = values.tolist()
    if values.dtype.kind != "f" or np.isfinite(values).all():
        return plain
    return [number if np.isfinite(number) else None for number in plain]
