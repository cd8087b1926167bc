"""The detector: images are independent, and regions are pooled where they lie."""

import math
from dataclasses import replace

import pytest
import torch
from detectors import NO_BOXES, eye, small_detector, training_image
from torch import Tensor
from torchvision.ops import box_iou, nms, roi_pool

from residual.detection.backbones import make_backbone
from residual.detection.faster_rcnn import (
    PRE_NMS_TOP_N,
    RPN_CHANNELS,
    RPN_MAX_POSITIVES,
    RPN_NMS_THRESHOLD,
    RPN_SAMPLES,
    FasterRCNN,
    SampledRegions,
    anchor_losses,
    best_regions,
    decode,
)
from residual.detection.weights import build_detector
from residual.models import build_model
from residual.models.frozen import freeze_batch_norm
from residual.models.preprocessing import Preprocessing
from residual.recipes.detection import Detector


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


def test_losses_of_anchors_by_hand() -> None:
    """Two anchors of the object, one that is neither and one of the background: means over the three."""
    anchors = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 8], [0, 0, 10, 5], [20, 20, 30, 30]])
    image = replace(training_image(1), boxes=torch.tensor([[0.0, 0, 10, 10]]))
    scores, outputs = torch.tensor([0.5, -1.0, 9.0, 2.0]), torch.zeros(4, 4)
    # From 10 x 8 to 10 x 10: an eighth of the height down, and taller by 10 to 8.
    outputs[1] = torch.tensor([0, 1 / 8 + 0.05, 0.5, math.log(10 / 8)])
    classified, placed = anchor_losses(image, (48, 40), scores, outputs, anchors, RPN_SAMPLES, 128)
    expected = math.log1p(math.exp(-0.5)) + math.log1p(math.exp(1)) + math.log1p(math.exp(2))
    assert float(classified) == pytest.approx(expected / 3, rel=1e-5)
    # Quadratic below a ninth, linear above.
    assert float(placed) == pytest.approx((0.05**2 / 2 * 9 + 0.5 - 1 / 18) / 3, rel=1e-5)


def test_losses_of_regions_by_hand() -> None:
    """Of two images: the mean over each one's regions, boxes in the outputs of their own class."""
    model = small_detector(regions=4).train()
    images = [training_image(1), training_image(2)]
    generator = torch.Generator().manual_seed(0)
    scores, outputs, targets = (
        2 * torch.randn(shape, generator=generator) for shape in ((8, 4), (8, 3, 4), (8, 4))
    )
    labels = torch.tensor([[3, 1, 0, 0], [0, 0, 0, 0]])
    used = torch.tensor([[True, True, True, False], [True, False, False, False]])
    regions = torch.tensor([[0.0, 0, 20, 20]]).expand(4, 4)
    sampled = [
        SampledRegions(regions, labels[n], targets[4 * n : 4 * n + 4], used[n], labels[n]) for n in range(2)
    ]
    parts = iter(sampled)
    model.sample_regions = lambda *_: next(parts)  # type: ignore[method-assign]
    model.predict_regions = lambda *_: (scores, outputs, torch.empty(0))  # type: ignore[method-assign]
    maps = [torch.zeros(1, model.backbone.channels, 10, 12)] * 2
    classified, placed = model.roi_losses(images, maps, [NO_BOXES] * 2).tolist()
    wrong = [-float(row.log_softmax(0)[label]) for row, label in zip(scores, labels.flatten(), strict=True)]
    assert classified == pytest.approx(sum(wrong[:3]) / 3 + wrong[4], rel=1e-5)
    apart = [*(outputs[0, 2] - targets[0]).abs().tolist(), *(outputs[1, 0] - targets[1]).abs().tolist()]
    assert min(apart) < 1 < max(apart)
    assert placed == pytest.approx(sum(d * d / 2 if d < 1 else d - 0.5 for d in apart) / 3, rel=1e-5)


def test_which_regions_are_learned() -> None:
    """An image's objects are among them; a quarter are objects at most, whose boxes the targets lead to."""
    image = training_image(1, objects=2)
    near = image.boxes + torch.tensor([1.0, 0, 2, 1])
    proposals = torch.cat([near, torch.tensor([[30.0, 0, 46, 8]])])
    model = small_detector(regions=12)
    alone = model.sample_regions(image, NO_BOXES)
    assert sorted(alone.regions[alone.used].tolist()) == sorted(image.boxes.tolist())
    found = model.sample_regions(image, proposals)
    assert found.used.tolist() == [True] * 4 + [False] * 8
    assert [label > 0 for label in found.labels.tolist()] == [True] * 3 + [False] * 9
    assert found.regions[3].tolist() == [30, 0, 46, 8]
    for region, label, target, number in zip(
        found.regions[:3], found.labels, found.targets, found.objects, strict=False
    ):
        assert float(box_iou(region[None], image.boxes[number][None])) > 0.5
        assert int(label) == int(image.labels[number]) + 1
        (box,) = decode(target[None, None], region[None])[0].tolist()
        assert box == pytest.approx(image.boxes[number].tolist(), abs=1e-4)


def test_the_best_regions_are_large_enough_and_no_two_are_one() -> None:
    """Overlaps of 10 x 7.5 with 10 x 10 and with 10 x 5: 0.75, so that one goes, and 0.67."""
    anchors = torch.tensor(
        [[0.0, 0, 10, 10], [0, 0, 10, 7.5], [0, 0, 10, 5], [20, 20, 30, 30], [35, 35, 45, 45]]
    )
    scores = [torch.tensor([1.0, 2, 0, 3, 9]), torch.tensor([5.0, 4, 3, 1, 2])]
    given = (scores, [torch.zeros(5, 4)] * 2, [anchors] * 2, [(40, 40), (60, 60)])

    numbers = {tuple(box): number for number, box in enumerate(anchors.tolist())}
    # What the first image's edge leaves of the last one.
    numbers[35, 35, 40, 40] = 4

    def found(before: int = 9, most: int = 9, min_size: float = 5.5) -> list[list[int]]:
        parts = best_regions(*given, before, most, min_size)
        return [[numbers[tuple(box)] for box in part.tolist()] for part in parts]

    # 5 x 5 and 10 x 5 are too small.
    assert found() == [[3, 1], [0, 4, 3]]
    assert found(min_size=5) == [[4, 3, 1, 2], [0, 2, 4, 3]]
    assert found(before=3) == [[3, 1], [0]]
    assert found(most=1) == [[3], [0]]


@pytest.mark.parametrize("stretch", [1, 50, 1_000])
@pytest.mark.parametrize("most", [1, 10, 20, 500])
def test_regions_are_those_of_nms_among_all(most: int, stretch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a stretch of the boxes is enough, where several are, and where so many are not there."""
    monkeypatch.setattr("residual.detection.faster_rcnn.NMS_STRETCH", stretch)
    generator = torch.Generator().manual_seed(0)
    corners = 12 * torch.rand((2, 600, 2), generator=generator)
    anchors = torch.cat([corners, corners + 20 + 10 * torch.rand((2, 600, 2), generator=generator)], dim=2)
    scores = torch.rand((2, 600), generator=generator)
    given = (list(scores), [torch.zeros(600, 4)] * 2, list(anchors), [(80, 80)] * 2)
    for found, boxes, score in zip(best_regions(*given, 600, most), anchors, scores, strict=True):
        kept = nms(boxes, score, RPN_NMS_THRESHOLD)
        # What this is about: some are suppressed, and 500 are not there.
        assert 20 < len(kept) < 500
        torch.testing.assert_close(found, boxes[kept][:most])


def test_more_proposals_than_are_usually_compared_may_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRE_NMS_TOP_N, False, 3)
    model = small_detector(proposals=(60, 20)).eval()
    images = [torch.rand(3, 64, 64)]
    with torch.inference_mode():
        (found,) = model.run_rpn(model.maps(images), [(64, 64)]).proposals
    assert 3 < len(found) <= 20


def test_training_has_proposals_of_its_own() -> None:
    model = small_detector(proposals=(7, 3))
    images = [torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))]
    for training, expected in ((True, 7), (False, 3)):
        model.train(training)
        with torch.no_grad():
            (found,) = model.run_rpn(model.maps(images), [(64, 64)]).proposals
        assert len(found) == expected


def test_a_detector_is_as_its_recipe_has_it() -> None:
    settings = {
        "pooling": "align",
        "roi_size": 6,
        "global_context": True,
        "anchor_sizes": (11.0, 23.0),
        "aspect_ratios": (0.25, 3.0),
        "ignore_cross_boundary_anchors": False,
        "train_proposals": 71,
        "proposals": 13,
        "min_size": 3.5,
        "regions": 19,
        "masks": True,
        "freeze": 1,
    }
    config = Detector(backbone={"name": "cifar_resnet8"}, **settings)  # type: ignore[arg-type]
    backbone = make_backbone(build_model("cifar_resnet8"))
    model = build_detector(config, backbone, 2, Preprocessing(torch.zeros(3)))
    assert model.proposals == {True: 71, False: 13}
    assert (model.regions, model.min_size, model.pooling, model.cells) == (19, 3.5, "align", 6)
    assert model.global_context
    assert not model.ignore_cross_boundary_anchors
    assert model.mask_head is not None
    sides = [(x2 - x1, y2 - y1) for x1, y1, x2, y2 in model.grid_anchors(1, 1).tolist()]
    assert len(sides) == 4
    assert [(high / wide) > 1 for wide, high in sides].count(True) == 2
    learning = {
        name.split(".")[2] for name, p in model.named_parameters() if p.requires_grad and "network" in name
    }
    assert "conv1" not in learning
    assert "layer1" in learning


def test_the_numbers_of_faster_r_cnn() -> None:
    """Read a second time off Faster R-CNN's Section 3.1, Fast R-CNN's 2.3 and their released code."""
    assert (RPN_SAMPLES, RPN_MAX_POSITIVES, RPN_NMS_THRESHOLD, RPN_CHANNELS) == (256, 128, 0.7, 512)
    assert PRE_NMS_TOP_N == {True: 12_000, False: 6_000}
    model = FasterRCNN(eye().backbone, 2, Preprocessing(torch.zeros(3)))
    assert (model.proposals, model.regions, model.min_size) == ({True: 2000, False: 300}, 128, 16)
    sides = [(x2 - x1, y2 - y1) for x1, y1, x2, y2 in model.grid_anchors(1, 1).tolist()]
    assert [round(high / wide, 1) for wide, high in sides] == [0.5] * 3 + [1] * 3 + [2] * 3
    assert [round((wide * high) ** 0.5, -1) for wide, high in sides] == [130, 260, 510] * 3


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
