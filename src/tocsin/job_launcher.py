"""What all launchers of sweeps share: the folder of the sweep is its memory, and no job ends it.

A job is known by its overrides. One that the folder of the sweep holds as finished is not run again, one that was
interrupted goes on from its last checkpoint, one that failed is run again on request. So a sweep that was killed is
completed by the same command in the same `hydra.sweep.dir`, and one that is given more values runs only what is new.
"""

import fcntl
import logging
import math
import os
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, configure_log, filter_overrides, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from tocsin.errors import ConfigError
from tocsin.jobs import Job, State, job_key, read_jobs
from tocsin.sweep_job import JobCall

log = logging.getLogger(__name__)

Key = tuple[str, ...]
SETTLED = (State.FINISHED, State.PRUNED)


class JobLauncher(Launcher):
    """Runs the jobs of a sweep that are still to do, and tells how each of them ended.

    Args:
        retry_failed: Run jobs again that failed when the sweep ran before.
    """

    def __init__(self, *, retry_failed: bool = False) -> None:
        self.retry_failed = retry_failed
        self.config: DictConfig
        self.task_function: TaskFunction
        self.hydra_context: HydraContext

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context = hydra_context
        self.task_function = task_function
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run what is still to do.

        Returns:
            One for each job, in order. The value of a failed one is NaN: it does not end a sweep.

        Raises:
            ConfigError: Another sweep runs in the same folder.
        """
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        sweep_dir = Path(self.config.hydra.sweep.dir).absolute()
        sweep_dir.mkdir(parents=True, exist_ok=True)
        with _alone_in(sweep_dir):
            jobs = {job.key: job for job in read_jobs(sweep_dir)}
            todo = self._todo(job_overrides, initial_job_idx, jobs)
            unique = len({job_key(overrides) for overrides in job_overrides})
            done = unique - len(todo)
            log.info("%d jobs in %s%s", unique, sweep_dir, f", {done} of them done before" if done else "")
            try:
                for count, job in enumerate(self.run(self._calls(todo)), start=1):
                    jobs[job.key] = job
                    log.info("%d/%d #%d %s: %s", count, len(todo), job.number, _outcome(job), _shown(job))
            except KeyboardInterrupt:
                log.warning("interrupted: the same command with hydra.sweep.dir=%s goes on", sweep_dir)
                raise
        return [_returned(jobs[job_key(overrides)]) for overrides in job_overrides]

    @abstractmethod
    def run(self, calls: Sequence[JobCall]) -> Iterator[Job]:
        """Run jobs, each in a process that may die, and yield their records as they end."""

    def _todo(
        self, job_overrides: Sequence[Sequence[str]], first: int, known: Mapping[Key, Job]
    ) -> list[tuple[int, Sequence[str]]]:
        """Number and overrides of each job to run; a new job gets a number that no other has."""
        taken = {job.number for job in known.values()}
        todo: dict[Key, tuple[int, Sequence[str]]] = {}
        for number, overrides in enumerate(job_overrides, start=first):
            key = job_key(overrides)
            if key in todo:
                continue  # named twice: run once
            if key not in known:
                free = number if number not in taken else max(taken) + 1
                taken.add(free)
                todo[key] = (free, overrides)
            elif self._runs_again(known[key]):
                todo[key] = (known[key].number, overrides)
        return list(todo.values())

    def _runs_again(self, job: Job) -> bool:
        return job.state not in SETTLED and (job.state != State.FAILED or self.retry_failed)

    def _calls(self, todo: Sequence[tuple[int, Sequence[str]]]) -> list[JobCall]:
        singletons, folder = Singleton.get_state(), os.getcwd()
        calls = []
        for number, overrides in todo:
            config = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
            with open_dict(config):
                config.hydra.job.id = str(number)
                config.hydra.job.num = number
            calls.append(
                JobCall(
                    job=Job(folder=_folder(config), number=number, overrides=_plain(overrides)),
                    config=config,
                    context=self.hydra_context,
                    task=self.task_function,
                    singletons=singletons,
                    folder=folder,
                )
            )
        return calls


def _folder(config: DictConfig) -> Path:
    """Folder of a job; its name may be made of its number, which only Hydra's own part of the configuration knows."""
    from hydra.core.hydra_config import HydraConfig

    HydraConfig.instance().set_config(config)
    return Path(config.hydra.sweep.dir).absolute() / str(config.hydra.sweep.subdir)


def _plain(overrides: Sequence[str]) -> tuple[str, ...]:
    return tuple(text.lstrip("+") for text in filter_overrides(overrides))


def _returned(job: Job) -> JobReturn:
    value = job.value if job.state != State.FAILED else math.nan
    return JobReturn(overrides=job.overrides, status=JobStatus.COMPLETED, _return_value=value)


def _outcome(job: Job) -> str:
    """How a job ended, in a few words."""
    if job.state == State.FAILED:
        return f"FAILED ({job.error})"
    value = "" if job.value is None else f" with {job.value:.6g}"
    return f"{job.state}{value} in {job.seconds or 0:.1f} s"


def _shown(job: Job) -> str:
    return " ".join(job.overrides)


@contextmanager
def _alone_in(sweep_dir: Path) -> Iterator[None]:
    """Keep a second sweep out of a folder for as long as the first one runs; the lock dies with its process."""
    with (sweep_dir / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"hydra.sweep.dir={sweep_dir}: another sweep runs there; wait for it, or choose another folder"
            ) from error
        yield
