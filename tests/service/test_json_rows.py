"""Rows are read as any JSON parser reads them, but block by block, and what is wrong is named with its place."""

import json
import threading
import time

import numpy as np
import pytest

from tocsin.errors import DataError
from tocsin.service.json_rows import BLOCK, parse_rows


@pytest.mark.parametrize("n_rows", [0, 1, BLOCK, 2 * BLOCK + 3])
@pytest.mark.parametrize("indent", [None, 1])
def test_rows_come_back_as_they_were_sent(n_rows: int, indent: int | None) -> None:
    rows = np.random.default_rng(0).standard_normal((n_rows, 3)).tolist()
    given = {"channels": ["a, ]", "b", "c"], "rows": rows}
    found = parse_rows(json.dumps(given, indent=indent).encode(), limit=10_000)
    np.testing.assert_array_equal(found.flat, np.array(rows).reshape(-1))
    assert found.widths.tolist() == [3] * n_rows
    assert found.channels == given["channels"]


def test_missing_values_and_rows_of_other_lengths() -> None:
    found = parse_rows(b' { "rows" : [ [1, null,NaN] ,[ ] , [-2e3]]\n}\n ', limit=10)
    np.testing.assert_array_equal(found.flat, [1, np.nan, np.nan, -2000])
    assert found.widths.tolist() == [3, 0, 1]
    assert found.channels is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "{ is missing at character 0"),
        ("{}", "is no JSON"),
        ("[[1]]", "{ is missing"),
        ('{"rows": [[1]]', "} is missing"),
        ('{"rows": [[1]], }', "is no JSON"),
        ('{"rows": [[1] [2]]}', ", is missing"),
        ('{"rows": [[1],]}', "is no JSON"),
        ('{"rows": [[1', "is no JSON"),
        ('{"rows": 1}', r"\[ is missing"),
        ('{"rows": [1]}', "rows.0: Input should be a valid list"),
        ('{"rows": [[1]], "channels": [1]}', r"channels.*valid string"),
        ('{"rows": [[1]]} x', "something follows"),
        ('{"channels": ["a"]}', "has no rows"),
        ('{"rows": [[1]], "channels": ["\\ud800"]}', "is no JSON .*surrogates not allowed"),
        ('{"rows": [[1' + "0" * 5000 + "]]}", "is no JSON"),
        ('{"rows": [], "more": 1}', "there is no key 'more'; there are: channels, rows"),
        ('{"rows": ' + "[" * 100_000, "is no JSON"),
        ('{"rows": [[1], [2], [3], [4]]}', "more rows than limits.rows=3"),
    ],
)
def test_what_is_no_rows_is_refused(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse_rows(text.encode(), limit=3)


def test_a_fault_is_told_with_its_row() -> None:
    rows: list[list[object]] = [[1.0, 2.0] for _ in range(2 * BLOCK)]
    rows[BLOCK + 7][1] = "x"
    with pytest.raises(DataError, match=rf"rows\.{BLOCK + 7}\.1\.?.*valid number"):
        parse_rows(json.dumps({"rows": rows}).encode(), limit=10_000)
    with pytest.raises(DataError, match="is no JSON"):
        parse_rows(b"\xff", limit=1)


def test_others_get_their_turn_while_a_long_body_is_read() -> None:
    """A parser in one call leaves no turn at all; this one gives many."""
    body = json.dumps({"rows": [[0.125] * 8] * 30_000}).encode()
    thread = threading.Thread(target=parse_rows, args=(body,), kwargs={"limit": 30_000})
    thread.start()
    turns = 0
    while thread.is_alive():
        time.sleep(0.0005)
        turns += 1
    assert turns > 8


def test_numbers_beyond_all_bounds_become_infinite() -> None:
    """They are refused by name where channels are known."""
    found = parse_rows(b'{"rows": [[1e400, -1e400]]}', limit=1)
    np.testing.assert_array_equal(found.flat, [np.inf, -np.inf])
