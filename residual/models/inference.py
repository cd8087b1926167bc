"""A trained network made ready to be used: BN folded, weights packed (on a CPU), channels-last, no gradients.

float32 gives the scores that training saw. bfloat16 is about twice as fast on processors and GPUs with
instructions for it, and slower on others; scores change by some thousandths of the largest
(docs/performance.md).
"""

import copy
from typing import Literal, TypeVar

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_conv_bn_weights

from ..errors import InputError, nearest
from .frozen import FrozenBatchNorm2d
from .own import OwnNetwork
from .packed import pack

M = TypeVar("M", bound=nn.Module)

Precision = Literal["float32", "bfloat16"]

DTYPES: dict[Precision, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def fold_batchnorm(model: M) -> M:
    """Return a copy whose convolutions do the work of the BN after them, in evaluation mode.

    BN with fixed statistics is an affine map of each channel, so it can be part of the convolution before it:
    the copy computes the same function within rounding, with half of the layers. It is not for training.

    Args:
        model: in which every BN, frozen or not, is the module after its convolution, as in all networks here.
    """
    folded = copy.deepcopy(model).eval().requires_grad_(False)
    if isinstance(folded, OwnNetwork):
        return folded  # in what order its modules run, nobody knows
    for module in list(folded.modules()):
        before: tuple[str, nn.Module] = ("", module)
        for name, child in list(module.named_children()):
            if isinstance(before[1], nn.Conv2d) and isinstance(child, nn.BatchNorm2d | FrozenBatchNorm2d):
                setattr(module, before[0], _fused(before[1], child))
                setattr(module, name, nn.Identity())
            before = (name, child)
    return folded


def _fused(conv: nn.Conv2d, norm: nn.BatchNorm2d | FrozenBatchNorm2d) -> nn.Conv2d:
    if isinstance(norm, nn.BatchNorm2d):
        return fuse_conv_bn_eval(conv, norm)
    scale, shift = norm.scale.flatten(), norm.shift.flatten()
    zeros, ones = torch.zeros_like(scale), torch.ones_like(scale)
    conv.weight, conv.bias = fuse_conv_bn_weights(conv.weight, conv.bias, zeros, ones, 0.0, scale, shift)
    return conv


def check_precision(precision: str) -> None:
    """Raise an InputError for a precision that there is not."""
    if precision not in DTYPES:
        raise InputError(f"there is no precision {precision!r}{nearest(precision, DTYPES)}")


def for_inference(model: M, device: torch.device | None = None, precision: Precision = "float32") -> M:
    """Return a copy on a device that is fast at ``forward`` and ``score_map``: BN folded, weights packed.

    Its input is to have the precision of its parameters.
    """
    check_precision(precision)
    device, dtype = device or torch.device("cpu"), DTYPES[precision]
    folded = fold_batchnorm(model).to(device, dtype).to(memory_format=torch.channels_last)
    if device.type == "cpu" and not isinstance(folded, OwnNetwork):
        pack(folded, dtype)
    return folded
