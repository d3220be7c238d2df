"""Networks of timm with weights from the hub, from a file, or random ones.

No weights come with the package. Random ones are for tests and for machines without a network: detectors that
rely on pretrained features find nothing with them, so that they are warned about and marked in the results.
"""

import difflib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tocsin.errors import ConfigError

log = logging.getLogger(__name__)

HUB, RANDOM = "hub", "random"


def timm_network(
    name: str, *, weights: str | None, options: Mapping[str, Any], frozen: bool = True
) -> nn.Module:
    """A network of timm by name.

    Args:
        name: As timm knows it, such as `wide_resnet50_2`.
        weights: `hub`; a file (.pth or .safetensors, keys as timm's or as the authors' where timm converts them);
            `random`; or None where a checkpoint will be loaded into it.
        options: Further arguments of `timm.create_model`, such as `features_only`.
        frozen: Whether the network will not learn, so that random weights can tell nothing.

    Raises:
        ConfigError: The name is unknown, there is no such file, it holds other weights, or the hub cannot be reached.
    """
    import timm  # takes seconds, and only detectors with a pretrained network need it

    if not timm.is_model(name):
        near = ", ".join(difflib.get_close_matches(name, timm.list_models(), n=4))
        raise ConfigError(f"timm has no model {name!r}; similar: {near or 'none'}")
    if weights == RANDOM:
        harm = "scores mean nothing" if frozen else "it learns from scratch"
        log.warning("%s has random weights: %s, and the run is marked pretrained: false", name, harm)
    if weights in (RANDOM, None):
        made: nn.Module = timm.create_model(name, pretrained=False, **options)
        return made
    if weights != HUB and not Path(str(weights)).expanduser().is_file():
        raise ConfigError(f"weights={weights} is neither hub, random nor a file; {_advice(name)}")
    overlay = None if weights == HUB else {"file": str(Path(str(weights)).expanduser())}
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it tells of every attempt
    # One tells what is loaded, the other warns of the head that features leave out.
    logging.getLogger("timm.models._helpers").setLevel(logging.WARNING)
    logging.getLogger("timm.models._builder").setLevel(logging.ERROR)
    if weights == HUB:  # which tries for most of a minute before it gives up
        log.info("weights of %s: from the hub, unless they were fetched before", name)
    try:
        made = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **options)
    except (OSError, RuntimeError) as error:  # of the hub; of weights that do not fit
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"weights={weights} of {name} cannot be loaded: {reason}; {_advice(name)}"
        ) from error
    return made


def timm_classifier(name: str, *, weights: str | None, size: tuple[int, int]) -> nn.Module:
    """A network of timm without its last layer, for images of a size.

    Args:
        name: As timm knows it.
        weights: As for `timm_network`.
        size: Height and width. Transformers with a fixed grid are made for it; a CNN takes any.

    Raises:
        ConfigError: As for `timm_network`, or the network takes no images of this size.
    """
    import timm

    config = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    options: dict[str, Any] = {"num_classes": 0}
    if config is not None and config.fixed_input_size:
        options["img_size"] = size
    try:
        network = timm_network(name, weights=weights, options=options, frozen=False).eval()
        with torch.no_grad():
            network(torch.zeros(1, 3, *size))  # some refuse a size only when they see it
    except (AssertionError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f"{name} takes no images of {size[0]} x {size[1]}: {reason}") from error
    return network.train()


def _advice(name: str) -> str:
    return (
        f"with a network, weights=hub gets them; without, download {name} of timm elsewhere and give the file "
        "(model.weights=weights.safetensors), or try the code with model.weights=random"
    )


class Normalise(nn.Module):
    """Subtracts the mean and divides by the standard deviation that a network was trained with.

    Args:
        mean: Of each channel, in [0, 1].
        std: Of each channel.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, *, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).reshape(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).reshape(-1, 1, 1), persistent=False)

    @classmethod
    def of(cls, network: nn.Module) -> "Normalise":
        """The one that a network of timm asks for."""
        config: Mapping[str, Any] = network.pretrained_cfg  # type: ignore[assignment]
        return cls(mean=tuple(config["mean"]), std=tuple(config["std"]))

    def forward(self, images: Tensor) -> Tensor:
        """Normalise (B, C, H, W) images in [0, 1]."""
        normal: Tensor = (images - self.mean) / self.std
        return normal
