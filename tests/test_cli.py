"""The command line: help without torch, one line for each mistake, run folders."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import InstantiationException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tocsin import cli
from tocsin.config import conf_dir
from tocsin.errors import ConfigError, DataError
from tocsin.help import help_line, help_text

ROOT = Path(__file__).parents[1]


def command(*arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, as a user calls it."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    environment.pop("HYDRA_FULL_ERROR", None)
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


# --- help ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["train", "evaluate", "predict"])
def test_help_lists_every_option_with_its_line(name: str) -> None:
    text = help_text(name, conf_dir(), f"python {name}.py")
    defaults = OmegaConf.load(conf_dir() / f"{name}.yaml").defaults
    groups = [str(key) for entry in defaults if not isinstance(entry, str) for key in entry]
    groups = [group for group in groups if any((conf_dir() / group).glob("*.yaml"))]
    assert groups
    assert text.count("=\n") == len(groups)  # no heading without an option
    for group in groups:
        section = text.split(f"\n{group}=\n")[1].split("\n\n")[0]
        listed = {line[4:].split()[0]: line[4:].split(maxsplit=1)[1] for line in section.splitlines()}
        files = (conf_dir() / group).glob("*.yaml")
        assert listed == {path.stem: help_line(path) for path in files}
    assert f"python {name}.py" in text.splitlines()[2]


def test_help_marks_defaults_and_shows_top_level_keys() -> None:
    text = help_text("train", conf_dir(), "python train.py")
    lines = text.splitlines()
    marked = {line.split()[1] for line in lines if line.startswith("  * ")}
    assert {"sliding", "mae", "adamw", "plateau", "auto", "tensorboard"} <= marked
    assert any(line.split()[0] == "seed=42" for line in lines if line.startswith("  seed="))
    assert any(line.startswith("  ckpt_path=  ") for line in lines)


def test_help_line_is_the_first_comment_that_is_no_directive(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("# @package _global_\n# What it is\nx: 1  # no\n# later\n")
    assert help_line(tmp_path / "a.yaml") == "What it is"
    (tmp_path / "b.yaml").write_text("x: 1\n")
    assert help_line(tmp_path / "b.yaml") == ""


def test_help_and_the_package_import_nothing_heavy(tmp_path: Path) -> None:
    script = (
        "import runpy, sys, tocsin\n"
        "sys.argv = ['train.py', '--help']\n"
        f"runpy.run_path({str(ROOT / 'train.py')!r}, run_name='__main__')\n"
        "heavy = {'torch', 'lightning', 'pandas', 'numpy', 'sklearn', 'matplotlib', 'hydra'}\n"
        "sys.stderr.write(','.join(sorted(heavy & set(sys.modules))))\n"
    )
    begin = time.monotonic()
    done = command("-c", script, folder=tmp_path)
    assert done.returncode == 0
    assert done.stderr.strip() in ("", "hydra")  # not even numpy
    assert done.stdout == help_text("train", conf_dir(), "python train.py")
    assert time.monotonic() - begin < 10
    assert list(tmp_path.iterdir()) == []


# --- mistakes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("model=mea", "error: model=mea: there is no such option; did you mean mae?\n"),
        ("modle=mae", "error: there is no key modle; did you mean model?\n"),
        ("callbacks.report.zoom=3", "error: there is no key callbacks.report.zoom; there are: _target_\n"),
    ],
)
def test_typo_is_one_line_and_leaves_nothing_behind(override: str, line: str, tmp_path: Path) -> None:
    done = command(str(ROOT / "train.py"), override, folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line)
    assert list(tmp_path.iterdir()) == []


def test_error_of_a_run_is_one_line_too(tmp_path: Path) -> None:
    done = command(str(ROOT / "train.py"), "trainer.max_epoch=3", folder=tmp_path)
    line = "error: trainer.max_epoch: Trainer has no such option; did you mean max_epochs?\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line)


def test_group_set_to_null_says_how_to_leave_it_out() -> None:
    with pytest.raises(ConfigError, match="callbacks=null: to leave callbacks out, write '~callbacks'"):
        cli._refuse_null(["seed=1", "callbacks=null"], conf_dir())
    cli._refuse_null(["ckpt_path=null", "callbacks.report=null", "~callbacks"], conf_dir())


@pytest.mark.parametrize(
    "argument", ["--model=mae", "--modle=mae", "-model=mae", "--seed=1", "--data.window=5"]
)
def test_options_with_dashes_are_told_how_they_are_written(argument: str) -> None:
    with pytest.raises(
        ConfigError, match=f"^{argument}: options have no dashes; write {argument.lstrip('-')}$"
    ):
        cli._refuse_dashes(["seed=1", argument])
    cli._refuse_dashes(["--cfg=job", "--config-dir=x", "-m", "model=mae", "data.x=--seed=1"])


@pytest.mark.parametrize("argument", ["max_epochs", "model.d_model=[1", "a b=3"])
def test_word_that_is_no_option_says_how_options_are_written(argument: str) -> None:
    with pytest.raises(OverrideParseException, match=r"(?s).") as found:
        OverridesParser.create().parse_overrides([cli.settable(argument)])
    assert cli.explain(found.value).startswith(f"{argument} cannot be read; write key=value, in quotes")


@pytest.mark.parametrize(
    ("given", "passed"),
    [
        ("model.dropout=0", "++model.dropout=0"),
        ("task.scorer.no_file_names_me=1", "++task.scorer.no_file_names_me=1"),
        ("+model.dropout=0", "+model.dropout=0"),
        ("~model.dropout", "~model.dropout"),
        ("model=mae", "model=mae"),
        ("seed=1", "seed=1"),
        ("callbacks.report.zooms=2", "callbacks.report.zooms=2"),
        ("models.x=2", "models.x=2"),
        ("hydra.sweeper.quick={data.n:1}", "++hydra.sweeper.quick={data.n:1}"),
        ("hydra.sweeper.params.seed='1,2'", "++hydra.sweeper.params.seed='1,2'"),
        ("hydra.sweeper.promote=2", "hydra.sweeper.promote=2"),
    ],
)
def test_options_of_constructors_can_be_set_without_a_plus(given: str, passed: str) -> None:
    assert cli.settable(given) == passed


def test_evaluate_without_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"evaluate needs ckpt_path=<run folder>/checkpoints/best\.ckpt"):
        cli._config_of_run("evaluate", ["threshold=mad"])


def test_config_of_a_checkpoint_gives_way_to_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tocsin import checkpoints

    inside = {"config": {"data": {"a": 1}, "threshold": {"b": 2}, "seed": 3}}
    monkeypatch.setattr(checkpoints, "read_checkpoint", lambda path: inside if path == "x/best.ckpt" else {})
    arguments = ["ckpt_path='x/best.ckpt'", "threshold=mad", "data.path=new.csv"]
    assert cli._config_of_run("evaluate", arguments) == {"data": {"a": 1}, "seed": 3}


def test_explanation_of_own_errors_is_their_message() -> None:
    assert cli.explain(DataError("a.csv: is empty")) == "a.csv: is empty"


def test_explanation_of_what_hydra_could_not_build_is_its_reason() -> None:
    error = InstantiationException("Error in call to target 'a.B': ConfigError('no')")
    error.__cause__ = ConfigError("b needs c: pip install c")
    assert cli.explain(error) == "b needs c: pip install c"
    sampler = InstantiationException("Error locating target 'optuna.samplers.TPESampler', set env var")
    assert cli.explain(sampler) == "hydra/sweeper=optuna needs Optuna: pip install 'tocsin[sweep]'"


def test_explanation_of_interpolations_is_one_line() -> None:
    with pytest.raises(OmegaConfBaseException) as found:
        _ = OmegaConf.create({"a": "${nowhere}"}).a
    explained = cli.explain(found.value)
    assert "nowhere" in explained
    assert "\n" not in explained


# --- run folders --------------------------------------------------------------------------------------------


def test_new_run_has_a_folder_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    made = cli.run_dir(None, "outputs/mae/sliding")
    assert made.startswith("outputs/mae/sliding/20")
    assert time.strptime(made.rsplit("/", 1)[1], "%Y-%m-%d_%H-%M-%S")


def test_resumed_run_goes_on_in_the_folder_of_its_checkpoint(tmp_path: Path) -> None:
    assert cli.run_of("a/b/checkpoints/best.ckpt") == "a/b"
    assert cli.run_of("multirun/b/best_model.ckpt") == "multirun/b"  # a search keeps its best model there
    path = tmp_path / "checkpoints" / "last.ckpt"
    path.parent.mkdir()
    path.touch()
    assert cli.run_dir(str(path), "outputs/x/y") == str(tmp_path)


def test_missing_checkpoint_makes_no_folder(tmp_path: Path) -> None:
    """Its run would lie two folders above it: outside of all that is ours, if the path is short."""
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    done = command(str(ROOT / "train.py"), "ckpt_path=../no/best.ckpt", folder=folder)
    line = "error: ckpt_path=../no/best.ckpt: there is no such file; checkpoints lie in <run>/checkpoints/\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line)
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "b"]


def test_last_is_the_newest_run(tmp_path: Path) -> None:
    for age, name in enumerate(("2026-01-02", "2026-01-01", "2026-01-03")):  # newest first by time of writing
        path = tmp_path / name / "checkpoints" / "last.ckpt"
        path.parent.mkdir(parents=True)
        path.touch()
        os.utime(path, (1_000_000 - age, 1_000_000 - age))
    (tmp_path / "2026-02-01" / "checkpoints").mkdir(parents=True)  # killed in its first epoch
    assert cli.run_dir("last", str(tmp_path)) == str(tmp_path / "2026-01-02")


def test_last_without_any_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ckpt_path=last: no run below .* has a checkpoint; start without"):
        cli.run_dir("last", str(tmp_path))
