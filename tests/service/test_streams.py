"""Rows over a WebSocket: the scores of predict.py row by row, in any spelling, and clear ends."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient
from starlette.testclient import WebSocketTestSession
from starlette.websockets import WebSocketDisconnect

from tocsin.errors import DataError
from tocsin.service.app import create_app
from tocsin.service.loaded_models import load_model
from tocsin.service.model_store import ModelStore
from tocsin.service.series_scores import SeriesModel, StreamWork
from tocsin.service.settings import Settings
from tocsin.service.streams import row_of
from tocsin.streaming import RowScorer

STREAM = "/v1/models/mae--series/stream"


@pytest.fixture(scope="module")
def rows(drawn: Path) -> np.ndarray:
    """(420, 3) float32 rows; an anomaly begins at 300."""
    return pd.read_csv(drawn / "test.csv")[["a", "b", "c"]].to_numpy(np.float32)[:420]


@pytest.fixture(scope="module")
def model(models: Path) -> SeriesModel:
    loaded = load_model(ModelStore(models).find("mae--series"), "cpu")
    assert isinstance(loaded, SeriesModel)
    return loaded


@pytest.fixture(scope="module")
def one_by_one(rows: np.ndarray, model: SeriesModel) -> list[dict[str, Any]]:
    """What a row scorer says of each row."""
    scorer = RowScorer(model.trained)
    return [{"score": scorer.push(row), "alarm": scorer.alarm} for row in rows]


def assert_same(answers: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    assert [one["alarm"] for one in answers] == [one["alarm"] for one in expected]
    scores, wanted = (
        [np.nan if one["score"] is None else one["score"] for one in many] for many in (answers, expected)
    )
    np.testing.assert_allclose(scores, wanted, atol=1e-5)


def end_of(session: WebSocketTestSession) -> tuple[str, int]:
    """What a stream says last, and the code it closes with."""
    error = str(session.receive_json()["error"])
    with pytest.raises(WebSocketDisconnect) as closed:
        session.receive_json()
    return error, closed.value.code


@pytest.mark.parametrize(
    "spell",
    [
        lambda row: json.dumps(row.tolist()),
        lambda row: json.dumps(dict(zip("cab", row[[2, 0, 1]].tolist(), strict=True))),
        lambda row: ",".join(map(str, row.tolist())),
    ],
    ids=["list", "object", "csv"],
)
def test_a_row_in_a_score_out(
    spell: Callable[[np.ndarray], str], client: TestClient, rows: np.ndarray, one_by_one: list[dict[str, Any]]
) -> None:
    answers = []
    with client.websocket_connect(STREAM) as session:
        for row in rows[:50]:
            session.send_text(spell(row))
            answers.append(session.receive_json())
    assert [one["score"] for one in answers[:39]] == [None] * 39
    assert_same(answers, one_by_one[:50])


def test_rows_sent_all_at_once_score_as_one_by_one(
    client: TestClient, rows: np.ndarray, one_by_one: list[dict[str, Any]]
) -> None:
    with client.websocket_connect(STREAM) as first, client.websocket_connect(STREAM) as second:
        for row in rows:
            first.send_text(json.dumps(row.tolist()))
            second.send_text(json.dumps(row.tolist()))
        for session in (first, second):
            assert_same([session.receive_json() for _ in rows], one_by_one)
    assert any(one["alarm"] for one in one_by_one[300:330])  # after min_duration, and not before the anomaly
    above = [one["score"] is not None and one["score"] >= 1.0 for one in one_by_one]
    assert sum(above) > sum(one["alarm"] for one in one_by_one)


@pytest.mark.parametrize("sizes", [[1] * 20, [7, 13, 100, 300], [420], [39, 1, 380]])
def test_blocks_of_any_size_give_the_same(
    sizes: list[int], rows: np.ndarray, model: SeriesModel, one_by_one: list[dict[str, Any]]
) -> None:
    scorer = RowScorer(model.trained)
    answers: list[dict[str, Any]] = []
    for block in np.split(rows[: sum(sizes)], np.cumsum(sizes)[:-1]):
        work = StreamWork(np.stack([scorer.fill(row) for row in block]), scorer)
        while work.remaining:
            model.step([(work, min(5, work.remaining))])
        empty = len(block) - len(work.scores)
        answers += [{"score": None, "alarm": False}] * empty
        answers += [{"score": s, "alarm": a} for s, a in zip(work.scores, work.alarms, strict=True)]
    assert_same(answers, one_by_one[: sum(sizes)])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "a row has 2 values, but there are 3 channels"),
        ("[1, 2", "a row is no JSON"),
        ("[" * 10_000, "a row is no JSON"),
        ("", "a row has 0 values"),
        ("1\r2,3", "a row is no line of CSV"),
        ("1,2,x", "channel c: 'x' is no number"),
        ("[1, 2, true]", "channel c: 'True' is no number"),
        ("[1, 2, [3]]", "is no number"),
        ("[1, 2, 1e999]", "channel c is infinite"),
        (f"[1, 2, 1{'0' * 400}]", "is no number"),
        ('{"a": 1, "b": 2}', "lacks the channels c"),
        ('{"a": 1, "b": 2, "d": 2}', "no channel 'd'"),
        (" " * 70_000, "a row has 70000 characters"),
    ],
)
def test_rows_that_are_none_are_refused(text: str, message: str) -> None:
    with pytest.raises(DataError) as refused:
        row_of(text, ["a", "b", "c"])
    assert message in str(refused.value)


def test_missing_values_of_a_row() -> None:
    np.testing.assert_array_equal(row_of("1,,3", ["a", "b", "c"]), [1, np.nan, 3])
    np.testing.assert_array_equal(row_of("[1, null, 3]", ["a", "b", "c"]), [1, np.nan, 3])


def test_a_bad_row_ends_the_stream_after_those_before_it(client: TestClient) -> None:
    with client.websocket_connect(STREAM) as session:
        for text in ("1,2,3", "1,2,3", "1,2"):
            session.send_text(text)
        assert [session.receive_json()["score"] for _ in range(2)] == [None, None]
        error, code = end_of(session)
    assert "a row has 2 values" in error
    assert code == 1007


def test_a_channel_that_is_missing_for_too_long_ends_the_stream(client: TestClient) -> None:
    with client.websocket_connect(STREAM) as session:
        for text in ["1,2,3", *["1,,3"] * 6]:
            session.send_text(text)
        for _ in range(6):
            session.receive_json()
        assert "channel b is missing for 6 rows, and data.fill_limit is 5" in end_of(session)[0]


def test_bytes_end_the_stream(client: TestClient) -> None:
    with client.websocket_connect(STREAM) as session:
        session.send_bytes(b"1,2,3")
        assert end_of(session) == ("send rows as text", 1007)


@pytest.mark.parametrize(
    ("name", "message"), [("nothing", "there is no model 'nothing'"), ("gaussian--folder", "reads images")]
)
def test_streams_of_other_models_are_refused(name: str, message: str, client: TestClient) -> None:
    with client.websocket_connect(f"/v1/models/{name}/stream") as session:
        error, code = end_of(session)
    assert message in error
    assert code == 1008


def test_no_more_streams_than_allowed_and_closed_ones_do_not_count(client: TestClient) -> None:
    for _ in range(3):
        with client.websocket_connect(STREAM) as first, client.websocket_connect(STREAM) as second:
            for session in (first, second):
                session.send_text("1,2,3")
                assert session.receive_json() == {"score": None, "alarm": False}
            with client.websocket_connect(STREAM) as third:
                error, code = end_of(third)
            assert "2 streams are open" in error
            assert code == 1013


def test_a_silent_stream_is_closed(client: TestClient) -> None:
    app: Any = client.app
    settings: Settings = app.state.settings
    quick = replace(settings, limits=replace(settings.limits, idle_s=0.05))
    with TestClient(create_app(quick)) as other, other.websocket_connect(STREAM) as session:
        error, code = end_of(session)
    assert "no row came for 0.05 s" in error
    assert code == 1001
