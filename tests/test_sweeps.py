"""Sweeps as a user starts them: what fails, what is killed, what is run again, and which GPU a job gets."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from tocsin.jobs import Job, State, read_jobs

ROOT = Path(__file__).parents[1]
QUICK = [
    "data=sliding",
    "model=pca",
    "callbacks=numbers",
    "logger=none",
    "trainer=cpu",
    "++data.total_length=20000",
]
TINY = ["model.d_model=16", "model.n_heads=2", "model.feedforward=16", "model.encoder_layers=1"]
TOO_SHORT, TOO_LARGE, LONG = "-5", "10000000000000", "4000000"  # steps: refused, no memory for, takes a while
WAIT_S = 120


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOCSIN_CACHE": str(folder / "cache")}
    return subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), "-m", *QUICK, "hydra.sweep.dir=sweep", *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def sweep(folder: Path, *arguments: str) -> tuple[int, str]:
    """Exit code and output."""
    with _no_longer_than_the_test(start(folder, *arguments)) as process:
        output, _ = process.communicate(timeout=WAIT_S)
    return process.returncode, output


@contextmanager
def _no_longer_than_the_test(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def running(folder: Path, override: str) -> Job:
    """The job with this override, as soon as it runs."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        for job in read_jobs(folder / "sweep"):
            if override in job.overrides and job.state is State.RUNNING:
                return job
        time.sleep(0.05)
    raise AssertionError(f"no job with {override} has started")


def outcomes(folder: Path) -> dict[str, Job]:
    """Jobs by their last override."""
    return {job.overrides[-1]: job for job in read_jobs(folder / "sweep")}


def numbers(job: Job) -> dict[str, object]:
    sections = json.loads((job.folder / "metrics.json").read_text())
    return {name: sections[name] for name in ("data", "threshold", "val", "test", "oracle", "baselines")}


@pytest.mark.parametrize("launcher", ["basic", pytest.param("ray", marks=pytest.mark.slow)])
def test_no_job_ends_a_sweep(tmp_path: Path, launcher: str) -> None:
    """One raises, one runs out of memory, one is killed; the other two are complete, and the three are named."""
    lengths = f"data.total_length={TOO_SHORT},20000,{TOO_LARGE},{LONG},21000"
    with _no_longer_than_the_test(start(tmp_path, lengths, f"hydra/launcher={launcher}")) as process:
        os.kill(running(tmp_path, f"data.total_length={LONG}").pid, signal.SIGKILL)
        output, _ = process.communicate(timeout=WAIT_S)
    assert process.returncode == 1
    jobs = outcomes(tmp_path)
    for length in ("20000", "21000"):
        job = jobs[f"data.total_length={length}"]
        assert job.state is State.FINISHED
        assert job.value == pytest.approx(1.15, abs=0.2)
        assert np.load(job.folder / "scores.npz")["scores"].shape == (numbers(job)["data"]["n_test"],)
    named = output[output.index("3 of 5 jobs failed:") :]
    assert f"total_length={TOO_SHORT}: data=sliding: total_length is {TOO_SHORT}, but" in named
    assert f"total_length={TOO_LARGE}: out of memory: Unable to allocate" in named
    assert f"total_length={LONG}: {'killed' if launcher == 'basic' else 'its process died'}" in named
    assert "Traceback" not in output
    assert "| pca |" in (tmp_path / "sweep" / "results.md").read_text()

    begun = {key: job.started for key, job in jobs.items()}
    code, output = sweep(tmp_path, "data.total_length=20000,21000,22000")
    assert code == 1  # failed jobs stay in the sweep until they are run again
    assert "3 jobs in" in output
    assert "2 of them done before" in output
    jobs = outcomes(tmp_path)
    assert jobs["data.total_length=22000"].number == 5
    assert {key: job.started for key, job in jobs.items() if key in begun} == begun


@pytest.mark.slow
def test_a_killed_sweep_goes_on_where_it_was(tmp_path: Path) -> None:
    """The sweep is killed with all its processes in the middle of its second job, which has trained an epoch."""
    options = ["model=mae", *TINY, "trainer.max_epochs=8", "seed=1,2,3"]
    whole = tmp_path / "whole"
    whole.mkdir()
    assert sweep(whole, *options)[0] == 0
    with _no_longer_than_the_test(start(tmp_path, *options)) as process:
        job = running(tmp_path, "seed=2")
        while not (job.folder / "checkpoints" / "last.ckpt").is_file():
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    deadline = time.monotonic() + WAIT_S
    while Path(f"/proc/{job.pid}").exists():  # no job outlives its sweep
        assert time.monotonic() < deadline
        time.sleep(0.05)
    first = outcomes(tmp_path)
    assert [first[f"seed={seed}"].state for seed in (1, 2)] == [State.FINISHED, State.RUNNING]
    code, output = sweep(tmp_path, *options)
    assert code == 0
    assert "3 jobs in" in output
    assert "1 of them done before" in output
    again, expected = outcomes(tmp_path), outcomes(whole)
    assert again["seed=1"] == first["seed=1"]
    assert "epoch 1/8" not in output.partition("seed=2")[0]  # the second job went on with a later epoch
    for seed in (1, 2, 3):
        assert numbers(again[f"seed={seed}"]) == numbers(expected[f"seed={seed}"])


@pytest.mark.slow
def test_ray_gives_the_same_numbers_as_one_job_after_another(tmp_path: Path) -> None:
    for launcher in ("basic", "ray"):
        (tmp_path / launcher).mkdir()
        code, output = sweep(
            tmp_path / launcher,
            "model=mae,kmeans",
            "trainer.max_epochs=2",
            "seed=1,2",
            f"hydra/launcher={launcher}",
        )
        assert code == 0, output
    basic, ray = (read_jobs(tmp_path / name / "sweep") for name in ("basic", "ray"))
    assert [job.overrides for job in basic] == [job.overrides for job in ray]
    assert [job.value for job in basic] == [job.value for job in ray]
    assert [numbers(job) for job in basic] == [numbers(job) for job in ray]
    assert len({job.pid for job in ray}) == 2  # imports are paid once in each process
    assert len({job.pid for job in basic}) == 4


@pytest.mark.slow
def test_each_of_four_jobs_has_a_gpu_of_its_own(tmp_path: Path) -> None:
    """Ray is told that there are four; what the jobs see is what counts."""
    options = ["hydra.launcher.init.num_gpus=4", "hydra.launcher.init.num_cpus=4"]
    code, output = sweep(tmp_path, "hydra/launcher=ray_gpu", *options, "seed=1,2,3,4")
    assert code == 0, output
    assert sorted(job.gpus for job in read_jobs(tmp_path / "sweep")) == ["0", "1", "2", "3"]


@pytest.mark.slow
def test_two_jobs_share_a_gpu(tmp_path: Path) -> None:
    options = ["hydra.launcher.init.num_gpus=1", "hydra.launcher.remote.num_gpus=0.5"]
    code, output = sweep(tmp_path, "hydra/launcher=ray_gpu", *options, "seed=1,2")
    assert code == 0, output
    first, second = read_jobs(tmp_path / "sweep")
    assert (first.gpus, second.gpus) == ("0", "0")
    assert first.pid != second.pid


@pytest.mark.slow
def test_a_gpu_that_is_not_there_is_named(tmp_path: Path) -> None:
    code, output = sweep(tmp_path, "hydra/launcher=ray_gpu", "hydra.launcher.init.num_gpus=0")
    assert code == 2
    assert output.splitlines()[-1].startswith("error: hydra.launcher.remote.num_gpus=1, but there are 0 GPUs")


@pytest.mark.slow
def test_slurm_jobs_on_this_machine(tmp_path: Path) -> None:
    options = ["hydra/launcher=slurm", "hydra.launcher.cluster=local", "hydra.launcher.poll_s=0.5"]
    code, output = sweep(tmp_path, *options, f"data.total_length=20000,{TOO_SHORT}")
    assert code == 1
    jobs = outcomes(tmp_path)
    assert jobs["data.total_length=20000"].state is State.FINISHED
    assert "1 of 2 jobs failed" in output


def test_slurm_is_missed_before_any_job(tmp_path: Path) -> None:
    code, output = sweep(tmp_path, "hydra/launcher=slurm")
    assert code == 2
    assert 'error: hydra/launcher=slurm: Could not detect "srun"' in output
