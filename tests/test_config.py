"""Every option composes and binds; every mistake is found before anything is built, and named."""

import functools
import shutil
from collections.abc import Iterator
from pathlib import Path

import lightning.pytorch  # noqa: F401  # sets variables of the environment when first imported
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tocsin import cli, config
from tocsin.config import check, check_packages, conf_dir, locate, nearest
from tocsin.errors import ConfigError
from tocsin.help import help_line
from tocsin.models.base import SeriesDetector

FILES = sorted(path.relative_to(conf_dir()).as_posix() for path in conf_dir().rglob("*.yaml"))
OPTIONS = [tuple(file.removesuffix(".yaml").rsplit("/", 1)) for file in FILES if "/" in file]
MAINS = ("train", "evaluate", "predict", "export")
HYDRA_ERRORS = (HydraException, OmegaConfBaseException)
MENTIONS = "(?s)."  # what is said in the end is tested by `explain`
NEEDED = {("threshold", "fixed"): ["threshold.value=1.5"]}  # what an option leaves for the user to give


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    """What the commands register before they compose."""
    store = ConfigStore.instance()
    before = dict(store.repo)
    cli.register()
    yield
    store.repo = before


def composed(*overrides: str, main: str = "train", conf: Path | None = None) -> DictConfig:
    with initialize_config_dir(str(conf or conf_dir()), version_base="1.3"):
        return compose(main, overrides=list(overrides))


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    """A copy of the configuration to spoil."""
    shutil.copytree(conf_dir(), tmp_path / "conf")
    return tmp_path / "conf"


def experiment(conf: Path, text: str) -> str:
    (conf / "experiment").mkdir(exist_ok=True)
    (conf / "experiment" / "own.yaml").write_text(f"# @package _global_\n# Own\n{text}\n")
    return "experiment=own"


def groups_of(main: str) -> list[str]:
    defaults = OmegaConf.load(conf_dir() / f"{main}.yaml").defaults
    return [str(name) for entry in defaults if isinstance(entry, DictConfig) for name in entry]


def kind_of(group: str, option: str) -> str | None:
    target = OmegaConf.load(conf_dir() / group / f"{option}.yaml").get("_target_")
    return getattr(locate(target), "kind", getattr(locate(target), "accepts", None)) if target else None


def fitting(group: str, option: str) -> list[str]:
    """Choices of model, data and task that go with an option of one of these, or of augmentation."""
    if group == "augment":
        return ["data=defects", *fitting("data", "defects")]
    kind = kind_of(group, option) if group in ("model", "data", "task") else None
    return [
        f"{other}={next(o for g, o in OPTIONS if g == other and kind_of(g, o) == kind)}"
        for other in ("model", "data", "task")
        if kind is not None and other != group
    ]


# --- every option -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("group", "option"), [row for row in OPTIONS if not row[0].startswith("hydra/")])
def test_option_composes_and_binds(group: str, option: str) -> None:
    plus = "" if group in groups_of("train") else "+"
    cfg = composed(f"{plus}{group}={option}", *fitting(group, option), *NEEDED.get((group, option), []))
    check(cfg)
    own = OmegaConf.load(conf_dir() / group / f"{option}.yaml")
    if "_target_" in own:
        assert cfg[group]._target_ == own._target_


@pytest.mark.parametrize(("group", "option"), [row for row in OPTIONS if row[0].startswith("hydra/")])
def test_option_of_hydra_composes(group: str, option: str) -> None:
    name = group.removeprefix("hydra/").replace("/", ".")
    needed = ["hydra/sweeper=optuna"] if group == "hydra/sweeper/sampler" else []
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("train", overrides=[*needed, f"{group}={option}"], return_hydra_config=True)
    assert cfg.hydra.runtime.choices[group] == option
    assert OmegaConf.select(cfg.hydra, name)


@pytest.mark.parametrize("main", ["evaluate", "predict"])
def test_other_commands_compose_with_what_a_checkpoint_holds(main: str) -> None:
    run = OmegaConf.to_container(composed("model=pca"), resolve=False)
    ConfigStore.instance().store("run", run, package="_global_")
    extra = ["input=new.csv"] if main == "predict" else ["threshold=mad"]
    cfg = composed("ckpt_path=a/checkpoints/best.ckpt", *extra, main=main)
    check(cfg)
    assert cfg.model._target_ == "tocsin.models.pca.WindowPCA"
    assert cfg.ckpt_path == "a/checkpoints/best.ckpt"


def bind_data(cfg: DictConfig) -> None:
    for key, node in config._targets(cfg.data, "data"):
        config._check_arguments(key, node, locate(node["_target_"], key))


@pytest.mark.parametrize(
    ("overrides", "first", "count"),
    [
        ([], "albumentations.HorizontalFlip", 8),  # what the data bring
        (["augment=light"], "albumentations.HorizontalFlip", 3),
        (["augment=none"], None, 0),
        (["augment=none", "data.augment=[{_target_: albumentations.D4, p: 1}]"], "albumentations.D4", 1),
    ],
)
def test_augmentation_is_chosen_by_name_or_as_a_list(
    overrides: list[str], first: str | None, count: int
) -> None:
    cfg = composed("data=defects", *overrides)
    bind_data(cfg)
    assert len(cfg.data.augment) == count
    assert first is None or cfg.data.augment[0]._target_ == first
    assert "augment" not in cfg  # they are options of the data, and of no other kind of data
    with pytest.raises(ConfigError, match=r"data\.augment: SlidingServerMetrics has no such option"):
        check(composed("data=sliding", "augment=light"))


def test_unknown_argument_of_a_transform_is_found_before_any_data_are_made() -> None:
    with pytest.raises(
        ConfigError, match=r"data\.augment\.0\.std_rnge: GaussNoise .* did you mean std_range"
    ):
        bind_data(
            composed("data=defects", "data.augment=[{_target_: albumentations.GaussNoise, std_rnge: 1}]")
        )


def test_augmentation_of_a_checkpoint_is_kept_or_chosen_anew() -> None:
    run = OmegaConf.to_container(composed("data=defects", "augment=light"), resolve=False)
    ConfigStore.instance().store("run", run, package="_global_")
    assert len(composed("ckpt_path=a.ckpt", main="evaluate").data.augment) == 3
    assert len(composed("ckpt_path=a.ckpt", "data=defects", main="evaluate").data.augment) == 8


def test_every_file_says_in_one_line_what_it_is() -> None:
    lines = {file: help_line(conf_dir() / file) for file in FILES}
    assert [file for file, line in lines.items() if not 3 <= len(line) <= 110] == []
    assert len(set(lines.values())) == len(lines)


def test_defaults_of_the_main_files_are_in_the_order_of_precedence() -> None:
    defaults = OmegaConf.to_container(OmegaConf.load(conf_dir() / "train.yaml").defaults)
    assert isinstance(defaults, list)
    names = [entry if isinstance(entry, str) else next(iter(entry)) for entry in defaults]
    places = [names.index(name) for name in ("train_schema", "data", "_self_", "experiment", "debug")]
    assert places == sorted(places)
    assert places[0] == 0


# --- precedence ---------------------------------------------------------------------------------------------


def test_main_file_wins_over_its_groups_experiment_over_main_debug_over_experiment(conf: Path) -> None:
    with (conf / "train.yaml").open("a") as file:
        file.write("\ntrainer:\n  max_epochs: 99\n  log_every_n_steps: 7\n")
    assert composed().trainer.max_epochs not in (99, 8, 2, 3)
    assert composed(conf=conf).trainer.max_epochs == 99
    chosen = experiment(conf, "seed: 5\ntrainer:\n  max_epochs: 8\n  precision: 16-mixed")
    cfg = composed(chosen, conf=conf)
    assert (cfg.trainer.max_epochs, cfg.trainer.log_every_n_steps, cfg.seed) == (8, 7, 5)
    cfg = composed(chosen, "debug=fast", conf=conf)
    assert (cfg.trainer.max_epochs, cfg.trainer.precision) == (2, "16-mixed")
    assert composed(chosen, "debug=fast", "trainer.max_epochs=3", conf=conf).trainer.max_epochs == 3


def test_group_deltas_win_over_their_base() -> None:
    assert composed("trainer=cpu").trainer.accelerator == "cpu"
    assert composed("trainer=gpu").trainer.accelerator == "gpu"


# --- typos --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("modle=mae", "there is no key modle; did you mean model?"),
        ("sed=4", "there is no key sed; did you mean seed?"),
        ("model=mea", "model=mea: there is no such option; did you mean mae?"),
        ("trainer.max_epoch=3", "there is no key trainer.max_epoch; did you mean max_epochs?"),
        (
            "optimizer.learning_rate=1",
            "there is no key optimizer.learning_rate; there are: _target_, fused, lr",
        ),
        ("hydra/job_logging=sterr", "hydra/job_logging=sterr: there is no such option; did you mean stderr?"),
    ],
)
def test_typo_on_the_command_line(override: str, message: str) -> None:
    with pytest.raises(HYDRA_ERRORS, match=MENTIONS) as found:
        composed(override)
    explained = cli.explain(found.value)
    assert message in explained
    assert "\n" not in explained


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+sed=4", "there is no key sed; did you mean seed"),
        ("+trainer.max_epoch=3", r"trainer\.max_epoch: Trainer has no such option; did you mean max_epochs"),
        (
            "+model.patchsize=3",
            r"model\.patchsize: MaskedAutoencoder has no such option; did you mean patch_size",
        ),
        (
            "+task.scorer.smoth=ema",
            r"task\.scorer\.smoth: ErrorScorer has no such option; did you mean smooth",
        ),
        (
            "+callbacks.early_stoping.patience=3",
            r"callbacks\.early_stoping has no _target_; did you mean early_st",
        ),
        ("+logger.tensorbord.name=x", r"logger\.tensorbord has no _target_; did you mean tensorboard"),
    ],
)
def test_typo_behind_a_plus_sign(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check(composed(override))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer.max_epochs=abc", r"trainer\.max_epochs=abc is not a whole number or null"),
        ("trainer.max_epochs=1.5", r"trainer\.max_epochs=1\.5 is not a whole number or null"),
        ("data.total_length=abc", r"data\.total_length=abc is not a whole number"),
        ("trainer.gradient_clip_val=abc", r"trainer\.gradient_clip_val=abc is not a number or null"),
        ("optimizer.lr=abc", r"optimizer\.lr=abc is not a number"),
        ("++model.instance_norm=ture", r"model\.instance_norm=ture is not true or false"),
        ("++optimizer.betas=abc", r"optimizer\.betas=abc is not a list"),
    ],
)
def test_text_where_a_number_is_needed(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}$"):
        check(composed(override))


@pytest.mark.parametrize(
    "override",
    ["trainer.devices=free", "trainer.precision=64-true", "optimizer.lr=1", "trainer.max_epochs=null"],
)
def test_values_of_any_type_that_an_option_takes(override: str) -> None:
    check(composed(override))


def test_missing_input_is_named() -> None:
    choices = ["+model=pca", "+data=sliding", "+task=series_anomaly", "+optimizer=adamw", "+threshold=auto"]
    ConfigStore.instance().store("run", {}, package="_global_")
    cfg = composed(*choices, "trainer=cpu", "ckpt_path=a.ckpt", main="predict")
    with pytest.raises(ConfigError, match=r"^input must be given: add input=\.\.\.$"):
        check(cfg)


def test_top_level_typo_in_an_experiment(conf: Path) -> None:
    with pytest.raises(HYDRA_ERRORS, match=MENTIONS) as found:
        composed(experiment(conf, "sed: 4"), conf=conf)
    explained = cli.explain(found.value)
    assert explained == "In 'experiment/own': there is no key sed; did you mean seed?"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "trainer:\n  max_epoch: 3",
            r"trainer\.max_epoch: Trainer has no such option; did you mean max_epochs",
        ),
        (
            "data:\n  batchsize: 3",
            r"data\.batchsize: SlidingServerMetrics has no such .* did you mean batch_size",
        ),
        (
            "callbacks:\n  checkpoint:\n    min_dleta: 1",
            r"callbacks\.checkpoint\.min_dleta: BestAndLast has no such option; did you mean min_delta",
        ),
        (
            "callbacks:\n  chekpoint:\n    monitor: x",
            r"callbacks\.chekpoint has no _target_; did you mean checkpoint",
        ),
    ],
)
def test_nested_typo_in_an_experiment(conf: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check(composed(experiment(conf, text), conf=conf))


def test_callbacks_are_switched_off_by_null() -> None:
    check(composed("callbacks.report=null", "logger=none"))
    check(composed("~callbacks"))


def test_wrong_type_names_key_and_reason() -> None:
    with pytest.raises(HYDRA_ERRORS, match=MENTIONS) as found:
        composed("seed=abc")
    assert cli.explain(found.value).endswith(
        "seed=abc: Value 'abc' of type 'str' could not be converted to Integer"
    )


def test_value_that_the_user_must_give() -> None:
    with pytest.raises(ConfigError, match=r"threshold\.value must be given: add threshold\.value=\.\.\."):
        check(composed("threshold=fixed"))
    check(composed("threshold=fixed", "threshold.value=2"))
    cfg = composed("threshold=fixed")
    cfg.threshold = {"_target_": cfg.threshold._target_}
    with pytest.raises(ConfigError, match=r"threshold\.value must be given: add \+threshold\.value=\.\.\."):
        check(cfg)


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("sed", "did you mean seed?"),
        ("modle", "did you mean model?"),
        ("mod", "did you mean mode?"),
        ("xyz", "there are: mode, model, seed"),
    ],
)
def test_nearest(word: str, hint: str) -> None:
    assert nearest(word, ["seed", "model", "mode"]) == hint
    assert nearest(word, []) == "there are: none"


# --- what may be built --------------------------------------------------------------------------------------

FOREIGN = [
    "os.system",
    "builtins.eval",
    "torch.hub.load",
    "subprocess.Popen",
    "tocsin.cli.train",
    "tocsin.modelsx.Evil",
    "lightning.pytorch.utilities.migration.migrate_checkpoint",
    "",
]
IN_DISGUISE = [
    "tocsin.models.mae.torch.load",
    "tocsin.models.mae.torch",
    "tocsin.models.mae.Tensor",
    "tocsin.data.cache.os.system",
    "tocsin.data.cache.Path",
    "tocsin.data.readers.read_series",
    "tocsin.models.mae.NoSuchNet",
    "tocsin.models.no_such_file.Net",
]


@pytest.mark.parametrize("target", FOREIGN)
def test_foreign_target_is_refused(target: str) -> None:
    with pytest.raises(
        ConfigError, match=r"^here: .* is not an allowed target; allowed are classes of tocsin\."
    ):
        locate(target, "here")


@pytest.mark.parametrize("target", IN_DISGUISE)
def test_only_classes_of_the_allowed_modules_are_let_through(target: str) -> None:
    with pytest.raises(
        ConfigError, match=r"^here: .*(cannot be imported|is not a class of an allowed module)"
    ):
        locate(target, "here")


def test_target_that_is_no_text_is_refused() -> None:
    with pytest.raises(ConfigError, match="3 is not an allowed target"):
        locate(3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "hidden",
    [
        {"model": {"_target_": "os.system", "command": "touch trap"}},
        {"task": {"scorer": {"_target_": "os.system", "command": "touch trap"}}},
        {"callbacks": {"report": {"_target_": "os.system", "command": "touch trap"}}},
        {"callbacks": {"hydra": {"_target_": "os.system", "command": "touch trap"}}},
        {"logger": {"a": {"_target_": "os.system", "command": "touch trap"}}},
        {"data": {"path": [{"_target_": "os.system", "command": "touch trap"}]}},
        {"data": {"path": [[{"a": {"_target_": "os.system", "command": "touch trap"}}]]}},
        {"task": {"scorer": "${cache_dir}"}, "cache_dir": {"_target_": "os.system", "command": "touch trap"}},
        {"task": {"scorer": {"_target_": "${oc.decode:os.system}", "command": "touch trap"}}},
    ],
)
def test_foreign_target_is_found_wherever_hydra_would_build_it(hidden: dict[str, object]) -> None:
    cfg = OmegaConf.create(OmegaConf.to_container(composed("data=series")))  # without types and locks
    assert isinstance(cfg, DictConfig)
    cfg.merge_with(hidden)
    with pytest.raises(ConfigError, match=r"os\.system is not an allowed target"):
        check(cfg)
    assert not Path("trap").exists()


def test_checking_builds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = composed("data=synthetic", "model=pca")

    built = []
    for group in ("data", "model", "task"):
        target = locate(cfg[group]._target_)
        original = target.__init__

        @functools.wraps(original)  # the signature is what is checked
        def init(self: object, *args: object, **kwargs: object) -> None:
            built.append(type(self))

        monkeypatch.setattr(target, "__init__", init)
    check(cfg)
    assert built == []


# --- kinds --------------------------------------------------------------------------------------------------


@pytest.fixture
def image_model(monkeypatch: pytest.MonkeyPatch) -> str:
    """A detector that reads another kind of data, in a module where targets may lie."""
    from tocsin.models import pca

    class Picture(SeriesDetector):
        kind = "picture"

    Picture.__module__ = pca.__name__
    monkeypatch.setattr(pca, "Picture", Picture, raising=False)
    return f"{pca.__name__}.Picture"


def test_model_and_data_of_different_kinds_name_what_fits(image_model: str) -> None:
    cfg = composed("data=sliding", "model=pca")
    cfg.model = {"_target_": image_model}
    message = (
        "this model reads picture data, but these data are of kind series; "
        r"models for series data: .*iforest, kmeans, .*pca.*; data for this model: none yet"
    )
    with pytest.raises(ConfigError, match=message):
        check(cfg)


def test_task_of_another_kind_is_refused(image_model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = composed("data=sliding", "model=pca")
    cfg.model = {"_target_": image_model}
    monkeypatch.setattr(locate(cfg.data._target_), "kind", "picture")
    message = "SeriesAnomaly accepts series data, but model and data are of kind picture"
    with pytest.raises(ConfigError, match=message):
        check(cfg)


# --- loggers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("package", ["mlflow", "wandb"])
def test_a_logger_whose_package_is_missing_is_named(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = composed(f"logger={package}")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=f"logger={package} needs a package .*: pip install {package}"):
        check_packages(cfg)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    check_packages(cfg)


@pytest.mark.parametrize("option", ["none", "tensorboard", "csv", "tensorboard_csv"])
def test_other_loggers_need_no_package(option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = composed(f"logger={option}")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    check_packages(cfg)
    assert sorted(cfg.logger) == (sorted(option.split("_")) if option != "none" else [])
