"""The two-stage sweeper between Hydra and a launcher."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import ConfigCompositionException
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig

from hydra_plugins.tocsin_sweepers.two_stage import TwoStageSweeper
from tocsin import cli
from tocsin.config import check, conf_dir
from tocsin.errors import ConfigError
from tocsin.pipeline import build_detector
from tocsin.search.plan import Plan


class Launcher:
    """Composes each job as a launcher does and gives it a value by its configuration."""

    def __init__(self, settings: DictConfig, context: HydraContext) -> None:
        self.settings, self.context = settings, context
        self.seen: list[tuple[str, int]] = []  # folder of the sweep, number of the job
        self.configs: list[DictConfig] = []

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        returns = []
        for number, overrides in enumerate(job_overrides, start=initial_job_idx):
            composed = self.context.config_loader.load_sweep_config(self.settings, list(overrides))
            assert composed.hydra.sweep.dir == self.settings.hydra.sweep.dir
            self.seen.append((str(composed.hydra.sweep.dir), number))
            self.configs.append(composed)
            value = float(composed.model.n_components) + composed.trainer.max_epochs / 100
            failed = composed.seed == 13
            returns.append(
                JobReturn(
                    status=JobStatus.FAILED if failed else JobStatus.COMPLETED,
                    _return_value=ValueError("thirteen") if failed else value,
                )
            )
        return returns


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Launcher]]:
    store = ConfigStore.instance()
    before = dict(store.repo)
    cli.register()
    launchers: list[Launcher] = []

    def instantiate(hydra_context: HydraContext, task_function: object, config: DictConfig) -> Launcher:
        launchers.append(Launcher(config, hydra_context))
        return launchers[-1]

    monkeypatch.setattr(Plugins.instance(), "instantiate_launcher", instantiate)
    yield launchers
    store.repo = before


def sweep(*arguments: str, settings: Sequence[str] = (), plan_only: bool = False) -> Plan | None:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        chosen = [text for text in arguments if text.startswith("search=")]
        cfg = compose(
            "train",
            ["hydra/sweeper=two_stage", *map(cli.settable, settings), *chosen],
            return_hydra_config=True,
        )
        sweeper = Plugins.instance().instantiate_sweeper(
            config=cfg,
            hydra_context=SimpleNamespace(
                config_loader=GlobalHydra.instance().config_loader(), callbacks=None
            ),
            task_function=lambda _: None,
        )
        assert type(sweeper).__name__ == TwoStageSweeper.__name__  # Hydra's scan loads the module anew
        if plan_only:
            plan = sweeper._plan([*arguments])
            assert isinstance(plan, Plan)
            return plan
        sweeper.sweep([*arguments])
    return None


GRID = ("model=pca", "model.n_components=2,3", "seed=7,8")


def test_both_stages_run_in_folders_of_their_own(made: list[Launcher], tmp_path: Path) -> None:
    settings = [
        f"hydra.sweep.dir={tmp_path}/a sweep",
        "hydra.sweeper.quick={trainer.max_epochs:1}",
        "hydra.sweeper.full=['trainer.max_epochs=3']",
        *("hydra.sweeper.promote=1", "hydra.sweeper.max_batch_size=3"),
    ]
    sweep(*GRID, settings=settings)
    quick, rest, full = made  # at most three jobs at a time
    assert [*quick.seen, *rest.seen] == [(f"{tmp_path}/a sweep/quick", number) for number in range(4)]
    assert full.seen == [(f"{tmp_path}/a sweep/full", number) for number in range(3)]
    assert {cfg.trainer.max_epochs for cfg in [*quick.configs, *rest.configs]} == {1}
    assert {cfg.trainer.max_epochs for cfg in full.configs} == {3}
    chosen = [(cfg.model.n_components, cfg.seed) for cfg in full.configs]
    assert chosen == [(2, 7), (2, 8), (3, 7)]  # the best, and the best of each value
    written = {path.name for path in (tmp_path / "a sweep").iterdir()}
    assert {"multirun.yaml", "search.json", "quick_results.csv", "full_results.csv"} <= written


def test_failed_job_costs_only_itself(made: list[Launcher], tmp_path: Path) -> None:
    sweep("model=pca", "model.n_components=2", "seed=7,13", settings=[f"hydra.sweep.dir={tmp_path}"])
    assert {cfg.seed for cfg in made[1].configs} == {7}
    assert "1,13,failed,,,,,no,,thirteen" in (tmp_path / "quick_results.csv").read_text()


def test_misspelt_key_is_found_before_the_first_job(made: list[Launcher], tmp_path: Path) -> None:
    with pytest.raises(ConfigCompositionException, match="Could not override 'optimiser'"):
        sweep(*GRID, "optimiser=adamw,sgd", settings=[f"hydra.sweep.dir={tmp_path}"])
    assert made == []


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        (["model=pca"], [], "needs a grid"),
        (["model.d_model=interval(1,3)"], [], "a grid needs values to choose from"),
        (GRID, ["hydra.sweeper.metric=val.vus_pr"], "needs hydra.sweeper.mode=max"),
    ],
)
def test_what_cannot_be_searched(
    made: list[Launcher], tmp_path: Path, arguments: list[str], settings: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        sweep(*arguments, settings=[f"hydra.sweep.dir={tmp_path}", *settings])


# --- the study of the masked auto-encoder -------------------------------------------------------------------


def test_command_line_narrows_the_grid_of_a_search(made: list[Launcher]) -> None:
    plan = sweep("search=mae_ablation", "model.d_model=32", "model.encoder_layers=2,4", plan_only=True)
    assert plan is not None
    assert len(plan.settings()) == 432 // 3
    assert plan.swept["++model.encoder_layers"] == ["2", "4"]
    assert {"search=mae_ablation", "++model.d_model=32"} <= set(plan.fixed)


def test_options_of_a_group_are_swept_by_their_pattern(made: list[Launcher]) -> None:
    plan = sweep("model=pca", "scheduler=glob(c*)", "~callbacks.report", plan_only=True)
    assert plan is not None
    assert plan.swept == {"scheduler": ["constant", "cosine"]}
    assert plan.fixed == ["model=pca", "~callbacks.report"]


@pytest.mark.parametrize("name", sorted(path.stem for path in (conf_dir() / "search").glob("*.yaml")))
def test_search_is_a_sweep_without_a_word_more(made: list[Launcher], name: str) -> None:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("train", [f"search={name}"], return_hydra_config=True)
    assert cfg.hydra.mode == RunMode.MULTIRUN
    assert cfg.hydra.sweeper.params
    assert cfg.hydra.runtime.choices["hydra/sweeper"] != "basic"


def test_ablation_has_432_combinations_that_compose_bind_and_build(made: list[Launcher]) -> None:
    plan = sweep("search=mae_ablation", plan_only=True)
    assert plan is not None
    settings = plan.settings()
    assert len(settings) == 432
    assert (plan.metric, plan.mode) == ("planted.vus_pr", "max")
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        # The last value of each key beside the first ones of the others, and every 108th: all take a minute.
        first = settings[0]
        single = [{**first, key: values[-1]} for key, values in plan.swept.items()]
        for place, setting in enumerate([first, *single, *settings[107::108]]):
            stage = "quick" if place else "full"
            cfg = compose("train", list(plan.overrides(stage, setting)))
            check(cfg)
            assert cfg.trainer.max_epochs == {"quick": 1, "full": 2}[stage]
            detector = build_detector(cfg.model, {"window": cfg.data.window, "n_channels": 8})
            assert detector.patch_size == int(setting["++model.patch_size"])
            assert [part.name for part in detector.stages] == ["train"]
