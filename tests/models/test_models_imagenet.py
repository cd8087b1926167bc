"""The networks of Table 1."""

import pytest
import torch
from torch import nn

from residual.models import build_model


@pytest.mark.parametrize("name", ["resnet50", "resnet101", "resnet152"])
def test_variant_moves_the_stride(name: str) -> None:
    with torch.device("meta"):
        v1, later = build_model(name), build_model(name, variant="v1.5")
    for stage in ("layer2", "layer3", "layer4"):
        first, moved = getattr(v1, stage), getattr(later, stage)
        assert [conv.stride for conv in (first[0].conv1, first[0].conv2, first[0].conv3)] == [
            (2, 2),
            (1, 1),
            (1, 1),
        ]
        assert [conv.stride for conv in (moved[0].conv1, moved[0].conv2, moved[0].conv3)] == [
            (1, 1),
            (2, 2),
            (1, 1),
        ]
    strided = [
        m for model in (v1, later) for m in model.modules() if isinstance(m, nn.Conv2d) and m.stride == (2, 2)
    ]
    # conv1, and in each of three stages one layer and its projection; twice.
    assert len(strided) == 2 * (1 + 3 * 2)
