"""Scores over HTTP: the numbers of predict.py, together with others or alone, and clear refusals."""

import base64
import io
import json
import struct
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
import tifffile
from fastapi.testclient import TestClient
from omegaconf import OmegaConf

from tocsin.checkpoints import read_checkpoint
from tocsin.prediction import predict

SERIES, IMAGES = "/v1/models/mae--series/score", "/v1/models/gaussian--folder/score"


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


# --- images -------------------------------------------------------------------------------------------------


@pytest.fixture
def files(drawn: Path) -> list[Path]:
    return sorted((drawn / "images" / "test").glob("*/*.png"))[2:6]  # two good ones, two with a spot


def encoded(shape: tuple[int, ...], suffix: str = ".png") -> bytes:
    return bytes(cv2.imencode(suffix, np.zeros(shape, np.uint8))[1].tobytes())


def test_images_together_and_alone_score_as_predict_does(
    client: TestClient, files: list[Path], models: Path, tmp_path: Path
) -> None:
    parts = [("images", (path.name, path.read_bytes(), "image/png")) for path in files]
    answer = client.post(IMAGES, files=parts, params={"heatmap": True}).json()
    checkpoint = models / "gaussian" / "folder" / "checkpoints" / "best.ckpt"
    cfg = OmegaConf.create(read_checkpoint(checkpoint)["config"])
    for path in files:
        (tmp_path / f"{path.parent.name}{path.name}").write_bytes(path.read_bytes())
    more = {"ckpt_path": str(checkpoint), "input": str(tmp_path), "output": str(tmp_path / "scores.csv")}
    predict(OmegaConf.merge(cfg, {**more, "contributions": True}))  # type: ignore[arg-type]
    table = pd.read_csv(tmp_path / "scores.csv")
    np.testing.assert_allclose(answer["scores"], table["score"], rtol=1e-5)
    assert answer["verdicts"] == table["is_anomaly"].astype(bool).tolist() == [False, False, True, True]
    picture = cv2.imdecode(np.frombuffer(base64.b64decode(answer["heatmaps"][2]), np.uint8), -1)
    overlay = cv2.imread(str(tmp_path / "overlays" / f"spot{files[2].name}"), -1)
    np.testing.assert_array_equal(picture, overlay)
    alone = client.post(IMAGES, content=files[2].read_bytes(), headers={"content-type": "image/png"}).json()
    assert alone["scores"] == pytest.approx([answer["scores"][2]], rel=1e-6)
    assert "heatmaps" not in alone


def test_the_heat_map_itself(client: TestClient, files: list[Path]) -> None:
    headers = {"content-type": "image/png", "accept": "image/png"}
    answer = client.post(IMAGES, content=files[2].read_bytes(), headers=headers)
    assert answer.headers["content-type"] == "image/png"
    assert cv2.imdecode(np.frombuffer(answer.content, np.uint8), -1).shape == (24, 40, 3)


def huge_png() -> bytes:
    """A header that claims 100 000 x 100 000 pixels, and hardly any data."""
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0),
        b"IDAT": zlib.compress(b"0"),
        b"IEND": b"",
    }
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks.items()
    )


def tiff_bomb() -> bytes:
    """20 x 20 pixels by its header, and a strip that unpacks to 64 MB."""
    file = io.BytesIO()
    tifffile.imwrite(file, np.zeros((20, 20), np.uint8), compression=None)
    data = bytearray(file.getvalue())
    with tifffile.TiffFile(io.BytesIO(bytes(data))) as tiff:
        tags = tiff.pages.first.tags
        places = {name: tags[name].valueoffset for name in ("Compression", "StripOffsets", "StripByteCounts")}
    strip = zlib.compress(bytes(64 << 20))
    struct.pack_into("<H", data, places["Compression"], 8)
    struct.pack_into("<I", data, places["StripOffsets"], len(data))
    struct.pack_into("<I", data, places["StripByteCounts"], len(strip))
    return bytes(data) + strip


def many_pages() -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, np.zeros((20, 20, 20), np.uint8), photometric="minisblack")
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (encoded((80, 80)), "6400 pixels, more than limits.pixels=4000"),
        (encoded((80, 80), ".jpg"), "6400 pixels, more than limits.pixels=4000"),
        (huge_png(), "more pixels"),
        (many_pages(), "8000 pixels, more than"),
        (tiff_bomb(), "a strip holds more than its part"),
        (b"II*\0" + b"\xff" * 50, "damaged or no TIFF"),
        (b"no image", "no image that can be read"),
        (encoded((20, 20))[:60], "damaged or no image"),
        (b"", "no image that can be read"),
    ],
)
def test_images_that_are_none_or_too_large_are_refused(data: bytes, message: str, client: TestClient) -> None:
    begin = time.monotonic()
    answer = client.post(IMAGES, content=data, headers={"content-type": "image/png"})
    assert message in error_of(answer)
    assert answer.status_code == 422
    assert time.monotonic() - begin < 5


def test_requests_for_images_that_do_not_fit_are_refused(client: TestClient) -> None:
    one = ("images", ("a.png", encoded((20, 20)), "image/png"))
    answer = client.post(IMAGES, json={"rows": []})
    assert (answer.status_code, "this model reads images" in error_of(answer)) == (415, True)
    assert client.post(IMAGES, files=[one] * 5).status_code == 400  # limits.images is 4
    answer = client.post(IMAGES, files=[one, one], headers={"accept": "image/png"})
    assert (answer.status_code, "2 images, but image/png holds one" in error_of(answer)) == (406, True)
    answer = client.post(IMAGES, data={"images": "text"}, files=[one])
    assert "nothing else" in error_of(answer)


def test_a_model_is_replaced_when_its_file_changes(
    client: TestClient, files: list[Path], models: Path
) -> None:
    import torch

    def threshold() -> float:
        headers = {"content-type": "image/png"}
        return float(
            json.loads(client.post(IMAGES, content=files[0].read_bytes(), headers=headers).text)["threshold"]
        )

    path = models / "gaussian" / "folder" / "checkpoints" / "best.ckpt"
    whole = path.read_bytes()
    before = threshold()
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["state_dict"]["image_threshold"].fill_(123.0)
    torch.save(checkpoint, path)
    try:
        assert before != 123.0
        assert threshold() == 123.0
    finally:
        path.write_bytes(whole)
