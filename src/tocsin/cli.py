"""The commands train, evaluate, predict and export: Hydra composes, `tocsin.pipeline` does the work.

Nothing heavy is imported before the configuration is composed, so that --help and tab completion answer at
once. An error that is the user's to mend is one line; any other keeps its stack trace.
"""

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from tocsin.composing import explain, register
from tocsin.errors import ConfigError, TocsinError


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


def serve() -> None:
    """Entry point of python -m tocsin.serve and tocsin-serve."""
    _run("serve")


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
    if command in OF_A_RUN:
        ConfigStore.instance().store("run", _config_of_run(command, arguments), package="_global_")
    _refuse_null(arguments, config.conf_dir())
    _refuse_dashes(arguments)
    if processes.is_follower():
        arguments = processes.follower_arguments(arguments)
    sys.argv[1:] = [settable(argument) for argument in arguments]
    main = hydra.main(version_base="1.3", config_path=str(config.conf_dir()), config_name=command)
    main(TASKS[command])()


def _config_of_run(command: str, arguments: list[str]) -> dict[str, Any]:
    """Configuration inside the checkpoint, less the groups that the command line chooses anew."""
    given = [argument.partition("=")[2] for argument in arguments if re.match(r"\+{0,2}ckpt_path=", argument)]
    if not given:
        raise ConfigError(f"{command} needs ckpt_path=<run folder>/checkpoints/best.ckpt")
    from tocsin.checkpoints import read_checkpoint

    config = dict(read_checkpoint(given[-1].strip("'\""))["config"])
    chosen = {argument.partition("=")[0] for argument in arguments}
    return {key: value for key, value in config.items() if key not in chosen}


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


def _serve(cfg: Any) -> None:
    from tocsin.service.server import serve

    with _one_line():
        serve(cfg)


# Groups that are one object each: their keys are arguments of its constructor; keys of the service have any name.
OPTION_GROUPS = ("data", "model", "task", "optimizer", "scheduler", "threshold", "trainer", "keys")

FREE_MAPPINGS = ("params", "quick", "full")  # of hydra.sweeper

TASKS: dict[str, Callable[[Any], Any]] = {
    "train": _train,
    "evaluate": _evaluate,
    "predict": _predict,
    "export": _export,
    "serve": _serve,
}
OF_A_RUN = ("evaluate", "predict", "export")  # these begin with the configuration inside a checkpoint
