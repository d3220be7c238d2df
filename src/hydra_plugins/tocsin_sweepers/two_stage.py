"""`hydra/sweeper=two_stage`: the part of the two-stage search that speaks with Hydra.

Hydra imports this file at every start, so what is heavy is imported where it is needed. The search is in
`tocsin.search`.
"""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import ConfigCompositionException
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write


class TwoStageSweeper(Sweeper):
    """Runs a grid in quick, promotes the promising jobs and runs them in full.

    Args:
        params: The grid: comma-separated values of each key; the command line adds to it.
        quick: Overrides of the first stage, as a mapping or a list of `key=value`.
        full: Overrides of the second stage.
        promote: The best so many of the first stage are run in full.
        per_value: And the best so many of each value of each key.
        limit: Most jobs of the second stage; None for no limit.
        metric: What decides, `<section>.<name>` of metrics.json; None for the value that the runs monitor.
        mode: `min` or `max`; None for the mode of the runs, if there is no `metric`.
        max_batch_size: Jobs that are given to the launcher at a time; None for all of a stage.
    """

    def __init__(
        self,
        *,
        params: Mapping[str, Any] | None = None,
        quick: Mapping[str, Any] | Sequence[str] | None = None,
        full: Mapping[str, Any] | Sequence[str] | None = None,
        promote: int = 10,
        per_value: int = 1,
        limit: int | None = None,
        metric: str | None = None,
        mode: str | None = None,
        max_batch_size: int | None = None,
    ) -> None:
        self.params, self.quick, self.full = params, quick, full
        self.promote, self.per_value, self.limit = promote, per_value, limit
        self.metric, self.mode = metric, mode
        self.max_batch_size = max_batch_size
        self._context: HydraContext | None = None
        self._task: TaskFunction | None = None
        self._config: DictConfig | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self._context, self._task, self._config = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> None:
        """Run both stages; then draw what was found."""
        from tocsin.search.run import search

        assert self._config is not None
        sweep_dir = Path(self._config.hydra.sweep.dir).absolute()
        sweep_dir.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self._config, sweep_dir / "multirun.yaml")
        study = search(self._plan(arguments), sweep_dir, self._launch)
        from tocsin.search.pictures import draw_study  # matplotlib and all of it: when the jobs are done

        draw_study(study)

    def _plan(self, arguments: Sequence[str]) -> Any:
        from tocsin.cli import settable
        from tocsin.errors import ConfigError
        from tocsin.search.plan import Plan, as_overrides, bare_key

        assert self._config is not None
        assert self._context is not None
        if self.metric is not None and self.mode is None:
            raise ConfigError(f"hydra.sweeper.metric={self.metric} needs hydra.sweeper.mode=max, or min")
        grid = [f"{key}={values}" for key, values in (self.params or {}).items()]
        given = [settable(text) for text in (*grid, *arguments)]
        parser = OverridesParser.create(
            config_loader=self._context.config_loader
        )  # it knows what glob() finds
        swept: dict[str, list[str]] = {}
        fixed: dict[str, str] = {}
        for override in parser.parse_overrides(given):
            key = override.get_key_element()
            if override.is_sweep_override() and not override.is_discrete_sweep():
                raise ConfigError(
                    f"{override.input_line}: a grid needs values to choose from, as in {key}=1,2,3"
                )
            for known in [other for other in (*swept, *fixed) if bare_key(other) == bare_key(key)]:
                swept.pop(known, None)  # what is given later wins, and keeps one meaning
                fixed.pop(known, None)
            if override.is_sweep_override():
                swept[key] = list(override.sweep_string_iterator())
            else:
                fixed[key] = override.input_line or f"{key}={override.get_value_element_as_str()}"
        return Plan(
            swept=swept,
            fixed=list(fixed.values()),
            quick=[settable(text) for text in as_overrides(self.quick)],
            full=[settable(text) for text in as_overrides(self.full)],
            promote=self.promote,
            per_value=self.per_value,
            limit=self.limit,
            metric=self.metric,
            mode=self.mode or self._config.mode,
            monitor=self._config.monitor,
        )

    def _launch(self, stage_dir: Path, overrides: Sequence[Sequence[str]]) -> list[float | BaseException]:
        """Run the jobs of a stage with a launcher of its own, whose sweep folder is that of the stage."""
        from hydra.core.plugins import Plugins

        assert self._context is not None
        assert self._task is not None
        config = stage_config(self._config, stage_dir)
        self._compose_one_of_each(config, overrides)
        size = self.max_batch_size or max(1, len(overrides))
        outcomes: list[float | BaseException] = []
        for begin in range(0, len(overrides), size):
            launcher = Plugins.instance().instantiate_launcher(
                hydra_context=self._context, task_function=self._task, config=config
            )
            batch = overrides[begin : begin + size]
            outcomes += map(_outcome, launcher.launch(batch, initial_job_idx=begin))
        return outcomes

    def _compose_one_of_each(self, config: DictConfig, overrides: Sequence[Sequence[str]]) -> None:
        """Find misspelt keys and values before the first job: compose as many jobs as show every override once."""
        assert self._context is not None
        seen: set[str] = set()
        for own in overrides:
            if seen.issuperset(own):
                continue
            seen.update(own)
            try:
                self._context.config_loader.load_sweep_config(config, list(own))
            except ConfigCompositionException as error:
                raise ConfigCompositionException(f"{' '.join(own)}: {error}") from error.__cause__


def stage_config(config: DictConfig | None, stage_dir: Path) -> DictConfig:
    """The configuration of a sweep with another folder: as the launcher sees it, and as its jobs compose it."""
    own: DictConfig = copy.deepcopy(config)  # type: ignore[assignment]
    with read_write(own), open_dict(own):
        own.hydra.sweep.dir = str(stage_dir)
        kept = [
            text for text in own.hydra.overrides.hydra if not text.lstrip("+").startswith("hydra.sweep.dir=")
        ]
        own.hydra.overrides.hydra = [*kept, f"hydra.sweep.dir='{stage_dir}'"]
    return own


def _outcome(job: JobReturn) -> float | BaseException:
    """The value of a job; NaN if it returned none; or its error."""
    if job.status == JobStatus.FAILED:
        error = job._return_value
        return error if isinstance(error, BaseException) else RuntimeError(str(error))
    value = job.return_value
    return float(value) if isinstance(value, int | float) else float("nan")
