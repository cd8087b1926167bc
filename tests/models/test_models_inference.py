"""Networks made ready for use compute what they computed before."""

from typing import Any

import pytest
import torch
from conftest import randomise
from torch import Tensor, nn

from residual import build_model
from residual.models import inference
from residual.models.inference import fold_again, fold_batchnorm, for_inference


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cifar_resnet8", {}),
        ("cifar_resnet8", {"shortcut": "C"}),
        ("cifar_plain8", {}),
        ("resnet18", {"classes": 10}),
        ("resnet50", {"classes": 10}),
        ("plain18", {"classes": 10}),
    ],
)
@torch.inference_mode()
def test_folding_keeps_the_function(name: str, options: dict[str, object]) -> None:
    model = randomise(build_model(name, **options))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    folded = for_inference(model)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    x = torch.randn(2, 3, 64, 64)
    for ours, theirs in ((folded(x), model(x)), (folded.score_map(x), model.score_map(x))):
        assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_bn_is_folded_where_the_network_is_to_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU's rsqrt is not a CPU's to the last bit, and the tests of a run fold on the GPU."""
    seen, fuse = [], inference.fuse_conv_bn_weights

    def watched(weight: Tensor, *more: Any) -> Any:
        seen.append(weight.device.type)
        return fuse(weight, *more)

    monkeypatch.setattr(inference, "fuse_conv_bn_weights", watched)
    model = build_model("cifar_resnet8")
    for_inference(model, torch.device("meta"))
    assert set(seen) == {"meta"}
    # What is given stays where it is.
    assert all(parameter.device.type == "cpu" for parameter in model.parameters())


def test_folding_a_network_without_bn() -> None:
    model = build_model("cifar_resnet8")
    once = fold_batchnorm(model)
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(fold_batchnorm(once)(x), once(x))


@pytest.mark.parametrize(
    ("name", "options"),
    [("cifar_resnet8", {"shortcut": "C"}), ("cifar_nin", {}), ("googlenet_bn", {"classes": 10})],
)
def test_folding_again_is_folding(name: str, options: dict[str, object]) -> None:
    model = randomise(build_model(name, **options))
    folded = fold_batchnorm(model).to(memory_format=torch.channels_last)
    addresses = {key: tensor.data_ptr() for key, tensor in folded.state_dict().items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    randomise(model, seed=1)
    fold_again(folded, model)
    for key, tensor in fold_batchnorm(model).state_dict().items():
        assert torch.equal(folded.state_dict()[key], tensor), key
    assert {key: tensor.data_ptr() for key, tensor in folded.state_dict().items()} == addresses
