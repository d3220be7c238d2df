"""`hydra/sweeper=optuna`: hydra-optuna-sweeper, told of failed jobs in a way that it understands.

The launchers of the project give NaN for a failed job. Optuna 2 ends a study that is told NaN, so a failed job has no
value at all here, which it takes as a failed trial and goes on.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

logging.getLogger("alembic").setLevel(
    logging.WARNING
)  # what Optuna's storage says of itself when it is imported


class OptunaSearch(Sweeper):
    """Passes everything on to the sweeper of hydra-optuna-sweeper.

    Args:
        sampler: What proposes the next values.
        direction: `minimize` or `maximize`.
        storage: Where Optuna keeps its study; None: in memory.
        study_name: Its name there.
        n_trials: Jobs in all.
        n_jobs: Jobs given to the launcher at a time.
        max_failure_rate: Largest share of failed jobs among those given at a time.
        search_space: Older name of `params`.
        custom_search_space: Dotted path of a function that sets values of a trial.
        params: Values or ranges of each key.

    Raises:
        ConfigError: hydra-optuna-sweeper is not installed.
    """

    def __init__(
        self,
        *,
        sampler: Any,
        direction: str,
        storage: Any = None,
        study_name: str | None = None,
        n_trials: int = 20,
        n_jobs: int = 1,
        max_failure_rate: float = 1.0,
        search_space: Any = None,
        custom_search_space: str | None = None,
        params: Any = None,
    ) -> None:
        from tocsin.errors import ConfigError

        try:
            from hydra_plugins.hydra_optuna_sweeper.optuna_sweeper import OptunaSweeper

            self._optuna = OptunaSweeper(
                sampler,
                direction,
                storage,
                study_name,
                n_trials,
                n_jobs,
                max_failure_rate,
                search_space,
                custom_search_space,
                params,
            )
        except ImportError as error:
            raise ConfigError(f"hydra/sweeper=optuna: {error}; pip install 'tocsin[sweep]'") from error
        self._launcher: WithoutNan | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self._optuna.setup(hydra_context=hydra_context, task_function=task_function, config=config)
        launcher = self._optuna.sweeper.launcher
        assert launcher is not None
        self._launcher = WithoutNan(launcher)
        self._optuna.sweeper.launcher = self._launcher

    def sweep(self, arguments: list[str]) -> None:
        """Run the search.

        Raises:
            TocsinError: Every job has failed.
        """
        from tocsin.errors import TocsinError

        try:
            self._optuna.sweep(arguments)
        except ValueError as error:
            if self._launcher is not None and self._launcher.n_failed and not self._launcher.n_succeeded:
                raise TocsinError(
                    f"all {self._launcher.n_failed} jobs of the search have failed: there is no best one; "
                    "their logs and errors are in the folders of the jobs"
                ) from error
            raise


class WithoutNan(Launcher):
    """Launches as another launcher does; a job whose value is NaN has none.

    Args:
        launcher: The other one, set up.
    """

    def __init__(self, launcher: Launcher) -> None:
        self.launcher = launcher
        self.n_succeeded = self.n_failed = 0

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.launcher.setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        returned = [
            _without_nan(job) for job in self.launcher.launch(job_overrides, initial_job_idx=initial_job_idx)
        ]
        failed = sum(job.status != JobStatus.COMPLETED or job.return_value is None for job in returned)
        self.n_failed += failed
        self.n_succeeded += len(returned) - failed
        return returned


def _without_nan(job: JobReturn) -> JobReturn:
    if job.status != JobStatus.COMPLETED:
        return job
    value = job.return_value
    failed = isinstance(value, float) and not math.isfinite(value)
    return replace(job, _return_value=None) if failed else job
