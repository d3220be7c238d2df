"""Patch jobs whose workers and servers are killed at random moments: none is lost, none is run twice.

What a job makes on a CPU does not depend on how often it was killed: its losses and its patch are those, to the bit,
of a job that was left alone.
"""

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from databases import database
from sqlalchemy import create_engine

from tocsin.data.catalog import import_coco
from tocsin.data.detection_files import write_figures
from tocsin.data.synthetic.figures import figures
from tocsin.models.yolo_networks import yolo_network
from tocsin.service.job_table import JobBase

pytestmark = pytest.mark.slow

KILLS, N_JOBS, WAIT_S = 10, 2, 900.0
REQUEST = {
    "dataset": "figures",
    "victim": "random.pt",
    "iterations": 60,
    "size": 160,
    "patch_size": 16,
}


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A catalogue with drawn figures, and the table of jobs."""
    for url in database(request.param, tmp_path):
        (tmp_path / "figures").mkdir()
        write_figures(figures(n_images=18, size=160, seed=0), tmp_path / "figures")
        import_coco(tmp_path / "figures" / "instances.json", tmp_path / "figures" / "images", url)
        engine = create_engine(url)
        JobBase.metadata.create_all(engine)
        engine.dispose()
        yield url


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder with a victim that has never learnt anything."""
    folder = tmp_path / "models"
    folder.mkdir()
    torch.manual_seed(0)
    network = yolo_network("yolov8n.yaml")
    network.names = {**network.names, 0: "person"}
    torch.save({"model": network}, folder / "random.pt")
    return folder


class Server:
    """`python -m tocsin.serve` in a process of its own; all on one folder and one database."""

    def __init__(self, folder: Path, url: str, models: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.log = folder / f"server_{self.port}.log"
        self.command = [
            sys.executable, "-m", "tocsin.serve", f"folder={folder}", f"database='{url}'", f"models={models}",
            f"port={self.port}", "devices=cpu",
        ]  # fmt: skip
        self.folder = folder
        self.start()

    def start(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                self.command, stdout=log, stderr=log, cwd=self.folder, env=environment
            )
        begin = time.monotonic()
        while True:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() - begin < WAIT_S
            try:
                httpx.get(f"http://127.0.0.1:{self.port}/health")
                return
            except httpx.ConnectError:
                time.sleep(0.1)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def call(self, method: str, path: str = "", **more: Any) -> Any:
        answer = httpx.request(method, f"http://127.0.0.1:{self.port}/v1/patches{path}", timeout=60, **more)
        assert answer.status_code < 300, answer.text
        return answer.json()

    def worker(self) -> int | None:
        """The process that was last started for a job, if it runs."""
        found = re.findall(r"\(process (\d+)\)", self.log.read_text())
        if not found or not Path(f"/proc/{found[-1]}").exists():
            return None
        return int(found[-1])


def states(servers: list[Server], ids: list[str]) -> list[str]:
    return [servers[0].call("GET", f"/{id}")["state"] for id in ids]


def until_open_jobs_run(servers: list[Server], ids: list[str]) -> bool:
    """Wait until a worker is at work; whether there is any job left."""
    begin = time.monotonic()
    while True:
        open_jobs = [state for state in states(servers, ids) if state in ("queued", "running")]
        if not open_jobs:
            return False
        if any(server.worker() for server in servers):
            return True
        assert time.monotonic() - begin < WAIT_S
        time.sleep(0.1)


def until_ended(servers: list[Server], ids: list[str]) -> None:
    begin = time.monotonic()
    while any(state in ("queued", "running") for state in states(servers, ids)):
        assert time.monotonic() - begin < WAIT_S
        time.sleep(0.5)


def made(folder: Path, id: str) -> tuple[list[int], list[dict[str, float]], torch.Tensor]:
    """Iterations, losses and patch of a job."""
    run = folder / "jobs" / id
    lines = [json.loads(line) for line in (run / "progress.jsonl").read_text().splitlines()]
    patch = torch.load(run / "patch.pt", weights_only=True)
    return [line["iteration"] for line in lines], [line["losses"] for line in lines], patch


def test_jobs_survive_the_death_of_workers_and_servers(
    url: str, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = int(os.environ.get("TOCSIN_KILL_SEED", "0"))
    draw = random.Random(seed)
    n_servers = 1 if url.startswith("sqlite") else 2
    servers = [Server(tmp_path, url, models) for _ in range(n_servers)]
    try:
        alone = servers[0].call("POST", json=REQUEST)["id"]
        until_ended(servers, [alone])
        ids = [servers[0].call("POST", json=REQUEST)["id"] for _ in range(N_JOBS)]
        killed = []
        while len(killed) < KILLS and until_open_jobs_run(servers, ids):
            time.sleep(draw.uniform(0.5, 12.0))
            server = draw.choice(servers)
            worker = server.worker()
            if draw.random() < 0.5 and worker is not None:
                os.kill(worker, signal.SIGKILL)
                killed.append("worker")
            else:
                server.kill()
                server.start()
                killed.append("server")
        until_ended(servers, ids)
        jobs = [servers[0].call("GET", f"/{id}") for id in ids]
        logs = "".join(server.log.read_text() for server in servers)
    finally:
        for server in servers:
            server.kill()
    assert [(job["state"], job["error"]) for job in jobs] == [("finished", None)] * N_JOBS
    assert len(killed) == KILLS
    assert {"worker", "server"} == set(killed)
    iterations, losses, patch = made(tmp_path, alone)
    assert iterations == list(range(1, REQUEST["iterations"] + 1))
    for id in ids:
        again = made(tmp_path, id)
        assert again[0] == iterations
        assert again[1] == losses
        assert torch.equal(again[2], patch)
        assert logs.count(f"job {id} is finished") == 1
    assert logs.count("goes on") >= 1
    with capsys.disabled():
        counts = {kind: killed.count(kind) for kind in ("worker", "server")}
        resumed = sum(logs.count(f"job {id} goes on") for id in ids)
        sys.stdout.write(f"\nkilled {counts}; jobs went on {resumed} times from a checkpoint\n")
