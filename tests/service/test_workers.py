"""Workers: a job is run by one process, whose end is seen, and a device is free again when its job is over."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import quick_jobs
from databases import database
from quick_jobs import DYING, LONG, MOVING, QUICK, SILENT, WRONG
from sqlalchemy import Engine, create_engine
from sqlalchemy.exc import OperationalError

from tocsin.service import queue, workers
from tocsin.service.job_table import OPEN, JobBase, JobState
from tocsin.service.patch_request import PatchRequest
from tocsin.service.settings import Settings
from tocsin.service.workers import PatchWorkers

WAIT_S = 60.0


@pytest.fixture(params=["sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    yield from database(request.param, tmp_path)


@pytest.fixture
def settings(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(workers, "run_patch", quick_jobs.run_quick)
    monkeypatch.setattr(workers, "PRELOADED", "tocsin.service.patch_process")
    monkeypatch.setattr(workers, "POLL_S", 0.02)
    monkeypatch.setattr(workers, "BEAT_S", 0.1)
    return Settings(folder=tmp_path, database=url, devices="cpu")


@pytest.fixture
def engine(settings: Settings) -> Iterator[Engine]:
    engine = create_engine(settings.database)
    JobBase.metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def running(settings: Settings, engine: Engine) -> Iterator[PatchWorkers]:
    found = PatchWorkers(settings=settings, engine=engine)
    found.start()
    yield found
    found.stop()


def ask(engine: Engine, seed: int, **changed: object) -> queue.Job:
    request = PatchRequest.model_validate({"dataset": "people", "seed": seed, **changed})
    job = queue.add(engine, request.model_dump(), limit=100)
    assert job is not None
    return job


def now(engine: Engine, job: queue.Job) -> queue.Job:
    found = queue.find(engine, job.id)
    assert found is not None
    return found


def until(happens: Callable[[], object]) -> None:
    begin = time.monotonic()
    while not happens():
        assert time.monotonic() - begin < WAIT_S, "it did not happen"
        time.sleep(0.02)


def ended(engine: Engine, job: queue.Job) -> queue.Job:
    until(lambda: now(engine, job).state not in OPEN)
    return now(engine, job)


def starts(settings: Settings, job: queue.Job) -> list[str]:
    file = settings.folder / "jobs" / job.id / "starts"
    return file.read_text().splitlines() if file.is_file() else []


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"


def test_jobs_are_run_in_processes_of_their_own(
    running: PatchWorkers, settings: Settings, engine: Engine
) -> None:
    jobs = [ask(engine, QUICK) for _ in range(3)]
    assert [ended(engine, job).state for job in jobs] == [JobState.FINISHED] * 3
    pids = [int(start.split()[0]) for job in jobs for start in starts(settings, job)]
    assert len(set(pids)) == 3
    assert os.getpid() not in pids
    assert now(engine, jobs[0]).device == "cpu"


def test_what_is_wrong_is_said(running: PatchWorkers, engine: Engine) -> None:
    job = ended(engine, ask(engine, WRONG))
    assert (job.state, job.error) == (JobState.FAILED, "there is no such victim")


def test_victim_that_is_gone_fails_the_job(running: PatchWorkers, engine: Engine) -> None:
    job = ended(engine, ask(engine, QUICK, victim="gone.pt"))
    assert job.error == "victim=gone.pt is no longer below the models folder"


def test_request_of_another_version_fails_its_job_alone(running: PatchWorkers, engine: Engine) -> None:
    old = queue.add(engine, {"dataset": "people", "colour": "red"}, limit=9)
    assert old is not None
    job = ended(engine, old)
    assert job.error == "this server cannot read the request: Extra inputs are not permitted"
    assert ended(engine, ask(engine, QUICK)).state == JobState.FINISHED


def test_end_that_could_not_be_recorded_is_recorded_later(
    running: PatchWorkers, settings: Settings, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, failures = queue.finish, [1, 2]

    def fail_twice(engine: Engine, job: queue.Job) -> bool:
        if failures:
            failures.pop()
            raise OperationalError("UPDATE", {}, Exception("database is locked"))
        return real(engine, job)

    monkeypatch.setattr(queue, "finish", fail_twice)
    job = ended(engine, ask(engine, QUICK))
    assert (job.state, len(starts(settings, job))) == (JobState.FINISHED, 1)


def test_job_whose_process_dies_is_run_again_but_not_for_ever(
    running: PatchWorkers, settings: Settings, engine: Engine
) -> None:
    job = ended(engine, ask(engine, DYING))
    assert job.state == JobState.FAILED
    assert job.error is not None
    assert "given up after 5 attempts" in job.error
    assert "SIGKILL" in job.error
    assert len(starts(settings, job)) == queue.MAX_DEATHS


def test_job_that_moves_on_between_deaths_is_not_given_up(
    running: PatchWorkers, settings: Settings, engine: Engine
) -> None:
    job = ended(engine, ask(engine, MOVING))
    assert job.state == JobState.FINISHED
    resumed = ["ckpt_path=last" in start for start in starts(settings, job)]
    assert resumed == [False, *[True] * 7]


def test_cancelled_job_frees_its_device(running: PatchWorkers, settings: Settings, engine: Engine) -> None:
    long, waiting = ask(engine, LONG), ask(engine, QUICK)
    until(lambda: starts(settings, long))
    pid = int(starts(settings, long)[0].split()[0])
    begin = time.monotonic()
    queue.cancel(engine, long.id)
    until(lambda: not alive(pid))
    assert time.monotonic() - begin < 2
    assert ended(engine, waiting).state == JobState.FINISHED
    assert now(engine, long).state == JobState.CANCELLED


def test_jobs_of_a_server_that_stops_wait_for_the_next(settings: Settings, engine: Engine) -> None:
    first = PatchWorkers(settings=settings, engine=engine)
    first.start()
    job = ask(engine, LONG)
    until(lambda: starts(settings, job))
    first.stop()
    assert not alive(int(starts(settings, job)[0].split()[0]))
    assert (now(engine, job).state, now(engine, job).deaths) == (JobState.QUEUED, 0)


def test_process_whose_server_is_silent_ends_itself(
    running: PatchWorkers, settings: Settings, engine: Engine
) -> None:
    job = ended(engine, ask(engine, SILENT))
    assert job.error is not None
    assert "exit code 3" in job.error


@pytest.mark.parametrize("url", ["sqlite", "postgresql"], indirect=True)
def test_two_servers_run_each_job_once(running: PatchWorkers, settings: Settings, engine: Engine) -> None:
    other_engine = create_engine(settings.database)
    other = PatchWorkers(settings=settings, engine=other_engine)
    other.start()
    jobs = [ask(engine, QUICK) for _ in range(12)]
    assert all(ended(engine, job).state == JobState.FINISHED for job in jobs)
    other.stop()
    other_engine.dispose()
    assert [len(starts(settings, job)) for job in jobs] == [1] * 12


def test_job_of_a_server_that_is_gone_is_put_back(
    settings: Settings, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "LEASE_S", 0.5)
    job = ask(engine, QUICK)
    assert queue.claim(engine, device="cpu") is not None  # of the server that then ended
    second = PatchWorkers(settings=settings, engine=engine)
    second.start()
    assert ended(engine, job).state == JobState.FINISHED
    second.stop()
    assert now(engine, job).deaths == 0


def test_device_that_is_none_is_said(
    settings: Settings, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = PatchWorkers(settings=Settings(devices="tpu", database=settings.database), engine=engine)
    wrong.start()
    wrong.stop()
    assert "patch jobs wait: devices=tpu is not auto, cpu or a list of GPUs like [0,1]" in caplog.text
