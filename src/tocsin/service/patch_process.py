"""A patch job in a process of its own: `train.py` with the overrides of the job.

It lives no longer than whoever started it holds the job: that one sends a beat through a pipe while it does. When
the pipe closes, or is silent for too long, the process ends at once, wherever it is. All it writes is written whole
or not at all, so there is nothing to clean up.
"""

import logging
import os
import signal
import threading
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tocsin.errors import TocsinError
from tocsin.service.patch_request import DATABASE

log = logging.getLogger(__name__)

SILENT_S = 12.0  # after which the job is no longer ours; less than the silence after which others take it
_LOST = 3  # exit code


@dataclass(frozen=True, kw_only=True)
class PatchCall:
    """A job as it is sent to its process.

    Attributes:
        overrides: Those of the job, the same at each start.
        of_this_start: Those of this start.
        folder: Of the job.
        database: URL of the catalogue.
        gpu: CUDA_VISIBLE_DEVICES of the process; empty for the CPU.
    """

    overrides: tuple[str, ...]
    of_this_start: tuple[str, ...]
    folder: Path
    database: str
    gpu: str


def run_patch(call: PatchCall, pipe: Connection) -> None:
    """Train, and send how it ended: nothing, or one line on what is wrong."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal, to the whole group: the server decides
    threading.Thread(target=_end_when_silent, args=(pipe,), daemon=True).start()
    os.environ[DATABASE] = call.database
    os.environ["CUDA_VISIBLE_DEVICES"] = call.gpu
    os.environ["HYDRA_FULL_ERROR"] = "1"
    pipe.send_bytes(train_patch(call).encode())


def _end_when_silent(pipe: Connection) -> None:
    try:
        while pipe.poll(SILENT_S):
            pipe.recv_bytes()
    except (EOFError, OSError):
        pass
    os._exit(_LOST)


def train_patch(call: PatchCall) -> str:
    """Run `train.py` in this process.

    Returns:
        One line on what is wrong; empty if all went well.
    """
    from hydra import initialize_config_dir
    from hydra._internal.callbacks import Callbacks
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.utils import JobStatus, run_job
    from hydra.errors import HydraException
    from hydra.types import HydraContext, RunMode
    from omegaconf.errors import OmegaConfBaseException

    from tocsin.composing import explain, register
    from tocsin.config import conf_dir

    register()
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3", job_name="train"):
            hydra = GlobalHydra.instance().hydra
            assert hydra is not None
            given = [*call.overrides, *call.of_this_start]
            config = hydra.compose_config("train", given, RunMode.RUN, with_log_configuration=True)
            config.hydra.mode = RunMode.RUN
            returned = run_job(
                hydra_context=HydraContext(config_loader=hydra.config_loader, callbacks=Callbacks()),
                task_function=_train,
                config=config,
                job_dir_key="hydra.run.dir",
                job_subdir_key=None,
            )
    except (TocsinError, HydraException, OmegaConfBaseException) as error:
        return explain(error)
    if returned.status == JobStatus.COMPLETED:
        return ""
    outcome = returned._return_value  # its public property raises what a job raised
    known = isinstance(
        outcome, TocsinError | MemoryError
    )  # of others the log of the job keeps the stack trace
    log.error("the job failed: %s", explain(outcome), exc_info=None if known else outcome)
    return explain(outcome)


def _train(cfg: Any) -> float:
    from tocsin.pipeline import train

    return train(cfg)
