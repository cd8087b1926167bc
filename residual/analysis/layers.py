"""Layer responses (Figure 7) and signals (Section 4.1): what goes forwards and backwards through each layer.

The layers are the 3x3 convolutions. A layer's response is its output after BN and before the ReLU or the
addition; a network without BN (VGG) has the convolution's own output in its place. Forward hooks read it at
the moment it exists: the blocks' ReLU and addition then overwrite it in place, which is what keeps training's
memory small, so no stored intermediate could tell it afterwards.
"""

import copy
import itertools
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..device import sums_dtype
from ..errors import InputError
from ..models.highway import HighwayLayer

#: A batch: its inputs, and what is beside them.
B = TypeVar("B", bound=tuple[Tensor, ...])


@dataclass(frozen=True)
class Layer:
    """A 3x3 convolution, and the module whose output is its response.

    Attributes:
        name: of the convolution, as in the state dict.
        convolution: the 3x3 layer.
        response: the BN that takes its output, or the convolution itself.
        gate: in a highway network the convolution of the layer's gate, before its sigmoid.
    """

    name: str
    convolution: nn.Conv2d
    response: nn.Module
    gate: nn.Conv2d | None = None


@dataclass(frozen=True)
class Response:
    """One layer's bar in Figure 7.

    Attributes:
        layer: its name.
        std: standard deviation over images, channels and positions.
        gate: in a highway network how open the layer's gate is, in [0, 1]: its mean over the same.
    """

    layer: str
    std: float
    gate: float | None = None


@dataclass(frozen=True)
class Signal:
    """What passes through one layer in a training step.

    Attributes:
        layer: its name.
        variance_before: of the convolution's output, before BN.
        variance: of the response, after BN.
        gradient_norm: L2 norm of the gradient of one image's loss with respect to the response, root mean
            square over the images.
    """

    layer: str
    variance_before: float
    variance: float
    gradient_norm: float


@torch.no_grad()
def layers_of(model: nn.Module, x: Tensor) -> list[Layer]:
    """Return a network's 3x3 layers as they run; of a highway network all that have a gate as well.

    Which BN takes a layer's output one pass shows: modules may have been made in any order.

    Args:
        model: is left in its mode.
        x: prepared input, float (n, C, H, W).

    Raises:
        InputError: when it has none.
    """
    training = model.training
    model.eval()
    gates = {m.conv: m.gate for m in model.modules() if isinstance(m, HighwayLayer)}
    found: dict[nn.Conv2d, nn.Module] = {}
    outputs: list[tuple[nn.Conv2d, weakref.ref[Tensor], int]] = []

    def ran(convolution: Any, _: Any, output: Tensor) -> None:
        found[convolution] = convolution
        outputs.append((convolution, weakref.ref(output), output._version))

    def taken(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        for convolution, output, version in outputs:
            # Not what a ReLU in place has made of it.
            if inputs and output() is inputs[0] and inputs[0]._version == version:
                found[convolution] = norm

    names = {module: name for name, module in model.named_modules()}
    handles = []
    for module in names:
        if isinstance(module, nn.Conv2d) and module not in gates.values():
            if module.kernel_size == (3, 3) or module in gates:
                handles.append(module.register_forward_hook(ran))
        elif isinstance(module, _BatchNorm):
            handles.append(module.register_forward_pre_hook(taken))
    try:
        model(x)
    finally:
        for handle in handles:
            handle.remove()
        model.train(training)
    if not found:
        raise InputError("the network has no 3x3 convolution, so there are no layer responses to measure")
    return [
        Layer(names[convolution], convolution, response, gates.get(convolution))
        for convolution, response in found.items()
    ]


def _as_they_run(model: nn.Module, batches: Iterable[B]) -> tuple[list[Layer], Iterator[B]]:
    """Return a network's layers as its first image runs through them, and all batches, of inputs first."""
    parts = iter(batches)
    first = next(parts)
    return layers_of(model, first[0][:1]), itertools.chain([first], parts)


class Moments:
    """Standard deviation and variance of numbers that come in parts, as exact as the device can."""

    def __init__(self) -> None:
        self.count, self.total, self.squares = 0, 0.0, 0.0

    def add(self, values: Tensor) -> None:
        # Shifted sums are not needed: BN's outputs have means near 0 compared with their deviations.
        values = values.detach().to(sums_dtype(values.device))
        self.count += values.numel()
        self.total += float(values.sum())
        self.squares += float(values.square().sum())

    @property
    def variance(self) -> float:
        mean = self.total / self.count
        return max(0.0, self.squares / self.count - mean**2)


@torch.no_grad()
def responses(
    model: nn.Module, batches: Iterable[Tensor], progress: Callable[[int], None] | None = None
) -> list[Response]:
    """Return the standard deviation of each layer's response, in the network's order (Figure 7, top).

    The network is in its testing mode: BN normalises by the averaged statistics, as in the deployed network.

    Args:
        model: is left in its mode.
        batches: prepared inputs, float (n, C, H, W), on the model's device.
        progress: called with the number of images done after each batch.
    """
    layers, parts = _as_they_run(model, ((x,) for x in batches))
    moments, opened = [Moments() for _ in layers], [Moments() for _ in layers]
    training = model.training
    model.eval()
    handles = [
        layer.response.register_forward_hook(lambda _m, _i, output, m=m: m.add(output))
        for layer, m in zip(layers, moments, strict=True)
    ]
    handles += [
        layer.gate.register_forward_hook(lambda _m, _i, output, m=m: m.add(output.sigmoid()))
        for layer, m in zip(layers, opened, strict=True)
        if layer.gate
    ]
    done = 0
    try:
        for (x,) in parts:
            model(x)
            done += len(x)
            if progress:
                progress(done)
    finally:
        for handle in handles:
            handle.remove()
        model.train(training)
    return [
        Response(layer.name, m.variance**0.5, gate.total / gate.count if layer.gate else None)
        for layer, m, gate in zip(layers, moments, opened, strict=True)
    ]


def signals(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> list[Signal]:
    """Return what passes forwards and backwards through each layer, in the network's order (Section 4.1).

    The network is in its training mode, each batch a BN group of its own; it is left as it was.

    Args:
        model: on its device.
        batches: prepared inputs, float (n, C, H, W), and targets, int64 (n,).
    """
    # BN's moving averages advance in training mode: those of a copy.
    model = copy.deepcopy(model).train()
    layers, parts = _as_they_run(model, batches)
    before, after = [Moments() for _ in layers], [Moments() for _ in layers]
    squares = [0.0] * len(layers)

    def follow(number: int) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            after[number].add(output)
            # The hook is told the gradient of the output as it is now, whatever is done to it in place later.
            output.register_hook(lambda gradient: add(number, gradient))

        return hook

    def add(number: int, gradient: Tensor) -> None:
        # The loss is a mean over n images: one image's own gradient is n times as large.
        squares[number] += float((gradient.to(sums_dtype(gradient.device)) * len(gradient)).square().sum())

    handles = []
    for number, layer in enumerate(layers):
        handles += [
            layer.convolution.register_forward_hook(lambda _m, _i, output, m=before[number]: m.add(output)),
            layer.response.register_forward_hook(follow(number)),
        ]
    images = 0
    try:
        for x, y in parts:
            F.cross_entropy(model(x), y).backward()
            model.zero_grad()
            images += len(y)
    finally:
        for handle in handles:
            handle.remove()
    return [
        Signal(layer.name, before[i].variance, after[i].variance, (squares[i] / images) ** 0.5)
        for i, layer in enumerate(layers)
    ]
