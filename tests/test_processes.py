"""Who leads several processes, and the folder they agree on."""

from datetime import datetime

import pytest

from tocsin import processes
from tocsin.errors import ConfigError


@pytest.fixture(autouse=True)
def _one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        *processes.RANKS, processes.LEADER, "WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "SLURM_JOB_START_TIME"
    ):  # fmt: skip
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", processes.RANKS)
def test_all_but_the_first_process_follow(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    assert not processes.is_follower()
    monkeypatch.setenv(name, "0")
    assert not processes.is_follower()
    monkeypatch.setenv(name, "1")
    assert processes.is_follower()


def test_the_first_process_of_a_second_machine_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("NODE_RANK", "1")
    assert processes.is_follower()


def test_processes_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert processes.n_started() is None
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "8")
    assert processes.n_started() is None  # of a step that did not start this process
    monkeypatch.setenv("SLURM_PROCID", "3")
    assert processes.n_started() == 8
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert processes.n_started() == 2
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert processes.n_started() is None


def test_one_process_asks_the_clock() -> None:
    assert abs((processes.start_time() - datetime.now()).total_seconds()) < 5


def test_tasks_of_srun_take_the_time_of_their_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_PROCID", "1")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    monkeypatch.setenv("SLURM_JOB_START_TIME", "1700000000")
    assert processes.start_time() == datetime.fromtimestamp(1700000000)
    monkeypatch.delenv("SLURM_JOB_START_TIME")
    with pytest.raises(ConfigError, match=r"add hydra\.run\.dir=<folder>"):
        processes.start_time()


def test_a_follower_writes_nothing_whatever_it_is_told() -> None:
    told = ["model=mae", "hydra/job_logging=tocsin", "hydra.output_subdir=.hydra"]
    assert processes.follower_arguments(told) == ["model=mae", *processes.FOLLOWER_OPTIONS]
