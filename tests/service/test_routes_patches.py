"""Patch jobs over HTTP, without workers: what is asked for waits, and what lies in its folder is shown."""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import create_engine, insert

from tocsin.data.catalog_tables import Base, Category, Dataset
from tocsin.service import queue, routes_patches
from tocsin.service.job_table import JobBase
from tocsin.service.routes_patches import Streams, _counted, router
from tocsin.service.settings import Limits, Settings

REQUEST = {"dataset": "people", "iterations": 3}


@pytest.fixture
def app(tmp_path: Path) -> Iterator[FastAPI]:
    """The routes, a data set of persons and dogs, and one victim."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "a.pt").write_text("")
    app = FastAPI()
    app.include_router(router)
    app.state.settings = Settings(
        folder=tmp_path, models=tmp_path / "models", limits=Limits(queued=2, streams=1)
    )
    app.state.engine = create_engine(f"sqlite:///{tmp_path / 'service.db'}")
    for base in (Base, JobBase):
        base.metadata.create_all(app.state.engine)
    with app.state.engine.begin() as connection:
        row = {
            "id": 1,
            "name": "people",
            "folder": "/x",
            "source": "/x",
            "imported": routes_patches.datetime.now(),
        }
        connection.execute(insert(Dataset), row)
        rows = [{"dataset_id": 1, "number": n, "name": name} for n, name in enumerate(("person", "dog"))]
        connection.execute(insert(Category), rows)
    yield app
    app.state.engine.dispose()


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client


def asked(client: TestClient, **changed: Any) -> dict[str, Any]:
    answer = client.post("/v1/patches", json={**REQUEST, **changed})
    assert answer.status_code == 202, answer.text
    return answer.json()


def folder(app: FastAPI, id: str) -> Path:
    made = app.state.settings.folder / "jobs" / id
    (made / "plots").mkdir(parents=True, exist_ok=True)
    return made


def line(number: int) -> str:
    losses = {"loss": 1.5 / number}
    row = {"iteration": number, "losses": losses, "images_per_s": 4.0, "seconds_left": 2.0, "time": 1.0}
    return json.dumps(row) + "\n"


def finish(app: FastAPI) -> None:
    job = queue.claim(app.state.engine, device="cpu")
    assert job is not None
    assert queue.finish(app.state.engine, job)


def test_what_is_asked_for_waits(client: TestClient) -> None:
    answer = client.post("/v1/patches", json={**REQUEST, "target_class": "Dog", "victim": "a.pt"})
    job = answer.json()
    assert answer.headers["Location"] == f"/v1/patches/{job['id']}"
    assert (job["state"], job["iteration"], job["iterations"]) == ("queued", 0, 3)
    assert job["request"]["victim"] == "a.pt"
    assert job["request"]["backend"] == "native"
    assert client.get(answer.headers["Location"]).json() == job
    assert [row["id"] for row in client.get("/v1/patches").json()] == [job["id"]]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"dataset": "places"}, "there is no dataset places; GET /v1/datasets lists them"),
        ({"target_class": "cat"}, "dataset people has no target_class cat; it has dog, person"),
        ({"victim": "b.pt"}, "victim=b.pt is no .pt file below the models folder"),
        ({"backend": "art", "loss": "box"}, "use backend=native"),
        ({"iterations": 0}, "greater than or equal to 1"),
        ({"colour": 1}, "Extra inputs are not permitted"),
    ],
)
def test_what_cannot_be_made_is_refused(client: TestClient, wrong: dict[str, Any], says: str) -> None:
    answer = client.post("/v1/patches", json={**REQUEST, **wrong})
    assert answer.status_code == 422
    assert says in answer.text
    assert client.get("/v1/patches").json() == []


def test_no_more_jobs_than_the_limit(client: TestClient) -> None:
    asked(client)
    asked(client)
    answer = client.post("/v1/patches", json=REQUEST)
    assert answer.status_code == 429
    assert "2 patch jobs wait or run already" in answer.text


def test_progress_is_shown(app: FastAPI, client: TestClient) -> None:
    id = asked(client)["id"]
    queue.claim(app.state.engine, device="gpu 0 (X)")
    (folder(app, id) / "progress.jsonl").write_text(line(1) + line(2))
    shown = client.get(f"/v1/patches/{id}").json()
    assert (shown["state"], shown["iteration"], shown["losses"]) == ("running", 2, {"loss": 0.75})
    assert (shown["images_per_s"], shown["seconds_left"], shown["device"]) == (4.0, 2.0, "gpu 0 (X)")
    assert shown["started"] >= shown["created"]
    finish_time = client.get(f"/v1/patches/{id}").json()["finished"]
    assert finish_time is None


def test_cancel(app: FastAPI, client: TestClient) -> None:
    waits, runs = asked(client)["id"], asked(client)["id"]
    assert client.delete(f"/v1/patches/{waits}").status_code == 204
    assert queue.claim(app.state.engine, device="cpu").id == runs
    assert client.delete(f"/v1/patches/{runs}").status_code == 202
    assert client.delete(f"/v1/patches/{runs}").status_code == 204
    assert [job["state"] for job in client.get("/v1/patches").json()] == ["cancelled", "cancelled"]


@pytest.mark.parametrize("id", ["0123456789abcdef", "../x", "%00", "x" * 500])
def test_unknown_job_is_named(client: TestClient, id: str) -> None:
    for path in ("", "/events", "/patch.png", "/report", "/pictures/a.png"):
        assert client.get(f"/v1/patches/{id}{path}").status_code == 404
    assert client.delete(f"/v1/patches/{id}").status_code == 404


def test_report_comes_with_the_end(app: FastAPI, client: TestClient) -> None:
    id = asked(client)["id"]
    made = folder(app, id)
    (made / "metrics.json").write_text('{"run": {"git": "x"}, "test": {"ap50_patch": 0.5}}')
    (made / "plots" / "detections.png").write_bytes(b"picture")
    (made / "secret.png").write_bytes(b"secret")
    for path in ("report", "pictures/detections.png"):
        answer = client.get(f"/v1/patches/{id}/{path}")
        assert answer.status_code == 409
        assert f"job {id} is queued; only finished ones have a report" in answer.text
    finish(app)
    report = client.get(f"/v1/patches/{id}/report").json()
    assert report == {"metrics": {"run": {}, "test": {"ap50_patch": 0.5}}, "pictures": ["detections.png"]}
    picture = client.get(f"/v1/patches/{id}/pictures/detections.png")
    assert (picture.content, picture.headers["content-type"]) == (b"picture", "image/png")
    for name in ("..%2Fsecret.png", "%2e%2e/secret.png", "secret.png", "detections.png%00"):
        assert client.get(f"/v1/patches/{id}/pictures/{name}").status_code == 404


def test_patch_is_shown_while_it_grows(app: FastAPI, client: TestClient) -> None:
    id = asked(client)["id"]
    assert client.get(f"/v1/patches/{id}/patch.png").status_code == 404
    (folder(app, id) / "patch_now.png").write_bytes(b"growing")
    answer = client.get(f"/v1/patches/{id}/patch.png")
    assert (answer.content, answer.headers["cache-control"]) == (b"growing", "no-store")


# --- events ---------------------------------------------------------------------------------------------------


def parsed(text: str) -> list[dict[str, str]]:
    blocks = [block for block in text.split("\n\n") if block and not block.startswith((":", "retry"))]
    return [dict(part.split(": ", 1) for part in block.splitlines()) for block in blocks]


def test_events_follow_the_job_to_its_end(
    app: FastAPI, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes_patches, "POLL_S", 0.01)
    monkeypatch.setattr(routes_patches, "QUIET_S", 0.05)
    id = asked(client)["id"]
    made = folder(app, id)

    def work() -> None:
        for number in (1, 2, 3):
            time.sleep(0.15)
            with (made / "progress.jsonl").open("a") as file:
                file.write(line(number))
        finish(app)

    thread = threading.Thread(target=work)
    thread.start()
    answer = client.get(f"/v1/patches/{id}/events")
    thread.join()
    assert answer.headers["content-type"].startswith("text/event-stream")
    found = parsed(answer.text)
    assert [event.get("id") for event in found] == ["1", "2", "3", None]
    assert json.loads(found[1]["data"])["losses"] == {"loss": 0.75}
    assert found[3]["event"] == "state"
    assert json.loads(found[3]["data"]) == {"state": "finished", "error": None}
    assert ": still there" in answer.text


@pytest.mark.parametrize(
    ("last", "expected"), [("2", ["3", None]), ("9", [None]), ("x", ["1", "2", "3", None])]
)
def test_client_that_comes_back_gets_what_it_missed(
    app: FastAPI, client: TestClient, last: str, expected: list[str | None]
) -> None:
    id = asked(client)["id"]
    (folder(app, id) / "progress.jsonl").write_text(line(1) + line(2) + line(3))
    job = queue.claim(app.state.engine, device="cpu")
    queue.fail(app.state.engine, job, "out of memory")
    answer = client.get(f"/v1/patches/{id}/events", headers={"Last-Event-ID": last})
    found = parsed(answer.text)
    assert [event.get("id") for event in found] == expected
    assert json.loads(found[-1]["data"]) == {"state": "failed", "error": "out of memory"}


def test_streams_have_a_limit_and_are_given_back(app: FastAPI, client: TestClient) -> None:
    id = asked(client)["id"]
    finish(app)
    for _ in range(3):
        assert client.get(f"/v1/patches/{id}/events").status_code == 200
    app.state.patch_streams.open = 1
    answer = client.get(f"/v1/patches/{id}/events")
    assert answer.status_code == 429
    assert "1 streams are open already" in answer.text


def test_client_that_goes_away_leaves_no_stream() -> None:
    async def content() -> AsyncIterator[str]:
        while True:
            yield "x"

    async def leave(streams: Streams) -> int:
        stream = _counted(streams, content())
        await anext(stream)
        opened = streams.open
        await stream.aclose()
        return opened

    streams = Streams(1)
    assert asyncio.run(leave(streams)) == 1
    assert streams.open == 0
