"""The shape of a configuration, and its checks before anything is built.

Three things can be wrong with a configuration that composes: a key that no one reads (a typo in an experiment
file), a target that must not be instantiated, and a model that does not fit the data. All three are found
here, from signatures alone, before any data are made.
"""

import difflib
import importlib
import importlib.util
import inspect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum
from pathlib import Path, PurePath
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from omegaconf import MISSING, DictConfig, ListConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError

from tocsin.errors import ConfigError

# What a configuration may instantiate. Those of a checkpoint come from outside, so this is a safety line too.
ALLOWED_TARGETS = (
    "tocsin.callbacks.",
    "tocsin.data.",
    "tocsin.metrics.thresholds.",
    "tocsin.models.",
    "tocsin.optimizers.",
    "tocsin.schedulers.",
    "tocsin.scoring.",
    "tocsin.tasks.",
    "torch.optim.",
    "lightning.pytorch.callbacks.",
    "lightning.pytorch.loggers.",
    "lightning.pytorch.trainer.",
    "albumentations.",
)

# Loggers whose package does not come with this one.
LOGGER_PACKAGES = {
    "CometLogger": "comet_ml",
    "MLFlowLogger": "mlflow",
    "NeptuneLogger": "neptune",
    "WandbLogger": "wandb",
}

# Arguments that the pipeline fills in, by the name of the configuration node.
FILLED_IN = {
    "model": {
        "window",
        "n_channels",
        "height",
        "width",
        "n_classes",
        "class_weights",
        "log_priors",
        "image_size",
    },
    "task": {"detector", "optimizer", "scheduler", "threshold", "monitor", "seed"},
    "optimizer": {"params"},
    "scheduler": {"optimizer", "epochs", "steps"},
}


@dataclass
class TrainSchema:
    """Top-level keys of `train.py`; any other is an error."""

    data: Any = MISSING
    model: Any = MISSING
    task: Any = MISSING
    optimizer: Any = MISSING
    scheduler: Any = None
    threshold: Any = MISSING
    trainer: Any = MISSING
    callbacks: Any = None
    logger: Any = None
    monitor: str = "val_loss"
    mode: str = "min"
    seed: int = 42
    ckpt_path: str | None = None
    cache_dir: str | None = None
    tags: list[str] = field(default_factory=list)


@dataclass
class EvaluateSchema(TrainSchema):
    """Top-level keys of `evaluate.py`."""

    ckpt_path: str | None = MISSING


@dataclass
class PredictSchema(EvaluateSchema):
    """Top-level keys of `predict.py`."""

    input: str = MISSING
    output: str | None = None
    contributions: bool = True


@dataclass
class ExportSchema(EvaluateSchema):
    """Top-level keys of `python -m tocsin.export`."""

    output: str | None = None


@dataclass
class ServeSchema:
    """Top-level keys of `python -m tocsin.serve`; see `tocsin.service.settings`."""

    host: str = "127.0.0.1"
    port: int = 8000
    hosts: list[str] = field(default_factory=list)
    folder: str = "service"
    database: str = MISSING
    models: str = "outputs"
    keys: dict[str, str] = field(default_factory=dict)
    devices: Any = "auto"
    limits: dict[str, float] = field(default_factory=dict)


def nearest(word: str, choices: Iterable[str]) -> str:
    """A hint that names the most similar choice, or all of them if none is similar."""
    names = sorted(choices)
    swapped = [name for name in names if sorted(name) == sorted(word)]
    close = swapped or difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else f"there are: {', '.join(names) or 'none'}"


def locate(target: str, key: str = "_target_") -> type:
    """Import a target, if a configuration may name it.

    Args:
        target: Dotted path of a class.
        key: Where it stands in the configuration, for the message.

    Raises:
        ConfigError: It is not on the list of allowed targets, or is no class, or does not exist.
    """
    if not isinstance(target, str) or not target.startswith(ALLOWED_TARGETS):
        raise ConfigError(
            f"{key}: {target} is not an allowed target; allowed are classes of "
            f"{', '.join(prefix.rstrip('.') for prefix in ALLOWED_TARGETS)}"
        )
    module_name, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{key}: {target} cannot be imported: {error}") from error
    # A class that merely is visible in an allowed module (`tocsin.models.mae.os.system`) is not allowed.
    if not inspect.isclass(found) or not f"{found.__module__}.".startswith(ALLOWED_TARGETS):
        raise ConfigError(f"{key}: {target} is not a class of an allowed module")
    return found


def check(cfg: DictConfig) -> None:
    """Check every target of a configuration and the arguments it is given.

    Raises:
        ConfigError: A target is not allowed; an argument or a top-level key is unknown (with the nearest known
            one) or missing; an argument is a text where a number is needed; or model, task and data do not fit
            together.
    """
    _check_top_level(cfg)
    for key, node in _targets(cfg):
        _check_arguments(key, node, locate(node["_target_"], f"{key}._target_"))
    _check_named(cfg)
    _check_kinds(cfg)


def check_packages(cfg: DictConfig) -> None:
    """Check that the packages of the loggers are installed, before a run makes any data.

    Raises:
        ConfigError: One is not.
    """
    for name, node in (cfg.logger or {}).items():
        package = LOGGER_PACKAGES.get(str(node._target_).rpartition(".")[2]) if node else None
        if package is not None and importlib.util.find_spec(package) is None:
            raise ConfigError(f"logger={name} needs a package that is not installed: pip install {package}")


def _check_top_level(cfg: DictConfig) -> None:
    """Composition refuses unknown keys, unless they come with a plus sign."""
    schema = OmegaConf.get_type(cfg)
    known = {f.name for f in fields(schema if is_dataclass(schema) else PredictSchema)}
    for name in sorted({str(name) for name in cfg} - known - {"hydra"}):
        raise ConfigError(f"there is no key {name}; {nearest(name, known)}")
    for name in sorted(str(name) for name in cfg if OmegaConf.is_missing(cfg, name)):
        raise ConfigError(f"{name} must be given: add {name}=...")


def _targets(node: Any, key: str = "") -> Iterator[tuple[str, DictConfig]]:
    """All nodes that become objects: Hydra looks for them in lists, too, and behind interpolations."""
    if isinstance(node, DictConfig):
        if "_target_" in node:
            yield key, node
        names: Iterable[Any] = [name for name in node if key or name != "hydra"]
    else:
        names = range(len(node))
    for name in names:
        if OmegaConf.is_missing(node, name):
            continue
        try:
            child = node[name]
        except InterpolationResolutionError:
            continue  # nor can Hydra resolve it
        if isinstance(child, DictConfig | ListConfig):
            yield from _targets(child, f"{key}.{name}" if key else str(name))


def _check_arguments(key: str, node: DictConfig, target: type) -> None:
    parameters = inspect.signature(target).parameters.values()
    known = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    filled = FILLED_IN.get(key, set())
    given = {str(name) for name in node} - {"_target_", "_partial_", "_convert_", "_args_", "_recursive_"}
    for name in sorted(given - known):
        raise ConfigError(
            f"{key}.{name}: {target.__name__} has no such option; {nearest(name, known - filled)}"
        )
    for name in sorted(given):
        if OmegaConf.is_missing(node, name):
            raise ConfigError(f"{key}.{name} must be given: add {key}.{name}=...")
    required = {p.name for p in parameters if p.name in known and p.default is p.empty}
    for name in sorted(required - given - filled):
        raise ConfigError(f"{key}.{name} must be given: add +{key}.{name}=...")
    _check_types(key, node, given, _hints(target))


def _hints(target: type) -> dict[str, Any]:
    """Types of a constructor's arguments; none known where they name a package that is not installed."""
    try:
        return get_type_hints(target.__init__)  # type: ignore[misc]
    except NameError:
        return {}


def _check_types(key: str, node: DictConfig, names: Iterable[str], hints: dict[str, Any]) -> None:
    """Refuse a text where the annotation admits none, and a fraction where it wants a whole number."""
    for name in sorted(set(names) & set(hints)):
        try:
            value = node[name]
        except InterpolationResolutionError:
            continue
        hint = hints[name]
        members = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        bad_text = isinstance(value, str) and not any(map(_takes_text, members))
        bad_fraction = isinstance(value, float) and set(members) <= {int, NoneType}
        if bad_text or bad_fraction:
            raise ConfigError(f"{key}.{name}={value} is not {_wanted(members)}")


def _takes_text(member: Any) -> bool:
    """Whether a text can be an argument of this type; where an annotation does not tell, it can."""
    kind = get_origin(member) or member
    if not isinstance(kind, type) or getattr(kind, "_is_protocol", False):
        return True
    return issubclass(str, kind) or issubclass(kind, Enum | PurePath)


def _wanted(members: Iterable[Any]) -> str:
    """The types of an annotation in words."""
    kinds = {get_origin(member) or member for member in members}
    if float in kinds:
        kinds -= {int}
    words = {int: "a whole number", float: "a number", bool: "true or false", list: "a list", tuple: "a list"}
    found = sorted(word for kind, word in words.items() if kind in kinds)
    return " or ".join([*dict.fromkeys(found), *(["null"] if NoneType in kinds else [])]) or "possible"


def _check_named(cfg: DictConfig) -> None:
    """Callbacks and loggers have names of the user's choice, so a misspelt one is a node without a target."""
    for group in ("callbacks", "logger"):
        nodes = cfg.get(group) or {}
        complete = [str(name) for name in nodes if nodes[name] and "_target_" in nodes[name]]
        for name in nodes:
            if nodes[name] and name not in complete:
                raise ConfigError(f"{group}.{name} has no _target_; {nearest(str(name), complete)}")


def _check_kinds(cfg: DictConfig) -> None:
    """Data, task and detector must be of one kind."""
    data = locate(cfg.data._target_).kind  # type: ignore[attr-defined]
    model = locate(cfg.model._target_).kind  # type: ignore[attr-defined]
    task = locate(cfg.task._target_).accepts  # type: ignore[attr-defined]
    if model != data:
        raise ConfigError(
            f"this model reads {model} data, but these data are of kind {data}; "
            f"models for {data} data: {_options('model', data)}; data for this model: {_options('data', model)}"
        )
    if task != model:
        raise ConfigError(
            f"task {cfg.task._target_} accepts {task} data, but model and data are of kind {model}"
        )


def _options(group: str, kind: str) -> str:
    """Names of the options of a group whose target is of a kind."""
    names = []
    for path in sorted((conf_dir() / group).glob("*.yaml")):
        option = OmegaConf.load(path)
        target = option.get("_target_") if isinstance(option, DictConfig) else None
        if target is not None and getattr(locate(target), "kind", None) == kind:
            names.append(path.stem)
    return ", ".join(names) or "none yet"


def conf_dir() -> Path:
    """Folder of the configuration: inside the installed package, or at the root of a checkout."""
    installed = Path(__file__).parent / "conf"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "conf"
