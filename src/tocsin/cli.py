"""The commands train, evaluate, predict and export: Hydra composes, `tocsin.pipeline` does the work.

Nothing heavy is imported before the configuration is composed, so that --help and tab completion answer at
once. An error that is the user's to mend is one line; any other keeps its stack trace.
"""

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

from tocsin.errors import ConfigError, TocsinError

NO_CHECKPOINT = "there is no such file; checkpoints lie in <run>/checkpoints/"


def train() -> None:
    """Entry point of train.py and tocsin-train."""
    _run("train")


def evaluate() -> None:
    """Entry point of evaluate.py and tocsin-evaluate."""
    _run("evaluate")


def predict() -> None:
    """Entry point of predict.py and tocsin-predict."""
    _run("predict")


def export() -> None:
    """Entry point of python -m tocsin.export."""
    _run("export")


def _run(command: str) -> None:
    from tocsin.config import conf_dir

    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # its warnings are for those who build on it
    arguments = sys.argv[1:]
    if {"-h", "--help"} & set(arguments):
        from tocsin.help import help_text

        sys.stdout.write(help_text(command, conf_dir(), _program(command)))
        return
    if os.environ.get("HYDRA_FULL_ERROR") == "1":  # the user wants stack traces
        _launch(command, arguments)
        return
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let errors through to here, where they become one line
    import hydra.errors
    import omegaconf.errors

    try:
        _launch(command, arguments)
    except _Stopped as stopped:
        _fail(stopped.error)
    except (TocsinError, hydra.errors.HydraException, omegaconf.errors.OmegaConfBaseException) as error:
        _fail(error)
    except KeyboardInterrupt:
        sweep = {"-m", "--multirun"} & set(arguments)  # a sweep has said how it goes on
        sys.stderr.write("interrupted\n" if sweep else "interrupted; ckpt_path=last resumes the run\n")
        sys.exit(130)


def _fail(error: Exception) -> NoReturn:
    sys.stderr.write(f"error: {explain(error)}\n")
    sys.exit(2 if not isinstance(error, TocsinError) or isinstance(error, ConfigError) else 1)


def _program(command: str) -> str:
    if Path(sys.argv[0]).parent.name == "tocsin":
        return f"python -m tocsin.{command}"
    name = Path(sys.argv[0]).name
    return f"python {name}" if name.endswith(".py") else name


def _launch(command: str, arguments: list[str]) -> None:
    import hydra
    from hydra.core.config_store import ConfigStore

    from tocsin import config, processes

    register()
    if command != "train":
        ConfigStore.instance().store("run", _config_of_run(command, arguments), package="_global_")
    _refuse_null(arguments, config.conf_dir())
    _refuse_dashes(arguments)
    if processes.is_follower():
        arguments = processes.follower_arguments(arguments)
    sys.argv[1:] = [settable(argument) for argument in arguments]
    main = hydra.main(version_base="1.3", config_path=str(config.conf_dir()), config_name=command)
    main(TASKS[command])()


def register() -> None:
    """Tell Hydra what our configuration files refer to: schemas, resolvers, and launchers and sweepers of ours."""
    from hydra.core.config_store import ConfigStore

    from tocsin import config

    store = ConfigStore.instance()
    store.store("train_schema", config.TrainSchema)
    store.store("evaluate_schema", config.EvaluateSchema)
    store.store("predict_schema", config.PredictSchema)
    store.store("export_schema", config.ExportSchema)
    _register_resolvers()
    _prefer_files(config.conf_dir())


def _prefer_files(conf: Path) -> None:
    """Let launchers and sweepers of ours take the place of those of Hydra with the same name."""
    from hydra.core.config_store import ConfigStore
    from hydra.core.plugins import Plugins

    Plugins.instance()  # looks for plugins, which register their options
    options = ConfigStore.instance().repo["hydra"]
    for path in (conf / "hydra").glob("*/*.yaml"):
        options.get(path.parent.name, {}).pop(path.name, None)


def _refuse_dashes(arguments: list[str]) -> None:
    """The answer of Hydra's parser to `--model=mae` is its usage, and not how it is written."""
    for argument in arguments:
        found = re.match(
            r"--?(\w[\w.]+)=", argument
        )  # Hydra's own have a hyphen or one letter, but for these
        if found and found.group(1) not in ("cfg", "info", "package"):
            raise ConfigError(f"{argument}: options have no dashes; write {argument.lstrip('-')}")


def _refuse_null(arguments: list[str], conf: Path) -> None:
    """Hydra's own answer to `callbacks=null` is a stack trace."""
    for argument in arguments:
        group, _, value = argument.partition("=")
        if value == "null" and (conf / group).is_dir():
            raise ConfigError(f"{group}=null: to leave {group} out, write '~{group}'")


def settable(argument: str) -> str:
    """Let `model.dropout=0` set an option that the file does not list: a constructor has more of them.

    Hydra itself refuses keys that no file names. The check of the composed configuration, which knows the
    constructors, refuses wrong ones in its place. The same for the stages of a search, which may set any key.
    """
    free = rf"({'|'.join(OPTION_GROUPS)})\.[\w.]+=|hydra\.sweeper\.({'|'.join(FREE_MAPPINGS)})[.=]"
    return f"++{argument}" if re.match(free, argument) else argument


class _Stopped(BaseException):
    """Carries an error of the user's past Hydra, which would announce it with a line of its own."""

    def __init__(self, error: TocsinError) -> None:
        super().__init__(str(error))
        self.error = error


@contextmanager
def _one_line() -> Iterator[None]:
    """Keep Hydra from announcing an error of the user's; in a sweep its launcher records it."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    try:
        yield
    except TocsinError as error:
        if HydraConfig.get().mode == RunMode.RUN:
            raise _Stopped(error) from error
        raise


def _train(cfg: Any) -> float:
    from tocsin.pipeline import train

    with _one_line():
        return train(cfg)


def _evaluate(cfg: Any) -> None:
    from tocsin.pipeline import evaluate

    with _one_line():
        evaluate(cfg)


def _predict(cfg: Any) -> None:
    from tocsin.prediction import predict

    with _one_line():
        predict(cfg)


def _export(cfg: Any) -> None:
    from tocsin.onnx_export import export

    with _one_line():
        export(cfg)


# Groups that are one object each: their keys are arguments of its constructor.
OPTION_GROUPS = ("data", "model", "task", "optimizer", "scheduler", "threshold", "trainer")

FREE_MAPPINGS = ("params", "quick", "full")  # of hydra.sweeper

TASKS: dict[str, Callable[[Any], Any]] = {
    "train": _train,
    "evaluate": _evaluate,
    "predict": _predict,
    "export": _export,
}


# --- run folders --------------------------------------------------------------------------------------------


def _register_resolvers() -> None:
    from omegaconf import OmegaConf

    OmegaConf.register_new_resolver("run_dir", run_dir, replace=True, use_cache=True)
    OmegaConf.register_new_resolver("run_of", run_of, replace=True)
    OmegaConf.register_new_resolver("files", files, replace=True)
    OmegaConf.register_new_resolver("direction", direction, replace=True)


def run_dir(ckpt_path: str | None, parent: str) -> str:
    """Folder of a run: a new one below `parent`, or that of the checkpoint which is resumed.

    Raises:
        ConfigError: There is no such checkpoint, or `last` is asked for and no run has one.
    """
    from tocsin import processes

    if ckpt_path is None:
        return f"{parent}/{processes.start_time():%Y-%m-%d_%H-%M-%S}"
    if ckpt_path != "last":
        if not Path(ckpt_path).is_file():
            raise ConfigError(f"ckpt_path={ckpt_path}: {NO_CHECKPOINT}")
        return run_of(ckpt_path)
    checkpoints = sorted(Path(parent).glob("*/checkpoints/last.ckpt"), key=lambda path: path.stat().st_mtime)
    if not checkpoints:
        raise ConfigError(f"ckpt_path=last: no run below {parent} has a checkpoint; start without ckpt_path")
    return run_of(str(checkpoints[-1]))


def run_of(ckpt_path: str) -> str:
    """Folder of the run that a checkpoint `<run>/checkpoints/<name>.ckpt` belongs to; of others, where they lie."""
    folder = Path(ckpt_path).parent
    return str(folder.parent if folder.name == "checkpoints" else folder)


def files(pattern: str) -> str:
    """All files that match a pattern, in order and joined by commas: the values of a sweep.

    Raises:
        ConfigError: There is none.
    """
    path = Path(pattern)
    found = sorted(path.parent.glob(path.name))
    if not found:
        raise ConfigError(f"no file matches {pattern}; TOCSIN_DATA must name the folder of the data sets")
    return ",".join(map(str, found))


def direction(mode: str) -> str:
    """What Optuna calls a mode.

    Raises:
        ConfigError: It is neither min nor max.
    """
    directions = {"min": "minimize", "max": "maximize"}
    if mode not in directions:
        raise ConfigError(f"mode={mode} is neither min nor max")
    return directions[mode]


def _config_of_run(command: str, arguments: list[str]) -> dict[str, Any]:
    """Configuration inside the checkpoint, less the groups that the command line chooses anew."""
    given = [argument.partition("=")[2] for argument in arguments if re.match(r"\+{0,2}ckpt_path=", argument)]
    if not given:
        raise ConfigError(f"{command} needs ckpt_path=<run folder>/checkpoints/best.ckpt")
    from tocsin.checkpoints import read_checkpoint

    config = dict(read_checkpoint(given[-1].strip("'\""))["config"])
    chosen = {argument.partition("=")[0] for argument in arguments}
    return {key: value for key, value in config.items() if key not in chosen}


# --- errors ---------------------------------------------------------------------------------------------------


def explain(error: Exception) -> str:
    """One line for an error that is the user's to mend, with the nearest valid name for a typo."""
    from hydra.errors import HydraException, MissingConfigException, OverrideParseException
    from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

    from tocsin import config
    from tocsin.config import conf_dir, nearest

    if isinstance(error, TocsinError):
        return str(error)
    if isinstance(error, MemoryError):
        return f"out of memory: {error}; lower data.batch_size or the size of the data"
    cause = error.__cause__ or error
    if isinstance(cause, TocsinError):  # of an object that Hydra built
        return str(cause)
    if isinstance(cause, ConfigAttributeError | ConfigKeyError) and cause.parent_node is not None:
        known = [str(key) for key in cause.parent_node]
        return f"there is no key {cause.full_key}; {nearest(str(cause.key), known)}"
    text = str(error)
    if text.startswith(
        "Error locating target 'optuna."
    ):  # the sampler, which Hydra builds before its sweeper
        return "hydra/sweeper=optuna needs Optuna: pip install 'tocsin[sweep]'"
    if found := re.match(r"ConfigError raised while resolving interpolation: (.+)", text):  # one of ours
        return found.group(1)
    if found := re.search(r"Key '(\w+)' not in '(\w+Schema)'", text):  # in an experiment file
        key, schema = found.groups()
        file = text.partition(":")[0]
        known = [field.name for field in fields(vars(config)[schema])]
        return f"{file}: there is no key {key}; {nearest(key, known)}"
    if isinstance(error, MissingConfigException) and (
        found := re.search(r"Could not find '([\w/]+)/([^/']+)'", text)
    ):
        group, option = found.groups()
        options = [path.stem for path in (conf_dir() / group).glob("*.yaml")]
        return f"{group}={option}: there is no such option; {nearest(option, options)}"
    if isinstance(error, OverrideParseException):
        given = str(error.override).lstrip("+")
        return f"{given} cannot be read; write key=value, in quotes where it holds brackets or spaces"
    if found := re.match(r"Could not override '(\w+)'", text):
        groups = [path.name for path in conf_dir().iterdir() if path.is_dir()]
        return f"there is no group {found.group(1)}; {nearest(found.group(1), groups)}"
    if cause is not error:  # Hydra's "Error merging override seed=abc" without the reason helps no one
        text = f"{text}: {str(cause).splitlines()[0]}"
    if not isinstance(error, HydraException | OmegaConfBaseException):  # a mistake of ours: say its kind
        text = f"{type(error).__name__}: {text}"
    return " ".join(text.split())
