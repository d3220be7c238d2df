"""Several processes that share each batch (DDP) and end with the numbers of one.

What Lightning's strategy leaves to others is done here: batches are shared out as `data.sharing` describes, the other
processes are started with the configuration of this one (also that of a job of a sweep), they stop when one of them
dies, and the wrapper that averages gradients is made anew with the parameters of each stage.
"""

import contextlib
import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import lightning.pytorch as L
import torch
import torch.distributed as dist
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from torch.utils.data import DataLoader

from tocsin import processes
from tocsin.data.sharing import shared_out
from tocsin.errors import ConfigError, TocsinError

POLL_S = 0.5  # between looks at whether the other processes are alive
GRACE_S = 2.0  # that a process has to say why it ends
NAMES = ("auto", "ddp")


def resolve_strategy(
    name: str, devices: int | str | Sequence[int], *, n_nodes: int, kind: str, ckpt_path: str | None = None
) -> "SharedBatchesStrategy | Literal['auto']":
    """Turn `trainer.strategy` into what the Trainer takes.

    Args:
        name: `auto` or `ddp`; with more than one device both mean the same.
        devices: As `devices.resolve_devices` gives them.
        n_nodes: Machines.
        kind: Kind of the data.
        ckpt_path: Checkpoint of the run, where it has one.

    Raises:
        ConfigError: Another name, a model that cannot share batches, or not as many devices as there are processes.
    """
    if name not in NAMES:
        raise ConfigError(f"trainer.strategy={name} is not one of {', '.join(NAMES)}")
    if devices in ("auto", -1):
        n_devices = torch.cuda.device_count()
    elif isinstance(devices, str):
        n_devices = len(devices.split(","))
    else:
        n_devices = devices if isinstance(devices, int) else len(devices)
    wanted, started = n_devices * n_nodes, processes.n_started()
    if started is not None and started != wanted:
        raise ConfigError(
            f"{started} processes were started, but trainer.devices={devices} and trainer.num_nodes={n_nodes} ask "
            f"for {wanted}: set them to what torchrun or srun starts on a machine, and to the number of machines"
        )
    if wanted < 2:
        return "auto"
    if kind == "detection":
        raise ConfigError("a patch is trained in one process: set trainer.devices=1")
    return SharedBatchesStrategy(ckpt_path)


@contextlib.contextmanager
def in_step(trainer: L.Trainer) -> Iterator[None]:
    """What the processes of a run do together; afterwards they part, so that the next job of a sweep finds none.

    Raises:
        TocsinError: One of them has ended too soon.
    """
    strategy = trainer.strategy
    if not isinstance(strategy, SharedBatchesStrategy):
        yield
        return
    try:
        yield
        strategy.barrier()  # the leader has files to write
    except RuntimeError as error:  # what a backend raises when nothing comes from another process
        lost = strategy.own_launcher.lost()
        strategy.own_launcher.abandon()
        if lost is not None:
            raise TocsinError(lost) from error
        raise
    except BaseException:
        strategy.own_launcher.abandon()
        raise
    dist.destroy_process_group()
    strategy.own_launcher.end()


class SharedBatchesStrategy(DDPStrategy):
    """DDP in which every batch of a loader is shared out among the processes.

    Args:
        ckpt_path: Checkpoint of the run, as the configuration has it; the other processes are told, because the
            launcher of a sweep sets it without an override.
    """

    def __init__(self, ckpt_path: str | None = None) -> None:
        self.ckpt_path = ckpt_path
        super().__init__(
            find_unused_parameters=True,  # a step may leave some alone: a backbone that is frozen at first
            broadcast_buffers=False,  # what a loss writes into them it makes of the whole batch
            # In a Slurm job of one task the others are not started by srun.
            cluster_environment=LightningEnvironment() if os.environ.get("SLURM_NTASKS") == "1" else None,
        )

    def _configure_launcher(self) -> None:
        assert self.cluster_environment is not None
        self._launcher = ProcessLauncher(self.cluster_environment, self.num_processes, self.num_nodes)
        # What `free:2` found here, another process would not find again.
        devices = self.parallel_devices or []
        on_gpu = devices and devices[0].type == "cuda"
        chosen = [device.index for device in devices] if on_gpu else len(devices)
        options = [f"++trainer.devices={chosen}".replace(" ", "")]
        if self.ckpt_path is not None:
            options.append(f"ckpt_path={quoted(self.ckpt_path)}")
        self._launcher.options = options

    @property
    def own_launcher(self) -> "ProcessLauncher":
        """Starts and watches the other processes."""
        assert isinstance(self.launcher, ProcessLauncher)
        return self.launcher

    def process_dataloader(self, dataloader: object) -> object:
        assert isinstance(dataloader, DataLoader)
        return shared_out(dataloader, world=self.world_size, rank=self.global_rank)

    def configure_ddp(self) -> None:
        """Nothing yet: `setup_optimizers` follows, and is called for further stages too."""

    def setup_optimizers(self, trainer: L.Trainer) -> None:
        super().setup_optimizers(trainer)
        module = self.lightning_module
        assert module is not None
        self.model = module
        gc.collect()  # the wrapper of the stage before would go on listening to gradients
        if any(parameter.requires_grad for parameter in module.parameters()):
            super().configure_ddp()


class ProcessLauncher(_SubprocessScriptLauncher):
    """Starts the other processes of this machine once, unless torchrun or srun has done so, and watches them."""

    options: Sequence[str] = ()  # of the configuration, which no override of this process names
    _watch: "Watch | None" = None

    def launch(
        self, function: Callable[..., Any], *args: Any, trainer: L.Trainer | None = None, **kwargs: Any
    ) -> Any:
        if processes.LEADER in os.environ:
            self._watch_over([], leader=int(os.environ.pop(processes.LEADER)))
        elif not self.cluster_environment.creates_processes_externally and not self.procs:
            self.procs = [self._started(rank) for rank in range(1, self.num_processes)]
            self._watch_over(self.procs, leader=None)
        return function(*args, **kwargs)

    def lost(self) -> str | None:
        """One line on a process that has died or is dying; None where there is no such one."""
        return None if self._watch is None else self._watch.lost(patience=GRACE_S)

    def end(self) -> None:
        """Wait for the processes that were started here; they end by themselves."""
        self._stop_watching()
        for process in self.procs:
            process.wait()

    def abandon(self) -> None:
        """End the processes that were started here, if they do not end by themselves."""
        self._stop_watching()
        deadline = time.monotonic() + GRACE_S
        for process in self.procs:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
            process.kill()

    def _stop_watching(self) -> None:
        if self._watch is not None and self.procs:
            self._watch.over.set()
            for name in ("MASTER_ADDR", "MASTER_PORT"):  # where these processes met, and others will not
                os.environ.pop(name, None)

    def _watch_over(self, followers: Sequence[subprocess.Popen[bytes]], *, leader: int | None) -> None:
        self._watch = Watch(followers, leader=leader)
        self._watch.start()

    def _started(self, local_rank: int) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            "MASTER_ADDR": self.cluster_environment.main_address,
            "MASTER_PORT": str(self.cluster_environment.main_port),
            "NODE_RANK": str(self.cluster_environment.node_rank()),
            "LOCAL_RANK": str(local_rank),
            "WORLD_SIZE": str(self.num_processes * self.num_nodes),
            processes.LEADER: str(os.getpid()),
        }
        environment.pop("HYDRA_FULL_ERROR", None)  # set by the command itself
        return subprocess.Popen(command_again(self.options), env=environment)


def command_again(options: Sequence[str]) -> list[str]:
    """The command that runs the configuration of this process once more, in the same folder and with options."""
    hydra = HydraConfig.get()
    own = [] if hydra.mode == RunMode.MULTIRUN else list(hydra.overrides.hydra)
    own = [text for text in own if not text.lstrip("+").startswith(("hydra.run.dir=", "hydra.mode="))]
    name = hydra.job.config_name
    return [
        *(sys.executable, "-c", f"from tocsin.cli import {name}; {name}()"),
        *hydra.overrides.task,
        *own,
        *options,
        f"hydra.run.dir={quoted(hydra.runtime.output_dir)}",
    ]


def quoted(text: str) -> str:
    """A text as a value of an override."""
    escaped = text.replace("'", "\\'")
    return f"'{escaped}'"


class Watch(threading.Thread):
    """Ends this process when one that it cannot go on without has died: a dead process answers no other one.

    Args:
        followers: Processes that this one started.
        leader: Process that started this one.
    """

    def __init__(self, followers: Sequence[subprocess.Popen[bytes]], *, leader: int | None) -> None:
        super().__init__(name="watch over processes", daemon=True)
        self.followers = followers
        self.leader = leader
        self.over = threading.Event()  # nothing is left to watch over

    def run(self) -> None:
        while not self.over.wait(POLL_S):
            if self.lost() is not None and not self.over.wait(GRACE_S):  # time for an error of its own
                for process in self.followers:
                    process.kill()
                sys.stderr.write(f"error: {self.lost()}\n")
                sys.stderr.flush()
                os._exit(1)

    def lost(self, patience: float = 0.0) -> str | None:
        """One line on a process that has died.

        Args:
            patience: Seconds to wait for one that is dying.
        """
        deadline = time.monotonic() + patience
        while True:
            if self.leader is not None and os.getppid() != self.leader:
                return "the first process of this run has ended; ckpt_path=last resumes it"
            if failed := [code for process in self.followers if (code := process.poll())]:
                return f"a process of this run ended with exit code {failed[0]}; ckpt_path=last resumes it"
            if time.monotonic() >= deadline:
                return None
            time.sleep(POLL_S / 10)
