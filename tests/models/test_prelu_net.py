"""PReLU-net: the pyramid, its slopes, how its weights begin."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from residual import build_model
from residual.models import prelu_net
from residual.models.prelu_net import PYRAMID, pyramid


@pytest.mark.parametrize("size", [(14, 14), (5, 9), (1, 2)])
def test_the_pyramid_is_adaptive_pooling_at_four_levels(size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *size)
    levels = [F.adaptive_max_pool2d(x, cells).flatten(1) for cells in PYRAMID]
    assert torch.equal(pyramid(x), torch.cat(levels, dim=1))
    assert pyramid(x).shape == (2, 3 * 63)


def test_rectifiers_have_slopes_and_weights_begin_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prelu_net, "UNITS", 32)
    torch.manual_seed(0)
    model = build_model("prelu_net", classes=5)
    slopes = [module.weight for module in model.modules() if isinstance(module, nn.PReLU)]
    assert [len(slope) for slope in slopes] == [96, *([256] * 5), *([512] * 10), 32, 32]
    assert all(slope.eq(0.25).all() for slope in slopes)
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            number, fan_in = module.weight.numel(), module.weight[0].numel()
            deviation = math.sqrt(2 / (1 + 0.25**2) / fan_in)
            assert abs(module.weight.std().item() / deviation - 1) < 5 / math.sqrt(2 * number), name
            assert module.bias is not None
            assert not module.bias.any()
