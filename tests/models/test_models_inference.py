"""Networks made ready for use compute what they computed before."""

import pytest
import torch
from conftest import randomise
from torch import nn

from residual import build_model
from residual.models.inference import fold_batchnorm, for_inference


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


def test_folding_a_network_without_bn() -> None:
    model = build_model("cifar_resnet8")
    once = fold_batchnorm(model)
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(fold_batchnorm(once)(x), once(x))
