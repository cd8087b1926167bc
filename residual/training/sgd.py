"""Stochastic gradient descent with momentum and weight decay, in the paper's form and in PyTorch's."""

from typing import Literal

import torch
from torch import Tensor, nn


class SGD:
    """Momentum SGD over all parameters that a network learns; weight decay applies to each of them.

    Args:
        model: whose parameters are updated in place.
        momentum: m.
        weight_decay: wd; the gradient used is g + wd*w.
        form: "paper" (Caffe): v = m*v + lr*g, w = w - v, so that a drop of the rate acts only gradually;
            "pytorch": v = m*v + g, w = w - lr*v.
    """

    def __init__(
        self, model: nn.Module, momentum: float, weight_decay: float, form: Literal["paper", "pytorch"]
    ) -> None:
        named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.parameters: list[Tensor] = list(named.values())
        self.velocities: dict[str, Tensor] = {name: torch.zeros_like(p) for name, p in named.items()}
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.form = form

    @torch.no_grad()
    def step(self, learning_rate: float | Tensor) -> None:
        """Update every parameter that learns now from its gradient, then drop the gradients.

        Args:
            learning_rate: a number, or a tensor () on the device, which a CUDA graph reads anew each time.
        """
        # Those of a frozen part stay as they are: they do not even decay.
        learning = [
            (p, v) for p, v in zip(self.parameters, self.velocities.values(), strict=True) if p.requires_grad
        ]
        parameters, velocities = [p for p, _ in learning], [v for _, v in learning]
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
        if self.weight_decay:
            torch._foreach_add_(gradients, parameters, alpha=self.weight_decay)
        torch._foreach_mul_(velocities, self.momentum)
        if self.form == "paper":
            _add_scaled_(velocities, gradients, learning_rate)
            torch._foreach_sub_(parameters, velocities)
        else:
            torch._foreach_add_(velocities, gradients)
            _add_scaled_(parameters, velocities, -learning_rate)
        self.drop_gradients()

    def drop_gradients(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None


def _add_scaled_(targets: list[Tensor], values: list[Tensor], factor: float | Tensor) -> None:
    """Add ``factor * value`` to each target, in place."""
    if isinstance(factor, Tensor):
        torch._foreach_add_(targets, torch._foreach_mul(values, factor))
    else:
        torch._foreach_add_(targets, values, alpha=factor)
