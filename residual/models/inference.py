"""A trained network made ready to be used: BN folded, weights packed (on a CPU), channels-last, no gradients.

float32 gives the scores that training saw. bfloat16 is about twice as fast on processors with
instructions for it, and slower on others; scores change by some thousandths of the largest
(docs/performance.md).
"""

import copy
from itertools import chain, pairwise
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from ..errors import InputError, nearest
from .classifier import Classifier
from .frozen import FrozenBatchNorm2d
from .own import OwnNetwork
from .packed import pack

M = TypeVar("M", bound=nn.Module)
C = TypeVar("C", bound=Classifier)

Precision = Literal["float32", "bfloat16"]

DTYPES: dict[Precision, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def fold_batchnorm(model: M) -> M:
    """Return a copy whose convolutions do the work of the BN after them, in evaluation mode.

    BN with fixed statistics is an affine map of each channel, so it can be part of the convolution before it:
    the copy computes the same function within rounding, with half of the layers. It is not for training.

    Args:
        model: in which every BN, frozen or not, is the module after its convolution, as in all networks here.
    """
    folded = _copy(model).eval().requires_grad_(False)
    for conv, norm in _folded_pairs(model):
        layer = folded.get_submodule(conv)
        assert isinstance(layer, nn.Conv2d)
        if layer.bias is None:
            layer.bias = nn.Parameter(layer.weight.new_zeros(layer.out_channels), requires_grad=False)
        folded.set_submodule(norm, nn.Identity())
    fold_again(folded, model)
    return folded


def _copy(model: M) -> M:
    """Return a copy of a network; of what it keeps of a pass that learned, as users' own may, the numbers."""
    kept: dict[int, Any] = {}
    for module in model.modules():
        for value in vars(module).values():
            several = value.values() if isinstance(value, dict) else value
            for part in several if isinstance(value, dict | list | tuple) else (value,):
                if isinstance(part, Tensor) and not part.is_leaf:
                    kept[id(part)] = part.detach().clone()
    return copy.deepcopy(model, kept)


@torch.no_grad()
def fold_again(folded: M, model: M) -> None:
    """Take a network's newest tensors over into its folded copy, whose own keep their addresses.

    Args:
        folded: by ``fold_batchnorm``, in the network's precision and on its device.
    """
    newest = dict(model.named_parameters()) | dict(model.named_buffers())
    for conv, norm in _folded_pairs(model):
        weight, bias = _fused(model.get_submodule(conv), model.get_submodule(norm))  # type: ignore[arg-type]
        newest |= {f"{conv}.weight": weight, f"{conv}.bias": bias}
    for name, tensor in chain(folded.named_parameters(), folded.named_buffers()):
        tensor.copy_(newest[name])


def _folded_pairs(model: nn.Module) -> list[tuple[str, str]]:
    """Return the names of all convolutions that a BN comes after, each with that BN's."""
    if isinstance(model, OwnNetwork):
        return []  # in what order its modules run, nobody knows
    found = []
    for path, module in model.named_modules():
        within = f"{path}." if path else ""
        for (name, child), (following, norm) in pairwise(module.named_children()):
            if isinstance(child, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d | FrozenBatchNorm2d):
                found.append((within + name, within + following))
    return found


def _fused(conv: nn.Conv2d, norm: nn.BatchNorm2d | FrozenBatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return the weights and the bias with which a convolution does the work of the BN after it."""
    if isinstance(norm, nn.BatchNorm2d):
        assert norm.running_mean is not None
        assert norm.running_var is not None
        statistics = norm.running_mean, norm.running_var, norm.eps
        return fuse_conv_bn_weights(conv.weight, conv.bias, *statistics, norm.weight, norm.bias)
    scale, shift = norm.scale.flatten(), norm.shift.flatten()
    zeros, ones = torch.zeros_like(scale), torch.ones_like(scale)
    return fuse_conv_bn_weights(conv.weight, conv.bias, zeros, ones, 0.0, scale, shift)


def check_precision(precision: str) -> None:
    """Raise an InputError for a precision that there is not."""
    if precision not in DTYPES:
        raise InputError(f"there is no precision {precision!r}{nearest(precision, DTYPES)}")


def for_inference(model: C, device: torch.device | None = None, precision: Precision = "float32") -> C:
    """Return a copy on a device that is fast at ``forward`` and ``score_map``: BN folded, weights packed.

    Its input is to have the precision of its parameters.
    """
    check_precision(precision)
    device, dtype = device or torch.device("cpu"), DTYPES[precision]
    if any(tensor.device != device for tensor in chain(model.parameters(), model.buffers())):
        # Folded there, as the tests of a run do: a GPU's rsqrt is not a CPU's to the last bit, and one
        # network gives one number.
        model = _copy(model).to(device)
    folded = fold_batchnorm(model).to(dtype).to(memory_format=model.memory_format)
    if device.type == "cpu" and not isinstance(folded, OwnNetwork):
        pack(folded, dtype)
    return folded
