"""Convolutions with packed weights: the same bits at every call, whatever shapes come in what order."""

import copy
import pickle
import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from residual import build_model
from residual.device import packs_weights
from residual.models.inference import fold_batchnorm, for_inference
from residual.models.packed import PackedConv2d

pytestmark = pytest.mark.skipif(not packs_weights(torch.float32), reason="this processor packs no weights")

DTYPES = [d for d in (torch.float32, torch.bfloat16) if packs_weights(d)]


def settings() -> list[dict[str, Any]]:
    return [
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": 1, "stride": 2},
        {"kernel_size": 7, "stride": 2, "padding": 3},
        {"kernel_size": 3, "groups": 4, "dilation": 2, "bias": False},
    ]


def images(number: int, size: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(number, 16, size, size, dtype=dtype).to(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("how", settings(), ids=str)
@torch.inference_mode()
def test_every_call_gives_the_same_bits(how: dict[str, Any], dtype: torch.dtype) -> None:
    conv = nn.Conv2d(16, 32, **how).to(dtype, memory_format=torch.channels_last)
    packed = PackedConv2d(conv)
    a, b = images(4, 17, dtype), images(1, 24, dtype)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2
    first = {0: packed(a), 1: packed(b)}
    for number in (0, 0, 0, 1, 0, 1, 1, 1):
        x = (a, b)[number]
        y = packed(x)
        assert y.dtype == dtype
        assert torch.equal(y, first[number])
        assert (y - conv(x)).abs().max() <= tolerance * y.abs().max()


@torch.inference_mode()
def test_weights_are_in_the_kernels_order_while_the_shape_stays_and_never_held_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    packed = PackedConv2d(nn.Conv2d(16, 32, 3))
    reorder, orders = torch.ops.aten.mkldnn_reorder_conv2d_weight, []
    monkeypatch.setattr(
        torch.ops.aten, "mkldnn_reorder_conv2d_weight", lambda *a: orders.append(a[-1]) or reorder(*a)
    )
    a, b = images(2, 9, torch.float32), images(3, 9, torch.float32)
    for x in (a, a, a, b, a, b, b, b):
        packed(x)
    assert orders == [(2, 16, 9, 9), (3, 16, 9, 9)]
    # Beside so large an input, what ordering would save is nothing; it is the memory of both.
    for _ in range(3):
        packed(images(9, 15, torch.float32))
    assert len(orders) == 2
    packed(b), packed(b)
    held = [value for value in vars(packed)["_held"] if isinstance(value, Tensor)]
    assert [tensor.is_mkldnn for tensor in held] == [True]
    assert [name for name, _ in packed.named_parameters()] == ["bias"]


@torch.inference_mode()
def test_threads_that_share_a_network_get_their_own_images_scores() -> None:
    network = for_inference(build_model("cifar_resnet8"))
    inputs = [torch.randn(n, 3, 32, 32) for n in (1, 2, 3)]
    wanted = [network(x) for x in inputs]
    wrong = []

    def work(x: Tensor, y: Tensor) -> None:
        with torch.inference_mode():
            wrong.extend(n for n in range(40) if not torch.equal(network(x), y))

    threads = [threading.Thread(target=work, args=pair) for pair in zip(inputs, wanted, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_packed_network_is_a_module_as_any_other() -> None:
    """Gradients to the input, state dict, copies, files, precision: whatever order the weights are in."""
    network, x = build_model("cifar_resnet8").eval(), torch.randn(2, 3, 32, 32)
    folded, packed = fold_batchnorm(network), for_inference(network)
    with torch.inference_mode():
        expected = folded(x)
        for _ in range(3):
            packed(x)
    assert any(m._held[1] for m in packed.modules() if isinstance(m, PackedConv2d))

    def gradient(model: nn.Module) -> Tensor | None:
        own = x.clone().requires_grad_()
        model(own).sum().backward()
        return own.grad

    torch.testing.assert_close(gradient(packed), gradient(folded), rtol=1e-4, atol=1e-5)
    assert packed.state_dict().keys() == folded.state_dict().keys()
    folded.load_state_dict(packed.state_dict())
    for model in (folded, copy.deepcopy(packed), pickle.loads(pickle.dumps(packed)), packed):
        with torch.inference_mode():
            torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
    assert copy.deepcopy(packed).double()(x.double()).dtype == torch.float64
    with torch.inference_mode():
        packed(x[:1])  # puts the weights back in the usual order
    torch.testing.assert_close(gradient(packed), gradient(folded), rtol=1e-4, atol=1e-5)


def test_a_processor_that_packs_none_keeps_its_convolutions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    network = for_inference(build_model("cifar_resnet8"))
    assert not any(isinstance(module, PackedConv2d) for module in network.modules())
    assert any(isinstance(module, nn.Conv2d) for module in network.modules())
