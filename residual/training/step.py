"""One optimisation step of classification."""

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from .. import signals
from ..distributed import World
from ..errors import Interrupted
from ..models.objective import Objective
from ..models.own import OwnNetwork
from .batchnorm import advance, advance_by, batch_norms, set_momentum
from .groups import SideBySide, at_once
from .sgd import SGD

if TYPE_CHECKING:
    from .classification import ErrorMeter


class Step:
    """One step of SGD on a mini-batch, one BN group after the other, or several side by side (groups.py).

    Args:
        model: on its device, in channels-last format: a network, or an objective with one.
        optimizer: over the same parameters.
        group: images that go through the network at a time: those that share their BN statistics, or, where
            the BN layers tell groups apart themselves (GroupedBatchNorm2d), this rank's whole share.
        world: gradients are averaged over its ranks.
        meter: receives the losses and errors.
        precision: as in the recipe; only "bfloat16" is an affair of the step.
        iterations: of the whole run, for losses that change on the way.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: SGD,
        group: int,
        world: World,
        meter: "ErrorMeter",
        precision: str = "tf32",
        iterations: int = 1,
    ) -> None:
        self.own = model
        self.model = distributed(model) if world.size > 1 else model
        self.layers = batch_norms(model)
        self.optimizer = optimizer
        self.group = group
        self.meter = meter
        self.autocast = precision == "bfloat16"
        self.iterations = iterations
        #: Made when it is first needed: by then it is known how large the images are.
        self._beside: SideBySide | None = None
        self._loss: Callable[..., Tensor] = self._loss_of
        self._count: Callable[..., None] = meter.add

    def compile(self) -> None:
        """Have the loss and the log's sums compiled at their first call, some twenty small kernels.

        For iterations whose number is a tensor; plain numbers would be compiled one by one.
        """
        self._loss = torch.compile(self._loss_of, dynamic=False)
        self._count = torch.compile(self.meter.add, dynamic=False)

    def uncompile(self) -> None:
        """Undo ``compile``."""
        self._loss, self._count = self._loss_of, self.meter.add

    def __call__(
        self, inputs: Tensor, targets: Tensor, learning_rate: float | Tensor, iteration: int | Tensor
    ) -> None:
        """Inputs float (n, C, H, W), targets int64 (n,): this rank's share of the mini-batch."""
        parts = list(zip(inputs.split(self.group), targets.split(self.group), strict=True))
        count = at_once(self.own, [x for x, _ in parts]) if self.own is self.model else 1
        if count > 1:
            self._side_by_side(count, parts, iteration)
        else:
            self._one_after_the_other(parts, iteration)
        self.optimizer.step(learning_rate)

    @property
    def waits_in_layers(self) -> bool:
        """Whether this process's threads wait for each other in every layer."""
        return self._beside is None

    def _side_by_side(
        self, count: int, parts: Sequence[tuple[Tensor, Tensor]], iteration: int | Tensor
    ) -> None:
        if self._beside is None or self._beside.count != count:
            self._beside = SideBySide(self.own, count)
        total: list[Tensor] = []
        found = []
        forward = functools.partial(self._forward, iteration=iteration)
        with contextlib.closing(self._beside(parts, forward)) as results:
            for result in results:
                signals.check()
                # In the groups' order, whichever is done first: rounding depends on it.
                if total:
                    torch._foreach_add_(total, list(result.gradients))
                else:
                    total = list(result.gradients)
                found.append(result)
        # Nothing has changed so far, and nothing ends the iteration from here on.
        for parameter, gradient in zip(self._beside.learning, total, strict=True):
            parameter.grad = gradient
        advance_by(self.layers, [result.statistics for result in found])
        for result, (_, y) in zip(found, parts, strict=True):
            self._count(result.loss, result.scores, y, iteration)

    def _one_after_the_other(self, parts: Sequence[tuple[Tensor, Tensor]], iteration: int | Tensor) -> None:
        images = sum(len(y) for _, y in parts)
        # A GPU is done with all groups at once.
        long = len(parts) > 1 and parts[0][0].device.type == "cpu"
        with left_as_it_was(self._changed, self.optimizer) if long else contextlib.nullcontext():
            for number, (x, y) in enumerate(parts, start=1):
                if long:
                    signals.check()
                set_momentum(self.layers, number, len(parts))
                with self._gradients_stay_here(number < len(parts)):
                    scores, loss = self._forward(self.model, x, y, iteration)
                    self._weighted(loss, len(y) / images).backward()
                advance(self.layers, len(x))
                self._count(loss.detach(), scores.detach(), y, iteration)

    def _changed(self) -> list[Tensor]:
        """Return what an iteration changes before the optimizer's step."""
        return [*self.meter.state(), *self.own.buffers()]

    def rehearse(self, inputs: Tensor, targets: Tensor) -> None:
        """Run both passes without an update, and without the other ranks; BN statistics advance."""
        for x, y in zip(inputs.split(self.group), targets.split(self.group), strict=True):
            _, loss = self._forward(self.own, x, y, 0)
            torch.autograd.grad(loss, [p for p in self.own.parameters() if p.requires_grad])

    def state(self) -> list[Tensor]:
        """Return all tensors that a step changes."""
        model = [*self.own.parameters(), *self.own.buffers()]
        return [*model, *self.optimizer.velocities.values(), *self.meter.state()]

    def _forward(
        self, model: nn.Module, x: Tensor, y: Tensor, iteration: int | Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the scores of images and their mean loss."""
        # No cache: it would keep the graph's first copies of the weights.
        with torch.autocast(x.device.type, torch.bfloat16, self.autocast, cache_enabled=False):
            outputs = model(x)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        return outputs[0], self._loss(outputs, y, iteration)

    def _loss_of(self, outputs: Sequence[Tensor], targets: Tensor, iteration: int | Tensor) -> Tensor:
        """Return the mean loss of what the model gave, in float32 at least."""
        outputs = [each.to(torch.promote_types(each.dtype, torch.float32)) for each in outputs]
        if isinstance(self.own, Objective):
            return self.own.loss(outputs, targets, iteration / self.iterations)
        return F.cross_entropy(outputs[0], targets)

    def _weighted(self, loss: Tensor, weight: float) -> Tensor:
        """Return what a group's loss adds to that of the mini-batch."""
        part = loss * weight
        if self.own is not self.model and isinstance(self.own, OwnNetwork):
            # Ranks wait for the gradient of each parameter, and a user's own network may have some that its
            # scores do not depend on: nought hangs on all of them.
            part = part + sum(p.flatten()[:0].sum() for p in self.own.parameters() if p.requires_grad)
        return part

    def _gradients_stay_here(self, stay: bool) -> contextlib.AbstractContextManager[None]:
        """Only the last group's backward pass exchanges gradients between the ranks."""
        if stay and isinstance(self.model, DistributedDataParallel):
            return self.model.no_sync()
        return contextlib.nullcontext()


@contextlib.contextmanager
def left_as_it_was(changed: Callable[[], Sequence[Tensor]], optimizer: SGD) -> Iterator[None]:
    """Put tensors back and drop the gradients where a signal ends this context: an iteration not begun.

    Args:
        changed: gives all that an iteration changes before the optimizer's step; a network may put another
            tensor in the place of one.
    """
    before = [tensor.clone() for tensor in changed()]
    try:
        yield
    except Interrupted:
        for tensor, value in zip(changed(), before, strict=True):
            tensor.copy_(value)
        optimizer.drop_gradients()
        raise


def distributed(model: nn.Module) -> DistributedDataParallel:
    """Return a network whose backward pass averages gradients over the ranks."""
    # Buffers are averaged where they are needed (batchnorm.synchronize), not sent with every step. PyTorch
    # has renamed the option since 2.11.
    new = "forward_sync_buffers"
    known = new in inspect.signature(DistributedDataParallel).parameters
    options: dict[str, Any] = {new if known else "broadcast_buffers": False}
    return DistributedDataParallel(model, **options)
