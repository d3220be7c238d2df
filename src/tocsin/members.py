"""Members of an ensemble: from paths of checkpoints in a configuration to configurations and weights.

`model.members=[a.ckpt,b.ckpt]` names trained runs. Their configurations take the place of the paths, so that the
ensemble's own checkpoint holds all that is needed and the members' files may go.
"""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict
from torch import nn

from tocsin.checkpoints import read_checkpoint
from tocsin.config import locate
from tocsin.errors import ConfigError

_PREFIX = "detector."


def embed_members(cfg: DictConfig) -> dict[str, dict[str, Any]]:
    """Replace paths in `model.members` by what stands in the checkpoints there.

    Returns:
        Checkpoint by path; none for a model without members, or one whose members stand in the configuration.
    """
    paths = [path for path in cfg.model.get("members") or [] if isinstance(path, str)]
    checkpoints = {path: read_checkpoint(path) for path in paths}
    if checkpoints:
        found = checkpoints.values()
        with open_dict(cfg):
            cfg.model.members = [_detector_node(checkpoint) for checkpoint in found]
            cfg.task.scorer.members = [checkpoint["config"]["task"]["scorer"] for checkpoint in found]
            cfg.task.scorer.sizes = [_columns(checkpoint) for checkpoint in found]
    return checkpoints


def _detector_node(checkpoint: Mapping[str, Any]) -> DictConfig:
    node = OmegaConf.create(checkpoint["config"]["model"])
    known = inspect.signature(locate(node._target_)).parameters
    return OmegaConf.merge(node, {k: v for k, v in checkpoint["dims"].items() if k in known})  # type: ignore[return-value]


def _columns(checkpoint: Mapping[str, Any]) -> int:
    """Columns of a member's deviations."""
    sizes: Sequence[int] | None = checkpoint["config"]["task"]["scorer"].get("sizes")
    return sum(sizes) if sizes else int(checkpoint["state_dict"]["scorer.center"].shape[-1])


def load_members(
    detector: nn.Module,
    checkpoints: Mapping[str, Mapping[str, Any]],
    dims: Mapping[str, int],
    data: Mapping[str, Any],
) -> None:
    """Give the members their weights.

    Args:
        detector: The ensemble.
        checkpoints: Checkpoint of each member, by path.
        dims: Window and channels of the ensemble's data.
        data: How its data are treated.

    Raises:
        ConfigError: A member was trained on data of another shape or scale.
    """
    for index, (path, checkpoint) in enumerate(checkpoints.items()):
        for name, size in dims.items():
            if checkpoint["dims"][name] != size:
                raise ConfigError(
                    f"model.members: {path} has {name}={checkpoint['dims'][name]}, but these data have {size}"
                )
        if checkpoint["data"]["scaler"] != data["scaler"]:
            raise ConfigError(
                f"model.members: {path} was trained on data scaled in another way; "
                "give the data options of the members"
            )
        state = checkpoint["state_dict"]
        weights = {k.removeprefix(_PREFIX): v for k, v in state.items() if k.startswith(_PREFIX)}
        detector.get_submodule(f"members.{index}").load_state_dict(weights)
