"""What patch jobs can run on. GPUs are looked at in another process: the server itself takes no memory of any."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext

from tocsin.errors import ConfigError

_WAIT_S = 120.0  # for a process that imports torch and looks at GPUs


@dataclass(frozen=True, kw_only=True)
class Device:
    """A GPU, or the CPU.

    Attributes:
        name: `cpu`, or the number and kind of a GPU.
        index: Number among the visible GPUs; None for the CPU.
        free: Bytes of its memory that were free; 0 for the CPU.
    """

    name: str
    index: int | None = None
    free: int = 0

    @property
    def visible(self) -> str:
        """CUDA_VISIBLE_DEVICES of a process that uses it alone."""
        if self.index is None:
            return ""
        listed = os.environ.get("CUDA_VISIBLE_DEVICES")
        return listed.split(",")[self.index] if listed else str(self.index)


CPU = Device(name="cpu")


def devices_of(setting: str | Sequence[int], context: ForkServerContext) -> list[Device]:
    """Devices for workers, those with most free memory first.

    Args:
        setting: `auto` for every GPU, or the CPU where there is none; `cpu`; or numbers of GPUs.
        context: Makes the process that looks.

    Raises:
        ConfigError: The setting is none of these, or there is no such GPU.
    """
    if setting == "cpu":
        return [CPU]
    if not setting or (isinstance(setting, str) and setting != "auto"):
        raise ConfigError(f"devices={setting} is not auto, cpu or a list of GPUs like [0,1]")
    gpus = _look(context)
    if setting == "auto":
        return gpus or [CPU]
    known = {gpu.index: gpu for gpu in gpus}
    missing = [str(index) for index in setting if index not in known]
    if missing:
        raise ConfigError(
            f"devices={list(setting)}: there is no GPU {', '.join(missing)}; "
            f"visible GPUs: {', '.join(gpu.name for gpu in gpus) or 'none'}; or use devices=auto"
        )
    return [gpu for gpu in gpus if gpu.index in setting]


def _look(context: ForkServerContext) -> list[Device]:
    ours, theirs = context.Pipe()
    process = context.Process(target=_tell, args=(theirs,), daemon=True)
    process.start()
    theirs.close()
    try:
        found: list[Device] = ours.recv() if ours.poll(_WAIT_S) else []
    except EOFError:  # it died: a driver that does not work
        found = []
    process.join(1.0)
    process.kill()
    ours.close()
    return found


def _tell(pipe: Connection) -> None:
    import torch

    gpus = [
        Device(
            name=f"gpu {index} ({torch.cuda.get_device_name(index)})",
            index=index,
            free=torch.cuda.mem_get_info(index)[0],
        )
        for index in range(torch.cuda.device_count())
    ]
    pipe.send(sorted(gpus, key=lambda gpu: -gpu.free))
