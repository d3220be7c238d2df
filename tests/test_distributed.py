"""Two processes on a CPU, started as a user would: the numbers and files of one, and an end when one of them dies."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.types import RunMode
from omegaconf import OmegaConf
from test_class_pipeline import KINDS
from test_class_pipeline import draw as draw_part
from test_image_pipeline import draw
from test_pipeline import ROOT, SERIES, TINY, waves

from tocsin import distributed
from tocsin.distributed import SharedBatchesStrategy, resolve_strategy
from tocsin.errors import ConfigError

PAIR = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")
ALONE = ("trainer=cpu",)
QUIET = ("logger=none", "callbacks.report=null")
MAE = ("model=mae", *SERIES, *TINY[1:], "trainer.max_epochs=4", "data.score_batch_size=31", *QUIET)
PATCHCORE = (
    "model=patchcore", "model.backbone=test_resnet", "model.layers=[layer2,layer3]", "model.weights=random",
    "model.coreset_ratio=0.5", "data=folder", "data.root=images", "data.height=32", "data.width=40",
    "data.score_batch_size=5", *QUIET,
)  # fmt: skip
# Mixing, dropout, batch normalisation, a frozen first epoch, averaged weights: all that a recipe has by default.
CLASSIFIER = (
    "model=classifier", "data=defects", "data.root=parts", "data.height=24", "data.width=40", "augment=light",
    "trainer.max_epochs=3", "optimizer.lr=2e-2", "model.backbone=test_resnet", "model.weights=random",
    "data.batch_size=15", "data.score_batch_size=7", "trainer.precision=64-true", *QUIET,
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data whose sizes no number of processes divides: the last batches have one item or are odd."""
    path = tmp_path_factory.mktemp("pairs")
    waves(1500, 0, anomalous=False).to_csv(path / "train.csv", index=False)
    waves(1307, 1, anomalous=True).to_csv(path / "test.csv", index=False)
    draw(path / "images" / "train" / "good", 21, seed=0)
    draw(path / "images" / "test" / "good", 7, seed=1)
    draw(path / "images" / "test" / "spot", 9, seed=2, spot=True)  # 16 images: batches of 5, 5, 5 and 1
    for seed, kind in enumerate(KINDS):
        draw_part(path / "parts" / kind, 40 if kind == "good" else 23, seed, kind)
    return path


def environment(cwd: Path) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "TOCSIN_CACHE": str(cwd / "cache")}


def run(cwd: Path, *arguments: str, script: str = "train.py", launcher: tuple[str, ...] = ()) -> str:
    """What a command that succeeds says."""
    done = subprocess.run(
        [sys.executable, *launcher, str(ROOT / script), *arguments],
        cwd=cwd, env=environment(cwd), capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def files(run_dir: Path) -> set[str]:
    return {str(path.relative_to(run_dir)) for path in run_dir.rglob("*") if path.is_file()}


def numbers(section: dict[str, object]) -> dict[str, float]:
    return {name: value for name, value in section.items() if isinstance(value, float)}


def assert_same(one: Path, two: Path) -> None:
    """The same metrics to 1e-6, scores to rounding, and files."""
    first, second = (json.loads((path / "metrics.json").read_text()) for path in (one, two))
    for section in ("data", "val", "test"):
        assert numbers(second[section]) == pytest.approx(numbers(first[section]), abs=1e-6)
    assert numbers(second["threshold"]) == pytest.approx(numbers(first["threshold"]), rel=1e-5)
    arrays, others = np.load(one / "scores.npz"), np.load(two / "scores.npz")
    assert arrays.files == others.files
    for name in arrays.files:
        if arrays[name].dtype.kind == "f":
            np.testing.assert_allclose(others[name], arrays[name], rtol=1e-5, atol=1e-6)
        else:
            np.testing.assert_array_equal(others[name], arrays[name])
    assert files(two) - {"job.json"} == files(one)  # that of a job of a sweep


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        pytest.param(MAE, id="mae"),
        pytest.param(PATCHCORE, id="patchcore"),
        pytest.param(CLASSIFIER, id="classifier"),
    ],
)
def test_two_processes_end_with_the_numbers_of_one(folder: Path, options: tuple[str, ...]) -> None:
    name = options[0].partition("=")[2]
    run(folder, *options, *ALONE, f"hydra.run.dir={name}_one")
    said = run(folder, *options, *PAIR, f"hydra.run.dir={name}_two")
    assert_same(folder / f"{name}_one", folder / f"{name}_two")
    assert said.count("run folder:") == 1  # the others are silent
    log = (folder / f"{name}_two" / "train.log").read_text()
    assert log.count("run folder:") == 1


@pytest.mark.slow
def test_processes_that_torchrun_starts_share_a_folder(folder: Path) -> None:
    cwd = folder / "torchrun"
    cwd.mkdir()
    (cwd / "train.csv").symlink_to(folder / "train.csv")
    (cwd / "test.csv").symlink_to(folder / "test.csv")
    run(
        cwd, *MAE, *PAIR, "trainer.max_epochs=2",
        launcher=("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"),
    )  # fmt: skip
    (metrics,) = cwd.glob("outputs/**/metrics.json")
    assert len(list(cwd.glob("outputs/mae/series/*"))) == 1
    run(cwd, *MAE, *ALONE, "trainer.max_epochs=2", "hydra.run.dir=one")
    assert_same(cwd / "one", metrics.parent)


@pytest.mark.slow
def test_jobs_of_a_sweep_run_one_after_the_other_and_evaluation_agrees(folder: Path) -> None:
    run(
        folder, "-m", *MAE, *PAIR, "trainer.max_epochs=2", "seed=1,2", "hydra.sweep.dir=sweep",
        "hydra/launcher=basic",
    )  # fmt: skip
    run(folder, *MAE, *ALONE, "trainer.max_epochs=2", "seed=2", "hydra.run.dir=second")
    assert_same(folder / "second", folder / "sweep" / "1")
    checkpoint = f"ckpt_path={folder}/sweep/1/checkpoints/best.ckpt"
    run(folder, checkpoint, *PAIR, "hydra.run.dir=again", script="evaluate.py")
    first, again = (json.loads((folder / name / "metrics.json").read_text()) for name in ("second", "again"))
    assert numbers(again["test"]) == pytest.approx(numbers(first["test"]), abs=1e-6)


@pytest.mark.slow
def test_early_stopping_and_resuming_are_those_of_one_process(folder: Path) -> None:
    stopping = (
        "trainer.max_epochs=30",
        "callbacks.early_stopping.patience=1",
        "optimizer.lr=3e-2",
        "scheduler=plateau",
        "trainer.precision=64-true",  # at this rate a rounding grows within a few epochs
    )
    for name, devices in (("early_one", ALONE), ("early_two", PAIR)):
        run(folder, *MAE, *devices, *stopping, f"hydra.run.dir={name}")
    assert_same(folder / "early_one", folder / "early_two")
    epochs = {
        json.loads((folder / name / "metrics.json").read_text())["timing"]["epochs"]
        for name in ("early_one", "early_two")
    }
    assert len(epochs) == 1
    assert epochs.pop() < 30

    whole = ("trainer.max_epochs=4", "hydra.run.dir=whole")
    run(folder, *MAE, *PAIR, *whole)
    half = start(folder, *MAE, *PAIR, "trainer.max_epochs=4", "hydra.run.dir=half")
    wait_for(half, folder / "half" / "train.log", "epoch 2/4")
    half.kill()
    half.wait()
    time.sleep(2)  # its other process ends by itself
    run(folder, *MAE, *PAIR, "trainer.max_epochs=4", "hydra.run.dir=half", "ckpt_path=last")
    assert_same(folder / "whole", folder / "half")


def start(cwd: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *arguments],
        cwd=cwd, env=environment(cwd), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_for(process: subprocess.Popen[str], log: Path, text: str) -> None:
    deadline = time.monotonic() + 120
    while not (log.exists() and text in log.read_text()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)


def children(pid: int) -> list[int]:
    """Processes that a process started."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes in /proc")
@pytest.mark.parametrize("leader", [False, True])
def test_when_one_process_dies_all_end_soon(folder: Path, leader: bool) -> None:
    name = f"killed_{leader}"
    process = start(folder, *MAE, *PAIR, "trainer.max_epochs=2000", f"hydra.run.dir={name}")
    wait_for(process, folder / name / "train.log", "epoch 2/2000")
    (other,) = children(process.pid)
    begin = time.monotonic()
    os.kill(process.pid if leader else other, signal.SIGKILL)
    _, error = process.communicate(timeout=60)
    assert process.returncode != 0
    if not leader:
        assert "error: a process of this run ended with exit code -9; ckpt_path=last resumes it" in error
    while Path(f"/proc/{other}").exists() and time.monotonic() - begin < 60:
        time.sleep(0.1)
    assert not Path(f"/proc/{other}").exists()
    assert time.monotonic() - begin < 60


# --- what is refused ----------------------------------------------------------------------------------------


def test_one_device_needs_no_other_process() -> None:
    assert resolve_strategy("ddp", 1, n_nodes=1, kind="series") == "auto"
    assert resolve_strategy("auto", [0], n_nodes=1, kind="series") == "auto"
    assert isinstance(resolve_strategy("auto", [0, 1], n_nodes=1, kind="image"), SharedBatchesStrategy)
    assert isinstance(resolve_strategy("ddp", 1, n_nodes=2, kind="image"), SharedBatchesStrategy)


def test_all_gpus_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert isinstance(resolve_strategy("ddp", "auto", n_nodes=1, kind="series"), SharedBatchesStrategy)


def test_a_patch_is_trained_in_one_process() -> None:
    with pytest.raises(ConfigError, match=r"a patch is trained in one process: set trainer\.devices=1"):
        resolve_strategy("ddp", 2, n_nodes=1, kind="detection")


def test_other_strategies_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"trainer\.strategy=fsdp is not one of auto, ddp"):
        resolve_strategy("fsdp", 2, n_nodes=1, kind="series")


def test_processes_and_devices_must_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(ConfigError, match=r"4 processes were started, but trainer\.devices=2"):
        resolve_strategy("ddp", 2, n_nodes=1, kind="series")
    assert isinstance(resolve_strategy("ddp", 2, n_nodes=2, kind="series"), SharedBatchesStrategy)


# --- how the others are started and watched -------------------------------------------------------------------


@pytest.fixture
def command_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """The command of the other processes, by what Hydra knows of this one."""

    def make(mode: RunMode, folder: str, *options: str) -> list[str]:
        config = {
            "mode": mode,
            "overrides": {
                "hydra": ["hydra.verbose=true", "hydra.run.dir=old"],
                "task": ["model=mae", "seed=3"],
            },
            "runtime": {"output_dir": folder},
            "job": {"config_name": "train"},
        }
        monkeypatch.setattr(distributed.HydraConfig, "get", lambda: OmegaConf.create(config))
        return distributed.command_again(options)

    return make


def test_other_processes_get_the_configuration_and_folder_of_the_first(
    command_of: Callable[..., list[str]],
) -> None:
    assert command_of(RunMode.RUN, "/runs/it's")[1:] == [
        "-c", "from tocsin.cli import train; train()", "model=mae", "seed=3", "hydra.verbose=true",
        "hydra.run.dir='/runs/it\\'s'",
    ]  # fmt: skip


def test_those_of_a_job_start_no_sweep_and_resume_with_it(command_of: Callable[..., list[str]]) -> None:
    assert command_of(RunMode.MULTIRUN, "/sweep/1", "ckpt_path='last'")[3:] == [
        "model=mae", "seed=3", "ckpt_path='last'", "hydra.run.dir='/sweep/1'"
    ]  # fmt: skip


def test_a_process_that_failed_is_named(tmp_path: Path) -> None:
    failed = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    fine = subprocess.Popen([sys.executable, "-c", ""])
    fine.wait()
    assert distributed.Watch([fine], leader=None).lost() is None
    lost = distributed.Watch([fine, failed], leader=None).lost(patience=30.0)
    assert lost == "a process of this run ended with exit code 3; ckpt_path=last resumes it"
    assert "first process" in str(distributed.Watch([], leader=1 << 22).lost())
    assert distributed.Watch([], leader=os.getppid()).lost() is None
