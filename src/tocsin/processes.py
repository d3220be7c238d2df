"""One command in several processes: who leads, and what the others are told so that they write nothing.

The first process starts the others (`distributed`), or torchrun or srun starts all of them. Nothing heavy is imported
here before it is needed: the command line asks before anything is composed.
"""

import os
from collections.abc import Sequence
from datetime import datetime

from tocsin.errors import ConfigError

# The leader writes the configuration and the log of a run; the others say on the screen why they fail.
FOLLOWER_OPTIONS = ("hydra.output_subdir=null", "hydra/job_logging=follower")
RANKS = (
    "RANK",
    "LOCAL_RANK",
    "NODE_RANK",
    "SLURM_PROCID",
)  # numbers of this process; the leader is 0 by all of them
LEADER = "TOCSIN_LEADER"  # process that started this one


def is_follower() -> bool:
    """Whether another process than this one writes the files of the run."""
    return any(int(os.environ.get(name, 0)) > 0 for name in RANKS)


def follower_arguments(arguments: Sequence[str]) -> list[str]:
    """Arguments of a command that writes no files and says nothing but errors."""
    keys = tuple(f"{option.partition('=')[0]}=" for option in FOLLOWER_OPTIONS)
    return [*(text for text in arguments if not text.startswith(keys)), *FOLLOWER_OPTIONS]


def n_started() -> int | None:
    """Processes that torchrun, srun or the leader started together; None if there is only this one."""
    number = os.environ.get("WORLD_SIZE")
    if number is None and "SLURM_PROCID" in os.environ:
        number = os.environ.get("SLURM_STEP_NUM_TASKS")
    return int(number) if number is not None and int(number) > 1 else None


def start_time() -> datetime:
    """When the command was started: the same for all of its processes, as their folder is named after it.

    Raises:
        ConfigError: srun started them, and Slurm does not tell.
    """
    if n_started() is None or LEADER in os.environ:
        return datetime.now()
    if "RANK" in os.environ:
        return _agreed_time()
    if "SLURM_JOB_START_TIME" not in os.environ:
        raise ConfigError(
            "the processes that srun started need a folder in common: add hydra.run.dir=<folder>"
        )
    return datetime.fromtimestamp(int(os.environ["SLURM_JOB_START_TIME"]))


def _agreed_time() -> datetime:
    """The time of the first process that asks, by the store through which torchrun's processes meet."""
    from torch.distributed.rendezvous import rendezvous  # takes seconds

    store, rank, _ = next(iter(rendezvous("env://")))
    if rank == 0:
        store.set("tocsin_started", datetime.now().isoformat())
    return datetime.fromisoformat(store.get("tocsin_started").decode())
