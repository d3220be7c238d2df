"""Scores over HTTP: the numbers of predict.py, together with others or alone, and clear refusals."""

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient
from omegaconf import OmegaConf

from tocsin.checkpoints import read_checkpoint
from tocsin.prediction import predict

SERIES = "/v1/models/mae--series/score"


def rows_of(path: Path) -> tuple[list[str], list[list[float]]]:
    frame = pd.read_csv(path)[["a", "b", "c"]]
    return list(frame.columns), frame.to_numpy().tolist()


def error_of(answer: Any) -> str:
    assert 400 <= answer.status_code < 500, answer.text
    text = str(answer.json()["error"])
    assert "\n" not in text
    return text


@pytest.fixture(scope="module")
def predicted(models: Path, drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """What predict.py says of test.csv."""
    checkpoint = models / "mae" / "series" / "checkpoints" / "best.ckpt"
    cfg = OmegaConf.create(read_checkpoint(checkpoint)["config"])
    output = tmp_path_factory.mktemp("scores") / "scores.npz"
    more = {"ckpt_path": str(checkpoint), "input": str(drawn / "test.csv"), "output": str(output)}
    cfg.logger = None
    predict(OmegaConf.merge(cfg, {**more, "contributions": True}))  # type: ignore[arg-type]
    with np.load(output) as arrays:
        return pd.DataFrame(dict(arrays))


def assert_as_predicted(answer: dict[str, Any], predicted: pd.DataFrame) -> None:
    np.testing.assert_allclose(answer["scores"], predicted["score"], atol=1e-6)
    assert answer["verdicts"] == predicted["is_anomaly"].astype(bool).tolist()


def test_csv_gives_what_predict_gives(client: TestClient, drawn: Path, predicted: pd.DataFrame) -> None:
    body = (drawn / "test.csv").read_bytes()
    answer = client.post(
        SERIES,
        content=body,
        headers={"content-type": "text/csv; charset=utf-8"},
        params={"contributions": True},
    ).json()
    assert_as_predicted(answer, predicted)
    assert predicted["is_anomaly"].sum() > 0
    scores, threshold = np.array(answer["scores"]), answer["threshold"]
    assert (scores >= threshold).sum() > sum(answer["verdicts"])  # min_duration
    assert answer["timestamps"][1].startswith("2026-01-01T00:01")
    for name in "abc":
        np.testing.assert_allclose(
            answer["contributions"][name], predicted[f"contribution_{name}"], atol=1e-5
        )
    samples = answer["samples"]
    assert samples["begin"][:2] == [0, 40]
    assert samples["verdicts"] == [score >= samples["threshold"] for score in samples["scores"]]


def test_json_rows_in_any_order_of_channels(client: TestClient, drawn: Path, predicted: pd.DataFrame) -> None:
    _, rows = rows_of(drawn / "test.csv")
    assert_as_predicted(client.post(SERIES, json={"rows": rows}).json(), predicted)
    turned = [[c, a, b] for a, b, c in rows]
    assert_as_predicted(
        client.post(SERIES, json={"rows": turned, "channels": ["c", "a", "b"]}).json(), predicted
    )


def test_csv_comes_back_where_it_is_asked_for(
    client: TestClient, drawn: Path, predicted: pd.DataFrame
) -> None:
    headers = {"content-type": "text/csv", "accept": "text/csv"}
    answer = client.post(SERIES, content=(drawn / "test.csv").read_bytes(), headers=headers)
    table = pd.read_csv(io.BytesIO(answer.content))
    assert list(table.columns) == ["timestamp", "score", "is_anomaly"]
    np.testing.assert_allclose(table["score"], predicted["score"], rtol=1e-5)


def test_missing_values_are_filled_as_far_as_training_allowed(client: TestClient, drawn: Path) -> None:
    _, rows = rows_of(drawn / "test.csv")
    whole = rows[:60]
    gap: list[list[float | None]] = [list(row) for row in whole]
    gap[20][1] = None
    whole[20][1] = whole[19][1]
    scores = [client.post(SERIES, json={"rows": one}).json()["scores"] for one in (whole, gap)]
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-6)
    for row in gap[21:]:
        row[1] = None
    answer = client.post(SERIES, json={"rows": gap})
    assert "'b' misses 40 steps in a row from row 20" in error_of(answer)


def test_together_as_alone(client: TestClient, drawn: Path) -> None:
    """Requests of several lengths, one that needs many passes among them, at once and one after another."""
    _, rows = rows_of(drawn / "test.csv")
    parts = [rows[i : i + n] for i, n in enumerate([40, 40, 41, 90, 40, 90, 900, 40, 41])]

    def post(part: list[list[float]]) -> Any:
        return client.post(SERIES, json={"rows": part}, params={"contributions": True}).json()

    alone = [post(part) for part in parts]
    with ThreadPoolExecutor(len(parts)) as pool:
        together = list(pool.map(post, parts))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one["scores"], other["scores"], atol=1e-5)
        np.testing.assert_allclose(one["contributions"]["b"], other["contributions"]["b"], atol=1e-4)
        assert one["verdicts"] == other["verdicts"]
    assert len({len(one["scores"]) for one in together}) == 4


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"rows": [[1.0, 2, 3]] * 39}, 422, "39 rows, fewer than the 40 of a window"),
        ({"rows": []}, 422, "0 rows, fewer than the 40"),
        ({"rows": [[1.0, 2]] * 40}, 422, r"row 0 \(from 0\) has 2 values, but there are 3 channels"),
        ({"rows": [[1.0, 2, 3]] * 2001}, 422, "more rows than limits.rows=2000"),
        ({"rows": [[1.0, 2]] * 40, "channels": ["a", "b"]}, 422, "lacks the channels c"),
        ({"rows": [[1.0, 2, 3]] * 40, "channels": ["a", "b", "d"]}, 422, "the model has no channel 'd'"),
        ({"rows": [[1.0, 2, 3, 3]] * 40, "channels": ["a", "b", "c", "c"]}, 422, "a channel is named twice"),
        ({"rows": [[1.0, 2, "x"]] * 40}, 422, "rows.0.2: Input should be a valid number"),
        ({"rows": [[1.0, 2, 1e300]] * 40}, 422, "channel 'c'|'c'"),
        ({"row": []}, 422, "there is no key 'row'; there are: channels, rows"),
        ([], 422, "{ is missing at character 0"),
    ],
)
def test_rows_that_cannot_be_scored_are_refused(
    body: object, status: int, message: str, client: TestClient
) -> None:
    answer = client.post(SERIES, json=body)
    assert answer.status_code == status
    assert pd.Series([error_of(answer)]).str.contains(message)[0], answer.text


@pytest.mark.parametrize(
    ("kind", "body", "status", "message"),
    [
        ("text/csv", b"a,b\n" + b"1,2\n" * 50, 422, "'c', which is not there"),
        ("text/csv", b"", 422, "the request: is empty"),
        ("text/csv", b"a,b,c\n" + b"1,2,x\n" * 50, 422, "column 'c' is not numeric"),
        ("text/csv", b"a,b,c\n" + b"1,2,3\n" * 2002, 422, "more rows than limits.rows=2000"),
        ("text/csv", b"\xff\xfe\n", 422, "the request"),
        ("application/json", b"{", 422, "JSON"),
        ("application/json", b" " * (17 << 20), 413, "larger than 16 MB"),
        ("image/png", b"1", 415, "this model reads series"),
    ],
)
def test_bodies_that_cannot_be_read_are_refused(
    kind: str, body: bytes, status: int, message: str, client: TestClient
) -> None:
    answer = client.post(SERIES, content=body, headers={"content-type": kind})
    assert answer.status_code == status
    assert message in error_of(answer)
    assert "/" not in error_of(answer).replace("application/json", "").replace(
        "text/csv", ""
    )  # no path of ours


def test_models_are_listed_and_unknown_ones_named(client: TestClient) -> None:
    listed = client.get("/v1/models").json()
    assert [one["name"] for one in listed] == ["gaussian--folder", "mae--series"]
    assert [one["name"] for one in client.get("/v1/models", params={"kind": "series"}).json()] == [
        "mae--series"
    ]
    answer = client.post("/v1/models/mae--serie/score", json={"rows": []})
    assert answer.status_code == 404
    assert "did you mean mae--series?" in error_of(answer)


def test_the_description_names_every_kind_of_body(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    bodies = paths["/v1/models/{name}/score"]["post"]["requestBody"]["content"]
    assert {"application/json", "text/csv", "image/png", "multipart/form-data"} <= set(bodies)
    assert set(bodies["application/json"]["schema"]["properties"]) == {"rows", "channels"}
