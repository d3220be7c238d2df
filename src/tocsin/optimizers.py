"""Optimizers that torch does not have.

StableAdamW: Wortsman et al., "Stable and low-precision training for large-scale vision-language models", NeurIPS
2023, arXiv 2304.13013, algorithm 2 (AdamW with the update clipping of AdaFactor), and the options that Dinomaly adds.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from tocsin.models.checks import check_range


class StableAdamW(Optimizer):
    """AdamW whose rate falls, tensor by tensor, while gradients are larger than their second moments tell.

    After a jump of the gradients the second moments lag behind, and AdamW would take too large a step. Here the
    rate of a tensor is divided by max(1, RMS(g / denominator) / clip_threshold).

    Args:
        params: Parameters, or groups of them.
        lr: Learning rate.
        betas: Decay rates of the first and second moments, in [0, 1).
        eps: Added to the denominator.
        weight_decay: Decoupled weight decay: parameters shrink by lr * weight_decay, before the step.
        amsgrad: Divide by the largest second moment so far, not by the current one.
        clip_threshold: RMS of the scaled gradient from which on the rate is lowered.

    Raises:
        ValueError: If a value is outside its range.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        *,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-4,
        amsgrad: bool = True,
        clip_threshold: float = 1.0,
    ) -> None:
        for name, value in (("lr", lr), ("weight_decay", weight_decay)):
            check_range(name, value, value >= 0, "at least 0")
        for name, value in (("eps", eps), ("clip_threshold", clip_threshold)):
            check_range(name, value, value > 0, "more than 0")
        for name, value in zip(("betas[0]", "betas[1]"), betas, strict=True):
            check_range(name, value, 0 <= value < 1, "in [0, 1)")
        defaults = {
            "lr": lr,
            "betas": tuple(betas),
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "clip_threshold": clip_threshold,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Take one step; parameters without a gradient stay as they are.

        Args:
            closure: Computes the loss and its gradients, if they are not there yet.

        Returns:
            What the closure returned.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            on_cpu = all(p.device.type == "cpu" for p in parameters)
            # A GPU wants few large operations, a CPU one tensor after the other: temporaries of all would not fit
            # into its cache.
            for piece in [[p] for p in parameters] if on_cpu else [parameters]:
                self._update(piece, group)
        return loss

    def _update(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """One step of some tensors of a group, each operation on all of them at a time."""
        states = [self._state_of(parameter, group["amsgrad"]) for parameter in parameters]
        for state in states:
            state["step"] += 1
        gradients = [p.grad for p in parameters if p.grad is not None]
        first = [state["first"] for state in states]
        second = [state["second"] for state in states]
        beta1, beta2 = group["betas"]

        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_lerp_(first, gradients, 1 - beta1)
        torch._foreach_mul_(second, beta2)
        torch._foreach_addcmul_(second, gradients, gradients, 1 - beta2)
        if group["amsgrad"]:
            largest = [state["largest"] for state in states]
            torch._foreach_maximum_(largest, second)
            second = largest
        # Both sides of g / (sqrt(v / c) + eps) times sqrt(c), the bias correction, which then is a number per tensor.
        corrections = [math.sqrt(1 - beta2 ** state["step"]) for state in states]
        denominators = torch._foreach_sqrt(second)
        torch._foreach_add_(denominators, [group["eps"] * correction for correction in corrections])

        slower = torch._foreach_norm(
            torch._foreach_div(gradients, denominators)
        )  # numbers, left on the device
        roots = [math.sqrt(parameter.numel()) for parameter in parameters]
        units = [c / (root * group["clip_threshold"]) for c, root in zip(corrections, roots, strict=True)]
        torch._foreach_mul_(slower, units)
        torch._foreach_clamp_min_(slower, 1.0)
        torch._foreach_mul_(denominators, slower)
        rates = [
            -group["lr"] * correction / (1 - beta1 ** state["step"])
            for correction, state in zip(corrections, states, strict=True)
        ]
        torch._foreach_addcdiv_(parameters, first, denominators, rates)

    def _state_of(self, parameter: Tensor, amsgrad: bool) -> dict[str, Any]:
        state: dict[str, Any] = self.state[parameter]
        if not state:
            names = ("first", "second", "largest") if amsgrad else ("first", "second")
            state.update({name: torch.zeros_like(parameter) for name in names}, step=0)
        return state
