"""Images over HTTP: the scores of predict.py, together with others or alone, and clear refusals."""

import base64
import io
import json
import struct
import time
import zlib
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from fastapi.testclient import TestClient
from omegaconf import OmegaConf
from test_scores import error_of

from tocsin.checkpoints import read_checkpoint
from tocsin.prediction import predict

IMAGES = "/v1/models/gaussian--folder/score"


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
