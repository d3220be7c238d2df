"""What it takes to compose our configuration with Hydra, and to say in one line why it does not work.

Commands do it from their arguments, the service for its jobs.
"""

import re
from dataclasses import fields
from pathlib import Path

from tocsin.errors import ConfigError, TocsinError

NO_CHECKPOINT = "there is no such file; checkpoints lie in <run>/checkpoints/"


def register() -> None:
    """Tell Hydra what our configuration files refer to: schemas, resolvers, and launchers and sweepers of ours."""
    from hydra.core.config_store import ConfigStore

    from tocsin import config

    store = ConfigStore.instance()
    store.store("train_schema", config.TrainSchema)
    store.store("evaluate_schema", config.EvaluateSchema)
    store.store("predict_schema", config.PredictSchema)
    store.store("export_schema", config.ExportSchema)
    store.store("serve_schema", config.ServeSchema)
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
