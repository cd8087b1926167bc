"""VGG over maps of any size."""

import pytest
import torch
from torch import nn

from residual.models import build_model, vgg

CLASSES = 7


@torch.no_grad()
def test_vgg_moves_its_classifier_over_a_larger_map(monkeypatch: pytest.MonkeyPatch) -> None:
    """On last maps of 7x7 (224 x 224 images) and more, without the cost of the convolutions before them."""
    monkeypatch.setattr(vgg, "UNITS", 64)
    torch.manual_seed(0)
    model = build_model("vgg16", classes=CLASSES).eval()
    model.convolutions = nn.Identity()
    maps = torch.randn(2, 512, 8, 9)
    score_map = model.score_map(maps)
    assert score_map.shape == (2, CLASSES, 2, 3)
    for row in range(2):
        for column in range(3):
            window = maps[:, :, row : row + 7, column : column + 7]
            torch.testing.assert_close(score_map[:, :, row, column], model(window), rtol=1e-4, atol=1e-5)
