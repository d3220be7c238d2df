"""Which devices and which precision a run uses."""

import logging
from collections.abc import Sequence

import torch

from tocsin.errors import ConfigError

log = logging.getLogger(__name__)


def resolve_devices(devices: int | str | Sequence[int], accelerator: str) -> int | str | list[int]:
    """Turn `trainer.devices` into what the Trainer takes.

    Args:
        devices: `auto`, a number of devices, a list of device ids, `free` (the GPU with most free memory) or
            `free:N` (the N such GPUs).
        accelerator: `auto`, `cpu`, `gpu` or another name the Trainer knows.

    Raises:
        ConfigError: More GPUs are asked for than there are, or an id does not exist.
    """
    on_gpu = accelerator in ("gpu", "cuda") or (accelerator == "auto" and torch.cuda.is_available())
    if not on_gpu:
        if accelerator == "auto" and devices not in ("auto", 1):  # a run on GPUs may be evaluated without
            log.warning("trainer.devices=%s, but no GPU is visible: running on the CPU", devices)
        if accelerator in ("cpu", "auto"):
            return devices if isinstance(devices, int) and accelerator == "cpu" else 1
        return devices if isinstance(devices, int | str) else list(devices)
    n_gpus = torch.cuda.device_count()
    if n_gpus == 0:
        raise ConfigError(
            "trainer.accelerator=gpu, but no GPU is visible; use trainer=cpu or trainer=default"
        )
    if isinstance(devices, str):
        return _named_devices(devices, n_gpus)
    if isinstance(devices, int):
        _check_count(devices, n_gpus)
        return devices
    _check_count(len(devices), n_gpus)
    unknown = [index for index in devices if index not in range(n_gpus)]
    if unknown:
        raise ConfigError(
            f"trainer.devices={list(devices)}: there is no GPU {', '.join(map(str, unknown))}; "
            f"visible GPUs: {', '.join(map(str, range(n_gpus)))}"
        )
    return list(devices)


def first_device(devices: int | str | Sequence[int], accelerator: str) -> torch.device:
    """The device of what runs on one, without a Trainer.

    Args:
        devices: As for `resolve_devices`.
        accelerator: As for `resolve_devices`.

    Raises:
        ConfigError: As for `resolve_devices`.
    """
    chosen = resolve_devices(devices, accelerator)
    if accelerator not in ("gpu", "cuda", "auto") or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", chosen[0] if isinstance(chosen, list) else 0)


def _named_devices(devices: str, n_gpus: int) -> str | list[int]:
    if devices == "auto":
        return "auto"
    name, _, number = devices.partition(":")
    if name != "free" or not (number or "1").isdigit():
        raise ConfigError(
            f"trainer.devices={devices} is not auto, free, free:N, a number or a list of ids like [0,1]"
        )
    wanted = int(number or 1)
    _check_count(wanted, n_gpus)
    free = [torch.cuda.mem_get_info(index)[0] for index in range(n_gpus)]  # bytes
    return sorted(sorted(range(n_gpus), key=lambda index: -free[index])[:wanted])


def _check_count(wanted: int, n_gpus: int) -> None:
    if wanted > n_gpus or wanted == 0:
        raise ConfigError(f"trainer.devices asks for {wanted} GPUs, but {n_gpus} are visible")


def resolve_precision(precision: str, accelerator: str) -> str:
    """Turn `auto` into bf16-mixed or 16-mixed on a GPU and 32-true elsewhere; other values pass.

    Args:
        precision: `auto`, or a precision of the Trainer.
        accelerator: `auto`, `cpu`, `gpu` or another name the Trainer knows.
    """
    if precision != "auto":
        return precision
    if accelerator in ("gpu", "cuda", "auto") and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"
    return "32-true"
