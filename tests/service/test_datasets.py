"""Data sets over HTTP: what goes in comes out, hostile archives leave nothing, rows and folders always agree."""

import io
import json
import os
import signal
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from httpx import Response
from sqlalchemy import Engine, event, text
from starlette.testclient import TestClient
from uploads import coco, coco_files, picture, yolo_files, zipped

from tocsin.data.catalog_reader import read_catalog
from tocsin.service import datasets
from tocsin.service.answers import Refused
from tocsin.service.app import create_app
from tocsin.service.datasets import tidy
from tocsin.service.settings import Limits, Settings


def upload(client: TestClient, archive: bytes, name: str = "street") -> Response:
    return client.post("/v1/datasets", data={"name": name}, files={"file": ("a.zip", archive)})


def stored(settings: Settings) -> list[str]:
    """What lies in the folder of data sets."""
    place = settings.folder / "datasets"
    return sorted(path.name for path in place.iterdir()) if place.is_dir() else []


def refused(client: TestClient, settings: Settings, archive: bytes, status: int, message: str) -> None:
    answer = upload(client, archive)
    assert (answer.status_code, message in answer.json()["error"]) == (status, True), answer.text
    assert list(answer.json()) == ["error"]
    assert str(settings.folder) not in answer.text
    assert stored(settings) == []
    assert client.get("/v1/datasets").json() == []


# --- what goes in comes out ---------------------------------------------------------------------------------


@pytest.mark.parametrize("files", [coco_files(), coco_files(prefix="my data/"), yolo_files()])
def test_upload_list_read_and_delete(
    server: TestClient, settings: Settings, files: dict[str, bytes | str]
) -> None:
    answer = upload(server, zipped(files))
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == "/v1/datasets/street"
    row = answer.json()
    assert row.pop("imported").endswith("Z")
    assert row == {"name": "street", "images": 2, "annotations": 2, "categories": ["person", "dog"]}
    assert [item["name"] for item in server.get("/v1/datasets").json()] == ["street"]
    found = read_catalog(settings.database, dataset="street", category="dog")
    assert [path.relative_to(settings.folder).as_posix() for path in found.paths] == [
        "datasets/street/images/a.png",
        "datasets/street/images/sub/b.png",
    ]
    assert found.boxes == pytest.approx(np.array([[30, 5, 50, 35]]), abs=1e-3)
    assert found.owner.tolist() == [0]
    assert server.delete("/v1/datasets/street").status_code == 204
    assert server.get("/v1/datasets").json() == []
    assert stored(settings) == []
    assert upload(server, zipped(files)).status_code == 201  # the name is free again


def test_only_what_a_data_set_needs_is_unpacked(server: TestClient, settings: Settings) -> None:
    files = coco_files() | {
        "README.md": "hello",
        "images/notes.txt": "no",
        "__MACOSX/images/._a.png": b"\0",
        "x.py": "",
    }
    assert upload(server, zipped(files)).status_code == 201
    root = settings.folder / "datasets" / "street"
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    assert names == ["images/a.png", "images/sub/b.png", "instances.json"]


def test_the_only_json_file_may_have_any_name(server: TestClient) -> None:
    files = coco_files()
    files["labels of mine.json"] = files.pop("instances.json")
    assert upload(server, zipped(files)).json()["annotations"] == 2


def test_a_name_is_taken_once(server: TestClient, settings: Settings) -> None:
    archive = zipped(coco_files())
    assert upload(server, archive).status_code == 201
    answer = upload(server, archive)
    assert (answer.status_code, answer.json()) == (
        409,
        {"error": "there is a data set 'street' already; delete it first, or choose another name"},
    )
    assert stored(settings) == ["street"]
    assert len(server.get("/v1/datasets").json()) == 1


@pytest.mark.parametrize(
    "name", ["", "..", ".incoming-x", "a/b", "a b", "x" * 65, "x'; DROP TABLE images; --", "ä"]
)
def test_names_that_are_none(server: TestClient, settings: Settings, name: str) -> None:
    answer = upload(server, zipped(coco_files()), name)
    assert answer.status_code == 422
    assert "body.name" in answer.json()["error"]
    assert stored(settings) == []


def test_of_uploads_at_once_one_gets_the_name(server: TestClient, settings: Settings) -> None:
    archive = zipped(coco_files())
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: upload(server, archive), range(6)))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409, 409, 409]
    assert stored(settings) == ["street"]
    assert [row["annotations"] for row in server.get("/v1/datasets").json()] == [2]
    with ThreadPoolExecutor(6) as pool:
        gone = list(pool.map(lambda _: server.delete("/v1/datasets/street").status_code, range(6)))
    assert gone.count(204) == 1
    assert set(gone) <= {204, 404, 409}
    assert stored(settings) == []


def test_delete_of_none(server: TestClient) -> None:
    for name in ("street", "x'; DROP TABLE datasets; --", "%00", "%ff", ".."):
        assert server.delete(f"/v1/datasets/{name}").status_code in (404, 405)
    assert server.get("/v1/datasets").json() == []


def test_number_of_queries_does_not_grow_with_images(server: TestClient) -> None:
    numbers = []
    for n_images in (2, 40):
        content = {
            "images": [{"id": i, "file_name": f"{i}.png"} for i in range(n_images)],
            "annotations": [{"image_id": i, "category_id": 1, "bbox": [1, 1, 9, 9]} for i in range(n_images)],
            "categories": [{"id": 1, "name": "person"}],
        }
        files = {f"images/{i}.png": picture() for i in range(n_images)}
        sent: list[str] = []

        def note(connection: Any, cursor: Any, statement: str, *more: Any, sent: list[str] = sent) -> None:
            sent.append(statement)

        event.listen(Engine, "before_cursor_execute", note)
        assert (
            upload(server, zipped({"a.json": json.dumps(content), **files}), f"s{n_images}").status_code
            == 201
        )
        event.remove(Engine, "before_cursor_execute", note)
        numbers.append(len(sent))
    assert numbers[0] == numbers[1] <= 16


def test_a_data_set_that_a_job_reads_is_kept(server: TestClient, settings: Settings) -> None:
    upload(server, zipped(coco_files()))
    row = "(1, 'a', '{}', 'street', :state, 0, 0)"
    with server.app.state.engine.begin() as connection:  # type: ignore[attr-defined]
        statement = (
            f"INSERT INTO patch_jobs (number, id, request, dataset, state, deaths, created) VALUES {row}"
        )
        connection.execute(text(statement), {"state": "queued"})
    answer = server.delete("/v1/datasets/street")
    assert (answer.status_code, "is read by a patch job" in answer.text) == (409, True)
    assert (settings.folder / "datasets" / "street" / "images" / "a.png").is_file()
    with server.app.state.engine.begin() as connection:  # type: ignore[attr-defined]
        connection.execute(text("UPDATE patch_jobs SET state = 'finished'"))
    assert server.delete("/v1/datasets/street").status_code == 204


# --- hostile archives ---------------------------------------------------------------------------------------


def entry(name: str, **changed: Any) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = 0o100644 << 16
    for key, value in changed.items():
        setattr(info, key, value)
    return info


def with_entry(info: zipfile.ZipInfo, content: bytes = b"x") -> bytes:
    target = io.BytesIO(zipped(coco_files()))
    with zipfile.ZipFile(target, "a") as archive:
        archive.writestr(info, content)
    return target.getvalue()


@pytest.mark.parametrize(
    "name",
    [
        "../evil.png",
        "images/../../evil.png",
        "/etc/evil.png",
        "images//evil.png",
        "images/./evil.png",
        "images\\..\\evil.png",
        "C:/evil.png",
        "images/a\n.png",
        "images/" + "x" * 300 + ".png",
        "images/" + "x/" * 20 + "a.png",
    ],
)
def test_paths_that_lead_elsewhere(server: TestClient, settings: Settings, name: str) -> None:
    refused(server, settings, with_entry(entry(name)), 422, "the archive names a file ")
    assert not list(settings.folder.parent.rglob("evil.png"))


def test_a_name_that_goes_on_after_its_end(server: TestClient, settings: Settings) -> None:
    archive = with_entry(entry("images/c.png")).replace(b"images/c.png", b"images/c.p\0g")
    refused(server, settings, archive, 422, "the archive names a file 'images/c.p\\x00g'")


@pytest.mark.parametrize(
    ("archive", "status", "message"),
    [
        (
            lambda: with_entry(entry("images/c.png", external_attr=0o120777 << 16), b"/etc/passwd"),
            422,
            "is a link",
        ),
        (
            lambda: with_entry(entry("images/c.png", external_attr=0o020666 << 16)),
            422,
            "is a link or no plain file",
        ),
        (lambda: with_entry(entry("images/A.png")), 422, "'images/A.png' is in the archive twice"),
        (lambda: with_entry(entry("images/a.png/b.png")), 422, "lies in what is a file"),
        (lambda: with_entry(entry("more.zip")), 422, "is an archive in the archive"),
        (lambda: with_entry(entry("images/c.png", compress_type=zipfile.ZIP_BZIP2)), 422, "packed in a way"),
        (lambda: zipped(coco_files())[:-30], 422, "no zip archive"),
        (lambda: zipped(coco_files()) + b"\0" * 22, 422, "no zip archive"),
        (lambda: b"hello", 422, "no zip archive"),
        (lambda: b"", 422, "no zip archive"),
        (lambda: zipped({}), 422, "the archive is empty"),
        (lambda: zipped({"images/a.png": picture()}), 422, "it has neither"),
        (
            lambda: zipped({"a.json": "{}", "b.json": "{}", "images/a.png": picture()}),
            422,
            "it has a.json, b.json",
        ),
        (lambda: zipped({"instances.json": json.dumps(coco())}), 422, "no images in images/"),
    ],
)
def test_archives_that_are_not_taken(
    server: TestClient, settings: Settings, archive: Callable[[], bytes], status: int, message: str
) -> None:
    refused(server, settings, archive(), status, message)


def test_encrypted(server: TestClient, settings: Settings) -> None:
    archive = bytearray(zipped(coco_files()))
    place = archive.find(b"PK\1\2")
    archive[place + 8] |= 1  # the flag in the list of files
    refused(server, settings, bytes(archive), 422, "is encrypted")


def test_damaged(server: TestClient, settings: Settings) -> None:
    files = coco_files()
    archive = bytearray(zipped(files, compression=zipfile.ZIP_STORED))
    place = archive.find(bytes(files["images/a.png"]))  # type: ignore[arg-type]
    archive[place + 2000] ^= 1
    refused(server, settings, bytes(archive), 422, "the archive is damaged: Bad CRC-32")


def small(settings: Settings, **limits: Any) -> Settings:
    return replace(settings, limits=replace(settings.limits, **limits))


def bomb(settings: Settings, archive: bytes, status: int, message: str, **limits: Any) -> None:
    settings = small(settings, **limits)
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
        refused(client, settings, archive, status, message)


def test_bombs(settings: Settings) -> None:
    zeros = coco_files() | {"images/c.png": bytes(3 << 20)}
    bomb(settings, zipped(zeros), 413, "3 MB large when unpacked, more than 2", unpacked_mb=2)
    large = coco_files() | {"images/c.png": bytes(70 << 20)}
    bomb(settings, zipped(large), 413, "times when unpacked")
    bomb(settings, zipped({f"{i}.png": "" for i in range(9)}), 413, "holds 9 files, more than 8", files=8)
    bomb(settings, zipped(coco_files()), 413, "take 0 MB, more than 1e-06", labels_mb=1e-6)


def test_a_file_that_is_longer_than_it_claims(server: TestClient, settings: Settings) -> None:
    archive = bytearray(zipped(coco_files() | {"images/z.png": bytes(1 << 20)}))
    for mark, offset in ((b"PK\1\2", 24), (b"PK\3\4", 22)):
        place = archive.rfind(mark)
        archive[place + offset : place + offset + 4] = struct.pack("<L", 100)
    refused(server, settings, bytes(archive), 422, "the archive is damaged")


def test_files_that_share_their_bytes(server: TestClient, settings: Settings) -> None:
    """As in Fifield's bombs: all entries of the list point to one file."""
    one = zipped({"images/0.png": picture(200, 200)})
    start, end = one.find(b"PK\1\2"), one.find(b"PK\5\6")
    listed = b"".join(one[start:end].replace(b"0.png", b"%d.png" % i) for i in range(4))
    last = bytearray(one[end:])
    last[8:16] = struct.pack("<HHL", 4, 4, len(listed))
    refused(server, settings, one[:start] + listed + bytes(last), 422, "files of it share their bytes")


def test_a_list_longer_than_its_count_says(server: TestClient, settings: Settings) -> None:
    """The record at the end claims one file, the list it points to holds many."""
    archive = bytearray(zipped({f"images/{i}.png": b"" for i in range(5000)}))
    archive[-14:-10] = struct.pack("<HH", 1, 1)
    refused(server, settings, bytes(archive), 413, "holds 1 files")


# --- hostile contents ---------------------------------------------------------------------------------------


def huge_png() -> bytes:
    """A header that claims 60000 x 60000 pixels."""
    content = bytearray(picture())
    content[16:24] = struct.pack(">LL", 60_000, 60_000)
    content[29:33] = struct.pack(">L", zlib.crc32(content[12:29]))
    return bytes(content)


@pytest.mark.parametrize(
    ("name", "content", "status", "message"),
    [
        ("images/a.png", huge_png(), 413, "images/a.png claims more than 50000000 pixels"),
        ("images/a.png", b"#!/bin/sh\n", 422, "images/a.png is damaged or no image"),
        ("images/a.png", b"", 422, "images/a.png is damaged or no image"),
        ("images/a.png", b"GIF89a" + bytes(50), 422, "images/a.png is damaged or no image"),
        (
            "images/a.png",
            picture(41, 60),
            422,
            "images/a.png is 60 x 41 pixels, but its boxes were drawn on 60 x 40",
        ),
        ("instances.json", "[1]", 422, "instances.json: is no COCO instances file"),
        ("instances.json", "{", 422, "instances.json: is no JSON file"),
        ("instances.json", "[" * 100_000, 422, "instances.json: is no JSON file"),
        ("instances.json", b"\xff\xfe\x00", 422, "instances.json: is no JSON file"),
        ("classes.txt", b"\xff", 422, "classes.txt: cannot be read"),
        ("labels/a.txt", b"\xff", 422, "labels/a.txt: cannot be read"),
        ("labels/a.txt", "1e300 0.5 0.5 0.1 0.1", 422, "labels/a.txt, line 1: the class is 1e300"),
        ("labels/a.txt", "0 0.5 0.5 0 0.1", 422, "labels/a.txt, line 1: the box is 0 x 4 pixels large"),
        ("data.yaml", "a: &a [x]\nnames: [*a, *a]", 422, "data.yaml: holds an alias"),
        ("data.yaml", "names: [" * 5000, 422, "data.yaml: cannot be read"),
        ("data.yaml", "names: [[a]]", 422, "data.yaml: has no key `names`"),
    ],
)
def test_contents_that_are_not_taken(
    server: TestClient, settings: Settings, name: str, content: bytes | str, status: int, message: str
) -> None:
    files = coco_files() if name.endswith(".json") or name.startswith("images") else yolo_files()
    if name == "data.yaml":
        del files["classes.txt"]
    refused(server, settings, zipped(files | {name: content}), status, message)


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("images", "file_name", "../a.png", "leads out of images"),
        ("images", "file_name", "/etc/passwd", "leads out of images"),
        ("images", "file_name", "x" * 5000, "1 of 2 images are not in"),
        ("images", "file_name", "a\ud800.png", "1 of 2 images are not in"),
        ("images", "file_name", 3, "images[0] (id 7) has no 'file_name'"),
        ("images", "id", 10**30, "has id=a huge number; a whole number"),
        ("images", "id", "1", "has id='1'"),
        ("images", "id", {"a": 1}, "has id=dict"),
        ("images", "width", -1, "has a height or width below 1"),
        ("annotations", "bbox", [1, 2, 3], "four numbers"),
        ("annotations", "bbox", [1, 2, 10**400, 3], "four numbers"),
        ("annotations", "bbox", [1, 2, float("nan"), 3], "NaN"),
        ("annotations", "bbox", ["1", 2, 3, 4], "four numbers"),
        ("annotations", "bbox", None, "has bbox=None"),
        ("annotations", "category_id", 99, "refers to category_id=99, which is not in the file"),
        ("annotations", "image_id", True, "has image_id=True"),
        ("categories", "name", "\ud800", "holds characters that are no text"),
        ("categories", "name", "a\0", "holds characters that are no text"),
        ("categories", "id", 18, "category id 18 is given 2 times"),
    ],
)
def test_wrong_types_and_values_in_json(
    server: TestClient, settings: Settings, section: str, key: str, value: Any, message: str
) -> None:
    content = coco()
    content[section][0][key] = value
    content["annotations"][0]["segmentation"] = {"counts": "\0" * 9, "size": [1 << 30, 1 << 30]}
    refused(server, settings, zipped(coco_files(content)), 422, message)


# --- killed in between --------------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from pathlib import Path
from tocsin.service import datasets
from tocsin.service.answers import Refused
from tocsin.service.database import open_database
from tocsin.service.settings import Settings

folder, archive, where = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
settings = Settings(folder=folder, database=f"sqlite:///{folder}/service.db")
engine = open_database(settings.database)
kill = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)
if where == "unpacked":
    datasets.check_pictures = kill
if where == "written":
    datasets.Path.rename = kill
if where == "moved":
    from sqlalchemy import Connection
    Connection.commit = kill
if where == "deleted":
    datasets.shutil.rmtree = kill
    datasets.remove(engine, settings, "street")
datasets.add(engine, settings, "street", open(archive, "rb"))
"""


SLOW = pytest.mark.slow  # a second or two each, for what they import


@pytest.mark.parametrize(
    "where",
    ["moved", *(pytest.param(name, marks=SLOW) for name in ("unpacked", "written", "deleted"))],
)
def test_killed_in_between(settings: Settings, tmp_path: Path, where: str) -> None:
    (tmp_path / "a.zip").write_bytes(zipped(coco_files()))
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
        if where == "deleted":
            assert upload(client, zipped(coco_files())).status_code == 201
        command = [sys.executable, "-c", KILLED, str(settings.folder), str(tmp_path / "a.zip"), where]
        assert subprocess.run(command, env=os.environ, check=False).returncode == -signal.SIGKILL
        assert len(stored(settings)) == 1  # something is left,
        assert client.get("/v1/datasets").json() == []
        if where != "deleted":
            assert upload(client, zipped(coco_files())).status_code == 201  # which is in nobody's way,
            assert client.delete("/v1/datasets/street").status_code == 204
    with TestClient(create_app(settings), base_url="http://127.0.0.1"):
        assert stored(settings) == []  # and gone after the next start


def test_folders_in_work_are_left_alone(server: TestClient, settings: Settings) -> None:
    place = settings.folder / "datasets"
    place.mkdir()
    (place / "orphan").mkdir()
    with datasets._incoming(place) as folder:
        tidy(server.app.state.engine, settings)  # type: ignore[attr-defined]
        assert stored(settings) == [folder.name]
    assert stored(settings) == []


def test_a_folder_that_is_held_or_gone_is_not_touched(server: TestClient, settings: Settings) -> None:
    upload(server, zipped(coco_files()))
    folder = settings.folder / "datasets" / "street"
    with datasets._held(folder):
        answer = server.delete("/v1/datasets/street")
        assert (answer.status_code, "is being uploaded or deleted; try again" in answer.text) == (409, True)
    assert len(server.get("/v1/datasets").json()) == 1
    with (
        pytest.raises(Refused, match="'none' is being uploaded or deleted"),
        datasets._held(folder.parent / "none"),
    ):
        pass


def test_limits_have_defaults_that_fit_each_other() -> None:
    limits = Limits()
    assert limits.labels_mb < limits.upload_mb < limits.unpacked_mb
