"""What we use of PyTorch and torchvision that is not public: each by its name, so that a break is told by it.

A release may change any of it without a word. Another private name in our code fails the first test here.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT, random_pixels
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torchvision.models.detection._utils import BoxCoder

from residual.device import packs_weights

PRIVATE = {
    "torch.ops.mkldnn._is_mkldnn_bf16_supported",
    "torch._dynamo.config.recompile_limit",
    "torch._foreach_add_",
    "torch._foreach_lerp_",
    "torch._foreach_mul",
    "torch._foreach_mul_",
    "torch._foreach_sub_",
    "torch.nn.modules.batchnorm._BatchNorm",
    "torch.nn.modules.dropout._DropoutNd",
    "torch.ops.aten._upsample_bilinear2d_aa",
    "torch.ops.mkldnn._convolution_pointwise",
    "torchvision.models.detection._utils.BoxCoder",
}


def names_in(path: Path) -> Iterator[str]:
    """Yield the dotted names in a file that are of PyTorch or torchvision."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute) and id(node) not in inner:
            yield ast.unparse(node)


def test_no_other_private_name_is_used() -> None:
    found = {
        name
        for path in (ROOT / "residual").rglob("*.py")
        for name in names_in(path)
        if re.fullmatch(r"torch(vision)?(\.\w+)+", name)
        and any(part.startswith("_") and not part.startswith("__") for part in name.split("."))
    }
    assert found == PRIVATE


def test_box_coder() -> None:
    """torchvision.models.detection._utils.BoxCoder: R-CNN's outputs and boxes, both ways."""
    coder = BoxCoder((10.0, 10.0, 5.0, 5.0))
    regions = torch.tensor([[0.0, 0, 10, 20], [4, 4, 12, 8]])
    boxes = torch.tensor([[2.0, 0, 12, 20], [4, 2, 12, 10]])
    outputs = coder.encode_single(boxes, regions)
    # The first moves by a fifth of its width; the second becomes twice as high about the same middle.
    expected = torch.tensor([[2.0, 0, 0, 0], [0, 0, 0, 5 * torch.tensor(2.0).log()]])
    torch.testing.assert_close(outputs, expected)
    torch.testing.assert_close(coder.decode_single(outputs, regions).reshape(-1, 4), boxes)
    # Several classes side by side.
    both = coder.decode_single(torch.cat([outputs, torch.zeros(2, 4)], dim=1), regions).reshape(2, 2, 4)
    torch.testing.assert_close(both, torch.stack([boxes, regions], dim=1))
    # However sure an output is, a side grows to 62.5 times at most.
    wide = coder.decode_single(torch.tensor([[0.0, 0, 1e4, 0]]), regions[:1]).reshape(4)
    assert (wide[2] - wide[0]).item() == pytest.approx(10 * 62.5, rel=1e-4)


@pytest.mark.parametrize("size", [(7, 5), (40, 21), (12, 33)])
def test_upsample_bilinear2d_aa(size: tuple[int, int]) -> None:
    """torch.ops.aten._upsample_bilinear2d_aa: resizing with antialiasing, of uint8, at a given scale."""
    image = random_pixels(1, 3, 21, 33)
    # The scales are steps in the image for a pixel of the result, whatever the sizes are.
    resized = torch.ops.aten._upsample_bilinear2d_aa(image, list(size), False, size[0] / 21, size[1] / 33)
    expected = F.interpolate(image, size, mode="bilinear", antialias=True)
    assert resized.dtype == torch.uint8
    assert torch.equal(resized, expected)
    # Half of the result at the same scale is half of the result.
    half = torch.ops.aten._upsample_bilinear2d_aa(
        image, [size[0] // 2, size[1]], False, size[0] / 21, size[1] / 33
    )
    assert torch.equal(half, resized[:, :, : size[0] // 2])


def test_foreach() -> None:
    """torch._foreach_*: one call for many tensors, as the plain operations one by one."""
    given = [torch.tensor([1.0, 2.0]), torch.tensor([[3.0]])]
    others = [torch.tensor([10.0, 20.0]), torch.tensor([[30.0]])]

    def changed(operation: str, *arguments: object, **options: float) -> list[list[float]]:
        mine = [tensor.clone() for tensor in given]
        getattr(torch, operation)(mine, *arguments, **options)
        return [tensor.flatten().tolist() for tensor in mine]

    assert changed("_foreach_add_", others) == [[11, 22], [33]]
    assert changed("_foreach_add_", others, alpha=0.5) == [[6, 12], [18]]
    assert changed("_foreach_sub_", others) == [[-9, -18], [-27]]
    assert changed("_foreach_mul_", 3.0) == [[3, 6], [9]]
    assert changed("_foreach_mul_", torch.tensor(3.0)) == [[3, 6], [9]]
    assert changed("_foreach_lerp_", others, 0.5) == [[5.5, 11], [16.5]]
    product = torch._foreach_mul(given, 2.0)
    assert [tensor.flatten().tolist() for tensor in product] == [[2, 4], [6]]
    assert [tensor.flatten().tolist() for tensor in given] == [[1, 2], [3]]


def test_batch_norm_and_dropout() -> None:
    """_BatchNorm and _DropoutNd: what all BN layers and all dropout layers are."""
    assert all(issubclass(kind, _BatchNorm) for kind in (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm))
    assert all(issubclass(kind, _DropoutNd) for kind in (nn.Dropout, nn.Dropout2d))
    layer = nn.BatchNorm2d(2)
    assert {"running_mean", "running_var", "num_batches_tracked"} <= dict(layer.named_buffers()).keys()
    assert nn.Dropout(0.25).p == 0.25


def test_recompile_limit() -> None:
    """torch._dynamo.config.recompile_limit: how many shapes of one block may be compiled."""
    import torch._dynamo

    assert isinstance(torch._dynamo.config.recompile_limit, int)


@pytest.mark.skipif(not packs_weights(torch.float32), reason="this processor packs no weights")
def test_convolution_pointwise() -> None:
    """Of weights in the usual order and in the kernel's."""
    x, weight, bias = torch.randn(2, 8, 9, 9), torch.randn(16, 8, 3, 3), torch.randn(16)
    settings = ([1, 1], [2, 2], [1, 1], 1)
    packed = torch.ops.aten.mkldnn_reorder_conv2d_weight(weight.to_mkldnn(), *settings, x.shape)
    expected = F.conv2d(x, weight, bias, stride=2, padding=1)
    for given in (weight, packed):
        found = torch.ops.mkldnn._convolution_pointwise(x, given, bias, *settings, "none", [], "")
        assert (found - expected).abs().max() < 1e-4
    assert torch.equal(packed.to_dense(), weight)
    assert isinstance(torch.ops.mkldnn._is_mkldnn_bf16_supported(), bool)
