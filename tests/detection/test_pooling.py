"""Regions pooled from rows of a table, against torchvision's kernels."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torchvision.ops import roi_align as their_align
from torchvision.ops import roi_pool as their_pool

from residual.detection.backbones import make_backbone
from residual.detection.faster_rcnn import FasterRCNN
from residual.detection.pooling import roi_align, roi_pool
from residual.models import build_model
from residual.models.frozen import freeze_batch_norm
from residual.models.inference import fold_batchnorm
from residual.models.preprocessing import Preprocessing

HEIGHT, WIDTH, STRIDE = 19, 26, 16


def boxes() -> Tensor:
    """Regions of all sizes, some over the edges and some with corners halfway between two positions."""
    random = torch.Generator().manual_seed(0)
    corners = torch.rand(60, 2, generator=random) * torch.tensor([400.0, 290]) - 20
    sides = 300 * torch.rand(60, 2, generator=random) ** 3
    several = torch.cat([corners, corners + sides], dim=1)
    several[:20, :] = several[:20, :].clamp(min=0).div(8).round() * 8
    edge = torch.tensor(
        [[0.0, 0, WIDTH * 16, HEIGHT * 16], [400, 290, 416, 304], [7, 9, 7, 9], [-90, 0, -60, 9]]
    )
    return torch.cat([several, edge])


def map_of(channels: int = 6) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(1, channels, HEIGHT, WIDTH).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("kind", ["pool", "align"])
@pytest.mark.parametrize(("size", "step"), [(7, 1), (14, 2), (5, 2), (6, 3)])
def test_regions_are_those_of_torchvisions_kernels(kind: str, size: int, step: int) -> None:
    """The cells that are looked at, and what a gradient there is to the map."""
    ours, theirs = map_of().requires_grad_(), map_of().contiguous().requires_grad_()
    places, scale = boxes(), 1 / STRIDE
    if kind == "pool":
        got = roi_pool(ours, places, size, STRIDE, step)
        whole = their_pool(theirs, [places], size, scale)
    else:
        got = roi_align(ours, places, size, STRIDE, step)
        whole = their_align(theirs, [places], size, scale, sampling_ratio=2, aligned=True)
    expected = whole[:, :, ::step, ::step]
    assert got.shape == expected.shape
    assert got.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    gradient = torch.randn(got.shape)
    got.backward(gradient)
    expected.backward(gradient)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("pool", [roi_pool, roi_align])
def test_where_nothing_is_proposed_no_region_is_pooled(pool: Callable[..., Tensor]) -> None:
    map = map_of().requires_grad_()
    none = pool(map, torch.empty(0, 4), 14, STRIDE, 2)
    assert none.shape == (0, 6, 7, 7)
    none.sum().backward()
    assert map.grad is not None
    assert not map.grad.any()


@pytest.mark.parametrize("pooling", ["pool", "align"])
@pytest.mark.parametrize(
    ("name", "options", "cells"),
    [
        ("resnet50", {"variant": "v1"}, 7),
        ("resnet50", {"variant": "v1", "shortcut": "A"}, 7),
        ("resnet50", {"variant": "v1.5"}, 14),
        ("plain18", {}, 14),
    ],
)
def test_only_cells_that_conv5_reads_are_pooled(
    pooling: str, name: str, options: dict[str, str], cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The maps and gradients are those of all 14 x 14 cells in the network as it is."""
    monkeypatch.setattr("residual.models.imagenet.WIDTHS", (8, 8, 16, 16))
    torch.manual_seed(0)
    network = build_model(name, **options)
    backbone = make_backbone(build_model(name, **options))
    backbone.network.load_state_dict(network.state_dict(), strict=False)
    for whole in (network, backbone):
        freeze_batch_norm(whole)
    stage = list(network.stages().values())[-1]
    detector = FasterRCNN(backbone, 2, Preprocessing(torch.zeros(3)), pooling=pooling, freeze=0)  # type: ignore[arg-type]
    places = torch.tensor([[16.0, 16, 200, 180], [3, 40, 300, 99], [100, 100, 400, 290]])
    last = places - torch.tensor([0.0, 0, 1, 1]) if pooling == "pool" else places

    ours, theirs = map_of(backbone.channels).requires_grad_(), map_of(backbone.channels).requires_grad_()
    assert detector.pool_cells(ours, places).shape == (3, backbone.channels, cells, cells)
    got = detector.head_maps(detector.pool(detector.region_maps(ours), places))
    # As with several scales, where the cells are pooled first.
    later = detector.head_maps(detector.enter(detector.pool_cells(ours, places)))
    torch.testing.assert_close(later, got, rtol=1e-3, atol=1e-4 * float(got.detach().abs().max()))
    if pooling == "pool":
        regions = their_pool(theirs, [last], 14, 1 / STRIDE)
    else:
        regions = their_align(theirs, [places], 14, 1 / STRIDE, sampling_ratio=2, aligned=True)
    expected = stage(regions)
    largest = float(expected.detach().abs().max())
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4 * largest)
    weights = torch.randn(got.shape)
    (got * weights).sum().backward()
    (expected * weights).sum().backward()
    assert ours.grad is not None
    assert theirs.grad is not None
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-3 * float(theirs.grad.abs().max()))
    # conv5's own layers learn the same.
    by_name = dict(network.named_parameters())
    learned = {key: p.grad for key, p in backbone.network.named_parameters() if p.grad is not None}
    assert {key.split(".")[0] for key in learned} == {"layer4"}
    for key, gradient in learned.items():
        other = by_name[key].grad
        assert other is not None
        torch.testing.assert_close(gradient, other, rtol=1e-3, atol=1e-3 * float(other.abs().max()))
    folded: FasterRCNN = fold_batchnorm(detector)
    with torch.no_grad():
        quick = folded.head_maps(folded.pool(folded.region_maps(ours), places))
    torch.testing.assert_close(quick, expected, rtol=1e-3, atol=1e-3 * largest)


@pytest.mark.parametrize("pool", [roi_pool, roi_align])
def test_gradients_of_many_regions_add_up_in_float32(pool: Callable[..., Tensor]) -> None:
    """256 regions of one place: in bfloat16 a sum of ones would stay at 256, of which a cell has several."""
    place = torch.tensor([[16.0, 16, 47, 47]]).expand(1024, 4)
    map = torch.ones(1, 2, 6, 6, dtype=torch.bfloat16).contiguous(memory_format=torch.channels_last)
    map.requires_grad_()
    pool(map, place, 2, STRIDE).sum().backward()
    assert map.grad is not None
    assert map.grad.dtype == torch.bfloat16
    assert map.grad.float().sum().item() == pytest.approx(1024 * 2 * 2 * 2, rel=0.01)


def test_corners_that_are_no_numbers_are_no_positions() -> None:
    regions = torch.tensor([[float("nan")] * 4, [0.0, 0, 64, 64]])
    for pool in (roi_pool, roi_align):
        assert pool(map_of(), regions, 2, STRIDE)[1].isfinite().all()
