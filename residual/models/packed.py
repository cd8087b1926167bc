"""Convolutions of a trained network on a CPU that keep their weights as the processor's kernel reads them.

The library that PyTorch convolves with on a CPU (oneDNN) reads weights in blocks, whose form follows from the
shapes; PyTorch orders them anew at every call. That is as much memory traffic as an image's maps are, and a
good part of a single image's time (docs/performance.md). Here they stay in order as long as the shape of the
input does. A network gives the same bits at every call, within rounding of PyTorch's own.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..device import packs_weights

#: Where the input has more numbers than so many times the weights, ordering those is no work beside it.
LARGE = 4

#: A shape of the input.
Shape = tuple[int, ...]


class PackedConv2d(nn.Module):
    """A convolution with fixed weights, on a CPU.

    From the second input of a shape on the weights are in the order for that shape, and only so: they are
    never held twice. For an input that is large beside them they stay as they are. So ``weight`` is no
    parameter, but made when it is asked for, and in the state dict. For gradients of the input, in another
    precision and on another device it convolves as ever.

    Args:
        conv: zero-padded; its weights are taken over.

    Shapes: as of ``conv``.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.bias = conv.bias
        self.dtype = conv.weight.dtype
        self.settings: tuple[Any, ...] = (
            list(conv.padding),
            list(conv.stride),
            list(conv.dilation),
            conv.groups,
        )
        self._last: Shape | None = None
        # One value, so that threads that share a network never see weights and a shape that do not belong
        # together. None: in the usual order.
        self._held: tuple[Tensor, Shape | None] = conv.weight.detach(), None

    @property
    def weight(self) -> Tensor:
        """The weights in the usual order, channels-last."""
        weight, order = self._held
        if order is None:
            return weight
        # It may be kept: gradients are to go through it afterwards, which no inference tensor lets them.
        with torch.inference_mode(False):
            return weight.to_dense().to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        if not x.is_cpu or x.dtype != self.dtype or x.requires_grad:
            padding, stride, dilation, groups = self.settings
            return F.conv2d(x, self.weight, self.bias, stride, padding, dilation, groups)
        shape, reorder = tuple(x.shape), torch.ops.aten.mkldnn_reorder_conv2d_weight
        weight, order = self._held
        if order != shape:
            if order is not None:
                weight = self.weight
                self._held = weight, None
            if x.numel() <= LARGE * weight.numel():
                if self._last == shape:
                    weight = reorder(weight.to_mkldnn(), *self.settings, shape)
                    self._held = weight, shape
                self._last = shape
        # Also where the weights are in the usual order: on one thread PyTorch's own choice for a 1x1
        # convolution of a few images is another kernel, in float32 slower by a tenth to four tenths.
        return torch.ops.mkldnn._convolution_pointwise(x, weight, self.bias, *self.settings, "none", [], "")

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "PackedConv2d":
        self._held, self._last = (fn(self.weight), None), None
        return super()._apply(fn, recurse)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        destination[prefix + "weight"] = self.weight
        super()._save_to_state_dict(destination, prefix, keep_vars)

    def __getstate__(self) -> dict[str, Any]:
        # A copy, or a file, has the weights in the usual order: the other is of this process.
        return self.__dict__ | {"_held": (self.weight, None), "_last": None}


def pack(model: nn.Module, dtype: torch.dtype) -> None:
    """Put packed convolutions in the place of a network's, where this processor's kernels take them."""
    if not packs_weights(dtype):
        return
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Conv2d) and child.padding_mode == "zeros":
                setattr(module, name, PackedConv2d(child).train(child.training))
