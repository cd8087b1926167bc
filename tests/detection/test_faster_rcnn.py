"""The detector: images are independent, and regions are pooled where they lie."""

import pytest
import torch
from detectors import eye, small_detector, training_image
from torch import Tensor
from torchvision.ops import roi_pool

from residual.detection.backbones import make_backbone
from residual.detection.faster_rcnn import FasterRCNN, decode
from residual.models import build_model
from residual.models.frozen import freeze_batch_norm
from residual.models.preprocessing import Preprocessing


def test_an_image_learns_the_same_alone_and_among_others() -> None:
    model = small_detector().train()
    images = [training_image(1), training_image(2, 48, 40)]
    images += [training_image(3, objects=0), training_image(4, objects=2)]
    together = model(images)
    alone = torch.stack([model([image]) for image in images]).sum(dim=0)
    assert torch.allclose(together, alone, rtol=1e-5)
    assert torch.equal(model(images), together)
    together.sum().backward()
    learned = {name for name, p in model.named_parameters() if p.grad is not None}
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert learned == {name for name, _ in model.named_parameters()} - frozen
    # conv1 and the first stage.
    assert {name.split(".")[2] for name in frozen} == {"conv1", "layer1"}


@pytest.mark.parametrize(("width", "height"), [(800, 600), (1000, 600), (640, 480), (801, 599), (100, 100)])
def test_regions_at_the_edge_are_pooled_from_the_map_alone(width: int, height: int) -> None:
    torch.manual_seed(0)
    backbone = make_backbone(build_model("resnet18"))
    freeze_batch_norm(backbone)
    model = FasterRCNN(backbone, 3, Preprocessing(torch.full((3,), 0.5)))
    # The map of ones has the size that the network gives; a bin beyond it would be zero.
    ones = torch.ones(1, 4, -(-height // 16), -(-width // 16))
    for x in (0.0, width - 100.0, width - 20.0, width - 1.0):
        for y in (0.0, height - 100.0, height - 20.0, height - 1.0):
            pooled = model.pool_cells(ones, torch.tensor([[x, y, float(width), float(height)]]))
            assert torch.equal(pooled, torch.ones_like(pooled)), (x, y)


def test_the_last_pixel_of_a_region_is_its_corner_in_pooling() -> None:
    # As in the released code: x2 and y2 are the last pixel, which belongs to the region.
    model = small_detector()
    map = torch.rand(1, 2, 64, 64)
    box = torch.tensor([[7.0, 20, 61, 90]])
    last = torch.tensor([[7.0, 20, 60, 89]])
    expected = roi_pool(map, [last], model.roi_size, 1 / model.backbone.stride)
    assert torch.equal(model.pool_cells(map, box), expected)


@pytest.mark.parametrize("pooling", ["pool", "align"])
def test_regions_keep_their_place_in_bfloat16(pooling: str) -> None:
    model = small_detector(pooling=pooling)
    # Its numbers have eight binary digits: the column 257 would be 256 or 258.
    map = (torch.arange(512.0) % 64).expand(1, 1, 4, 512).bfloat16()
    place = model.backbone.stride * torch.tensor([[257.0, 0, 257 + model.roi_size, 3]])
    exact = model.pool_cells(map.float(), place)
    assert torch.equal(model.pool_cells(map, place), exact.bfloat16())
    moved = model.pool_cells(map.float(), place.bfloat16().float())
    assert not torch.equal(moved, exact), "the case does not show what it is for"


def test_outputs_of_zero_leave_a_region_as_it_is() -> None:
    regions = torch.tensor([[3.0, 4, 13, 24]])
    assert decode(torch.zeros(1, 2, 4), regions).tolist() == [[[3, 4, 13, 24]] * 2]


def test_global_context_joins_the_whole_image_to_each_region() -> None:
    """With the eye, a region's description is its mean, then the mean of the whole image."""
    detector = eye(global_context=True)
    seen: list[Tensor] = []
    detector.predict = lambda features: seen.append(features) or (torch.zeros(3, 3), torch.zeros(3, 2, 4))  # type: ignore
    maps = [torch.full((1, 3, 8, 8), 2.0), torch.full((1, 3, 8, 8), 7.0)]
    maps[0][:, :, :4] = 4.0
    boxes = [torch.tensor([[0.0, 0, 7, 3], [0, 4, 7, 7]]), torch.tensor([[0.0, 0, 7, 7]])]
    pooled = [detector.pool([map], box) for map, box in zip(maps, boxes, strict=True)]
    detector.predict_regions(pooled, [detector.pool_whole_image([map], (8, 8)) for map in maps])
    # The whole of the first image is 4 above and 2 below; each half has its own largest value.
    assert seen[0][:, 0].tolist() == [4, 2, 7]
    assert seen[0][:2, 3].tolist() == [3, 3]
    assert seen[0][2, 3] == 7
