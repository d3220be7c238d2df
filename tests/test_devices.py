"""Choice of devices and precision on machines that do not exist."""

import pytest
import torch

from tocsin.devices import first_device, resolve_devices, resolve_precision
from tocsin.errors import ConfigError

FREE_GIB = (10, 70, 30, 50)


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(FREE_GIB))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (FREE_GIB[index] << 30, 80 << 30))


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize(
    ("devices", "expected"),
    [
        ("free", [1]),
        ("free:1", [1]),
        ("free:2", [1, 3]),
        ("free:4", [0, 1, 2, 3]),
        ("auto", "auto"),
        (2, 2),
        (-1, -1),  # Lightning's word for all of them
        ([3, 0], [3, 0]),
    ],
)
@pytest.mark.parametrize("accelerator", ["gpu", "cuda", "auto"])
def test_devices_on_gpus(devices: object, expected: object, accelerator: str) -> None:
    assert resolve_devices(devices, accelerator) == expected  # type: ignore[arg-type]


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize(
    ("devices", "accelerator", "expected"),
    [
        ("auto", "auto", "cuda:0"),
        ([3, 0], "gpu", "cuda:3"),
        ("free", "gpu", "cuda:1"),
        (2, "auto", "cuda:0"),
        (1, "cpu", "cpu"),
    ],
)
def test_first_device_on_gpus(devices: object, accelerator: str, expected: str) -> None:
    assert str(first_device(devices, accelerator)) == expected  # type: ignore[arg-type]


@pytest.mark.usefixtures("no_gpu")
def test_first_device_without_a_gpu() -> None:
    assert str(first_device("auto", "auto")) == "cpu"
    with pytest.raises(ConfigError, match="no GPU is visible"):
        first_device("auto", "gpu")


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize(
    ("devices", "message"),
    [
        ([0, 4], r"\[0, 4\]: there is no GPU 4; visible GPUs: 0, 1, 2, 3"),
        ([-1], r"there is no GPU -1"),
        ("free:5", "asks for 5 GPUs, but 4 are visible"),
        (5, "asks for 5 GPUs, but 4 are visible"),
        (0, "asks for 0 GPUs"),
        ("free:0", "asks for 0 GPUs"),
        ([], "asks for 0 GPUs"),
        ("fre", "devices=fre is not auto, free, free:N, a number or a list"),
        ("free:two", "devices=free:two is not auto, free, free:N"),
    ],
)
def test_devices_that_do_not_exist(devices: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve_devices(devices, "gpu")  # type: ignore[arg-type]


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("devices", ["auto", "free", 1, [0]])
def test_gpu_asked_for_where_there_is_none(devices: object) -> None:
    with pytest.raises(ConfigError, match="no GPU is visible; use trainer=cpu or trainer=default"):
        resolve_devices(devices, "gpu")  # type: ignore[arg-type]


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("devices", ["auto", "free", "free:2", 3, [0, 1]])
def test_auto_falls_back_to_one_cpu(devices: object) -> None:
    assert resolve_devices(devices, "auto") == 1  # type: ignore[arg-type]


@pytest.mark.usefixtures("no_gpu")
def test_devices_that_are_not_used_are_told(caplog: pytest.LogCaptureFixture) -> None:
    resolve_devices("auto", "auto")
    resolve_devices(1, "auto")
    assert caplog.messages == []
    resolve_devices([7], "auto")
    assert caplog.messages == ["trainer.devices=[7], but no GPU is visible: running on the CPU"]


@pytest.mark.usefixtures("gpus")
def test_cpu_stays_cpu_where_there_are_gpus() -> None:
    assert resolve_devices("free", "cpu") == 1
    assert resolve_devices(2, "cpu") == 2


@pytest.mark.parametrize(
    ("available", "bf16", "accelerator", "expected"),
    [
        (True, True, "auto", "bf16-mixed"),
        (True, True, "gpu", "bf16-mixed"),
        (True, False, "gpu", "16-mixed"),
        (True, True, "cpu", "32-true"),
        (False, False, "auto", "32-true"),
    ],
)
def test_automatic_precision(
    monkeypatch: pytest.MonkeyPatch, available: bool, bf16: bool, accelerator: str, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: bf16)
    assert resolve_precision("auto", accelerator) == expected
    assert resolve_precision("64-true", accelerator) == "64-true"
