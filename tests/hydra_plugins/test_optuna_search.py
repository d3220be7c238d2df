"""Optuna between Hydra and a launcher whose jobs may fail."""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf
from omegaconf.errors import InterpolationResolutionError

from tocsin import cli, composing
from tocsin.config import conf_dir
from tocsin.errors import ConfigError, TocsinError

pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")

Value = Callable[[dict[str, str]], float | None]


class Launcher:
    """Gives each job a value by its overrides; None = it raises."""

    def __init__(self, value: Value) -> None:
        self.value = value
        self.tried: list[dict[str, str]] = []

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        returns = []
        for overrides in job_overrides:
            own = {key.lstrip("+"): value for key, _, value in (text.partition("=") for text in overrides)}
            self.tried.append(own)
            value = self.value(own)
            status = JobStatus.FAILED if value is None else JobStatus.COMPLETED
            error = ValueError("bad value") if value is None else value
            returns.append(JobReturn(status=status, _return_value=error))
        return returns


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    store = ConfigStore.instance()
    before = dict(store.repo)
    cli.register()
    yield
    store.repo = before


def searched(
    value: Value, folder: Path, monkeypatch: pytest.MonkeyPatch, *settings: str
) -> tuple[Launcher, dict[str, object]]:
    launcher = Launcher(value)
    monkeypatch.setattr(Plugins.instance(), "instantiate_launcher", lambda **_: launcher)
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        chosen = ["hydra/sweeper=optuna", f"hydra.sweep.dir={folder}", *settings]
        cfg = compose("train", chosen, return_hydra_config=True)
        context = SimpleNamespace(config_loader=GlobalHydra.instance().config_loader(), callbacks=None)
        sweeper = Plugins.instance().instantiate_sweeper(
            config=cfg,
            hydra_context=context,  # type: ignore[arg-type]
            task_function=lambda _: None,
        )
        sweeper.sweep(["model.depth=1,2,3,4", "optimizer.lr=interval(0.0,1.0)", "data=sliding"])
    results = OmegaConf.to_container(OmegaConf.load(folder / "optimization_results.yaml"))
    assert isinstance(results, dict)
    return launcher, {str(key): item for key, item in results.items()}


def formula(own: dict[str, str]) -> float:
    return abs(int(own["model.depth"]) - 3) + abs(float(own["optimizer.lr"]) - 0.5)


def test_finds_the_valley_and_takes_the_same_way_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ("hydra.sweeper.n_trials=25",)
    launcher, results = searched(formula, tmp_path, monkeypatch, *settings)
    assert len(launcher.tried) == 25
    assert results["best_value"] == min(map(formula, launcher.tried))
    assert results["best_params"]["model.depth"] == 3  # type: ignore[index]
    again, _ = searched(formula, tmp_path, monkeypatch, *settings)
    assert again.tried == launcher.tried
    other, _ = searched(formula, tmp_path, monkeypatch, *settings, "seed=1")
    assert other.tried != launcher.tried


def test_direction_is_the_mode_of_the_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    launcher, results = searched(formula, tmp_path, monkeypatch, "mode=max", "hydra.sweeper.n_trials=12")
    assert results["best_value"] == max(map(formula, launcher.tried))


@pytest.mark.parametrize("failure", [math.nan, None])
def test_failed_jobs_do_not_end_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: float | None
) -> None:
    def value(own: dict[str, str]) -> float | None:
        return failure if own["model.depth"] == "3" else formula(own)

    launcher, results = searched(value, tmp_path, monkeypatch, "hydra.sweeper.n_trials=16")
    assert len(launcher.tried) == 16
    assert any(own["model.depth"] == "3" for own in launcher.tried)
    assert results["best_params"]["model.depth"] != 3  # type: ignore[index]


def test_search_of_which_all_jobs_fail_ends_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TocsinError, match="all 3 jobs of the search have failed"):
        searched(lambda _: math.nan, tmp_path, monkeypatch, "hydra.sweeper.n_trials=3")


def test_mode_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InterpolationResolutionError, match="mode=best is neither min nor max"):
        searched(formula, tmp_path, monkeypatch, "mode=best")
    with pytest.raises(ConfigError, match="mode=best is neither min nor max"):
        composing.direction("best")
