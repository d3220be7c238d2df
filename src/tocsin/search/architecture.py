"""The parts of a detector, with the shapes that a batch has on its way through them."""

from typing import Any

import torch
from torch import Tensor, nn

from tocsin.models.base import Detector
from tocsin.plots.architecture import Part

DEPTH = 2  # levels of parts shown


@torch.inference_mode()
def parts_of(detector: Detector, batch: Any) -> list[Part]:
    """Look at the parts of a detector while it computes the loss of a batch.

    Args:
        detector: On the device of the batch; left in evaluation mode.
        batch: As its loss takes it.

    Returns:
        Its parts and theirs in order, those without parameters that were not called left out.
    """
    shapes: dict[str, str] = {}
    named = [(name, part) for name, part in detector.named_modules() if name and name.count(".") < DEPTH]
    hooks = [part.register_forward_hook(_note(name, shapes)) for name, part in named]
    try:
        detector.eval()
        detector.loss(batch)
    finally:
        for hook in hooks:
            hook.remove()
    parts = [
        Part(
            name=name.rpartition(".")[2],
            kind=type(part).__name__,
            depth=name.count("."),
            parameters=sum(parameter.numel() for parameter in part.parameters()),
            shape=shapes.get(name, ""),
        )
        for name, part in named
    ]
    own = [
        Part(name, "Parameter", 0, p.numel(), _shape(p))
        for name, p in detector.named_parameters(recurse=False)
    ]
    return [*own, *(part for part in parts if part.parameters or part.shape)]


def _note(name: str, shapes: dict[str, str]) -> Any:
    def hook(module: nn.Module, given: Any, output: Any) -> None:
        found = output if isinstance(output, Tensor) else next(iter(_tensors(output)), None)
        if found is not None:
            shapes.setdefault(name, _shape(found))

    return hook


def _tensors(output: Any) -> list[Tensor]:
    values = (
        output.values() if isinstance(output, dict) else output if isinstance(output, tuple | list) else ()
    )
    return [value for value in values if isinstance(value, Tensor)]


def _shape(tensor: Tensor) -> str:
    return " \N{MULTIPLICATION SIGN} ".join(map(str, tensor.shape)) or "1"
