"""Maxout: the largest piece of each unit, weights that keep the signal's size, the pooling at the edge."""

import pytest
import torch
from torch import nn

from residual import build_model
from residual.models.blocks import CaffeMaxPool2d
from residual.models.maxout import MaxoutConv, MaxoutLinear, MaxoutNetwork


@pytest.mark.parametrize("pieces", [2, 5])
def test_a_unit_is_the_largest_of_its_pieces(pieces: int) -> None:
    torch.manual_seed(0)
    layer = MaxoutConv(3, 4, 3, padding=1, pieces=pieces)
    x = torch.randn(2, 3, 6, 5)
    each = layer.conv(x).reshape(2, pieces, 4, 6, 5)
    torch.testing.assert_close(layer(x), each.max(dim=1).values)
    fully = MaxoutLinear(7, 4, pieces)
    x = torch.randn(2, 7)
    torch.testing.assert_close(fully(x), fully.fc(x).reshape(2, pieces, 4).max(dim=1).values)


@pytest.mark.parametrize("pieces", [2, 5])
def test_a_layer_keeps_the_mean_square(pieces: int) -> None:
    torch.manual_seed(0)
    layer, x = MaxoutLinear(400, 400, pieces), torch.randn(200, 400)
    assert layer(x).square().mean().item() == pytest.approx(1, abs=0.03)


def test_pooling_reaches_over_the_edge_for_any_sign() -> None:
    for window, side in ((2, 9), (3, 32), (4, 33), (4, 15), (4, 3)):
        x = -1 - torch.rand(1, 2, side, side)
        expected = nn.MaxPool2d(window, 2, ceil_mode=True)(x)
        assert torch.equal(CaffeMaxPool2d(window)(x), expected), (window, side)


def test_fully_connected_layers_move_over_a_larger_map() -> None:
    torch.manual_seed(0)
    model = build_model("cifar_maxout", classes=3, in_channels=1).eval()
    assert isinstance(model, MaxoutNetwork)
    x = torch.randn(1, 1, 40, 44)
    with torch.no_grad():
        scores = model.score_map(x)
        last = model.features(x)["layer3"]
        assert last.shape[2:] == (6, 6)
        assert scores.shape == (1, 3, 2, 2)
        window = model.linear(model.hidden(last[:, :, 1:, :5].flatten(1)))
    torch.testing.assert_close(scores[:, :, 1, 0], window)


@pytest.mark.parametrize(("name", "convolutions"), [("cifar_maxout", 3), ("cifar_fitnet19", 17)])
def test_layers_have_two_pieces_and_the_fully_connected_five(name: str, convolutions: int) -> None:
    model = build_model(name)
    layers = [m for m in model.modules() if isinstance(m, MaxoutConv)]
    assert [layer.pieces for layer in layers] == [2] * convolutions
    (hidden,) = (m for m in model.modules() if isinstance(m, MaxoutLinear))
    assert (hidden.pieces, hidden.fc.out_features) == (5, 2500)
