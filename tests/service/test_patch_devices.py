"""Devices of workers: all GPUs, those with most free memory first, or the CPU."""

import multiprocessing
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from tocsin.errors import ConfigError
from tocsin.service import patch_devices
from tocsin.service.patch_devices import CPU, Device, devices_of
from tocsin.service.settings import Settings
from tocsin.service.workers import PatchWorkers, Worker

GPUS = [
    Device(name="gpu 1 (X)", index=1, free=30),
    Device(name="gpu 2 (X)", index=2, free=20),
    Device(name="gpu 0 (X)", index=0, free=10),
]
CONTEXT = multiprocessing.get_context("forkserver")


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> list[Device]:
    """What a process that looks finds."""
    found = list(GPUS)
    monkeypatch.setattr(patch_devices, "_look", lambda context: found)
    return found


def test_every_gpu_or_those_asked_for(gpus: list[Device]) -> None:
    assert [gpu.index for gpu in devices_of("auto", CONTEXT)] == [1, 2, 0]
    assert [gpu.index for gpu in devices_of([0, 1], CONTEXT)] == [1, 0]
    assert devices_of("cpu", CONTEXT) == [CPU]
    gpus.clear()
    assert devices_of("auto", CONTEXT) == [CPU]


def test_gpu_that_is_not_there_is_named(gpus: list[Device]) -> None:
    with pytest.raises(ConfigError, match=r"devices=\[0, 7\]: there is no GPU 7; visible GPUs: gpu 1 \(X\)"):
        devices_of([0, 7], CONTEXT)
    with pytest.raises(ConfigError, match=r"devices=\[\] is not auto"):
        devices_of([], CONTEXT)
    with pytest.raises(ConfigError, match=r"devices=gpu is not auto, cpu or a list of GPUs"):
        devices_of("gpu", CONTEXT)


def test_process_sees_its_gpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [device.visible for device in (CPU, *GPUS)] == ["", "1", "2", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6,GPU-7")
    assert [device.visible for device in (CPU, *GPUS)] == ["", "6", "GPU-7", "4"]


def test_job_gets_the_free_device_with_most_free_memory_now(gpus: list[Device], tmp_path: Path) -> None:
    workers = PatchWorkers(settings=Settings(folder=tmp_path), engine=create_engine("sqlite://"))
    workers.workers = [Worker(device=gpu) for gpu in GPUS]
    assert workers._freest().device.index == 1
    gpus.reverse()
    assert workers._freest().device.index == 0
    workers.engine.dispose()
