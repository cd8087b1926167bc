"""From images to detections: one detector or several, refined or not."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from detectors import Scripted, eye, small_detector
from torch import Tensor

from residual.detection import inference
from residual.detection.faster_rcnn import FasterRCNN
from residual.detection.inference import DetectionOptions, detect, input_size
from residual.errors import InputError


def test_an_image_is_seen_the_same_alone_and_among_others() -> None:
    model = small_detector(proposals=(60, 10)).eval()
    images = [
        torch.randint(0, 256, (3, h, w), dtype=torch.uint8, generator=torch.Generator().manual_seed(w))
        for h, w in ((40, 48), (48, 40), (40, 48))
    ]
    how = DetectionOptions(shorter_side=40, longer_side=64, score_threshold=0.2)
    together = detect([model], images, how)
    for image, found in zip(images, together, strict=True):
        (alone,) = detect([model], [image], how)
        assert len(alone) == len(found) > 0
        assert torch.allclose(alone.boxes, found.boxes, atol=1e-3)


def test_the_size_that_the_network_sees() -> None:
    assert input_size(500, 375, 600, 1000, 16) == (800, 600)
    assert input_size(1000, 300, 600, 1000, 16) == (1000, 300)
    with pytest.raises(InputError, match="an image of 10 x 4000 is too long"):
        input_size(10, 4000, 600, 1000, 16)


def test_detections_are_chosen_as_by_the_authors() -> None:
    """A score above 0.05, NMS at 0.3 within a class, 100 of an image at most: Fast R-CNN's released code."""
    how = DetectionOptions()
    assert (how.shorter_side, how.longer_side) == (600, 1000)
    assert (how.score_threshold, how.nms_threshold, how.max_detections) == (0.05, 0.3, 100)
    assert (how.refine, how.scales, how.precision) == (False, (), "float32")


def test_an_ensemble_looks_at_the_union_of_the_proposals() -> None:
    a, b = torch.tensor([[0.0, 0, 8, 8]]), torch.tensor([[8.0, 8, 16, 16], [0, 8, 8, 16]])
    every = torch.cat([a, b])
    probabilities = torch.tensor([[0.1, 0.9, 0.0], [0.2, 0.8, 0.0], [0.3, 0.7, 0.0]])
    members = [Scripted(own, (probabilities, every, every)) for own in (a, b)]
    image = torch.zeros(3, 16, 16, dtype=torch.uint8)
    (found,) = detect(members, [image], DetectionOptions(shorter_side=16, longer_side=16))
    # Each region's box is the region itself.
    assert found.boxes.tolist() == every.tolist()
    assert found.scores.tolist() == pytest.approx([0.9, 0.8, 0.7])


def test_refinement_joins_new_and_old_predictions_before_nms() -> None:
    """The old prediction has the higher score, the new one lies nearby: NMS keeps one, and both vote."""
    region, first, second = (torch.tensor([[0.0, 0, 8, bottom]]) for bottom in (8.0, 10.0, 13.0))
    elsewhere = torch.tensor([[9.0, 9, 16, 16]])
    looks = [
        (torch.tensor([[0.4, 0.6, 0.0]]), torch.stack([first, elsewhere], dim=1), region),
        # The second look is at the first look's box of the likelier class.
        (torch.tensor([[0.7, 0.3, 0.0]]), torch.stack([second, elsewhere], dim=1), first),
    ]
    image = torch.zeros(3, 16, 16, dtype=torch.uint8)
    how = DetectionOptions(shorter_side=16, longer_side=16, refine=True)
    (found,) = detect([Scripted(region, *looks)], [image], how)
    assert found.scores.tolist() == pytest.approx([0.6])
    # (0.6 * 10 + 0.3 * 13) / 0.9 = 11
    assert found.boxes.tolist() == [pytest.approx([0, 0, 8, 11])]
    # Who votes does not hang on the least score of what is asked for.
    (sure,) = detect([Scripted(region, *looks)], [image], replace(how, score_threshold=0.5))
    assert sure.boxes.equal(found.boxes)
    weak = torch.tensor([[0.0, 0, 8, 14]])
    doubtful = torch.tensor([[0.96, 0.04, 0.0]])
    script = [
        tuple(torch.cat(pair) for pair in zip(look, (doubtful, both, weak), strict=True))
        for look, both in zip(looks, [torch.stack([weak, weak], dim=1)] * 2, strict=True)
    ]
    for threshold in (0.05, 0.01):
        asked = replace(how, score_threshold=threshold)
        (more,) = detect([Scripted(torch.cat([region, weak]), *script)], [image], asked)
        assert more.boxes[0].equal(found.boxes[0]), threshold
    (nothing,) = detect([Scripted(region, *looks)], [image], replace(how, score_threshold=0.65))
    assert len(nothing) == 0
    (plain,) = detect([Scripted(region, looks[0])], [image], replace(how, refine=False))
    assert plain.boxes.tolist() == [pytest.approx([0, 0, 8, 10])]


@pytest.mark.parametrize("scales", [(), (20,)])
@pytest.mark.parametrize("refine", [False, True])
def test_boxes_are_of_the_image_in_whatever_size_it_is_seen(
    refine: bool, scales: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """120 x 61 pixels become 39 x 20: not by one factor across and down."""
    pooled: list[Tensor] = []
    original = FasterRCNN.pool

    def pool(self: FasterRCNN, maps: list[Tensor], boxes: Tensor) -> list[Tensor]:
        pooled.append(boxes)
        return original(self, maps, boxes)

    monkeypatch.setattr(FasterRCNN, "pool", pool)
    proposed, region = torch.tensor([[0.0, 0, 13, 10]]), torch.tensor([[0.0, 0, 40, 30.5]])
    first, second = torch.tensor([[10.0, 5, 50, 40]]), torch.tensor([[12.0, 5, 50, 40]])
    sure, surer = torch.tensor([[0.4, 0.6, 0.0]]), torch.tensor([[0.1, 0.9, 0.0]])
    detector = Scripted(proposed, (sure, first, region), (surer, second, first))
    how = DetectionOptions(shorter_side=20, longer_side=40, refine=refine, scales=scales)
    (found,) = detect([detector], [torch.zeros(3, 61, 120, dtype=torch.uint8)], how)
    seen = [[0, 0, 13, 10], [10 * 39 / 120, 5 * 20 / 61, 50 * 39 / 120, 40 * 20 / 61]]
    assert torch.cat(pooled).tolist() == [pytest.approx(box) for box in seen[: 1 + refine]]
    # Both vote, (0.6 * 10 + 0.9 * 12) / 1.5, in both classes.
    left = 11.2 if refine else 10
    assert found.boxes[found.labels == 0].tolist() == [pytest.approx([left, 5, 50, 40])]


def test_the_second_look_is_at_the_first_looks_box_of_the_likelier_class() -> None:
    region, first, elsewhere = torch.tensor([[[0.0, 0, 8, 8]], [[8.0, 8, 16, 16]], [[0.0, 8, 8, 16]]])
    sure, unsure = torch.tensor([[0.0, 1.0, 0.0]]), torch.tensor([[0.0, 0.96, 0.04]])
    looks = [(unsure, torch.stack([first, elsewhere], dim=1), region), (sure, region, region)]
    image = torch.zeros(3, 16, 16, dtype=torch.uint8)
    how = DetectionOptions(shorter_side=16, longer_side=16, refine=True)
    (found,) = detect([Scripted(region, *looks)], [image], how)
    # The second look leaves its region as it is, which is where it shows what that was.
    assert found.boxes.tolist() == [pytest.approx([8, 8, 16, 16])]


def test_scales_and_ensembles_of_one_change_nothing() -> None:
    image = torch.randint(0, 256, (3, 40, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    how = DetectionOptions(shorter_side=32, longer_side=64, score_threshold=0.3)
    detector = eye(proposals=(50, 20), min_size=2.0)
    (alone,) = detect([detector], [image], how)
    (twice,) = detect([detector, detector], [image], how)
    (scaled,) = detect(
        [detector],
        [image],
        DetectionOptions(shorter_side=32, longer_side=64, score_threshold=0.3, scales=(32,)),
    )
    assert len(alone) > 0
    for other in (twice, scaled):
        assert torch.allclose(alone.boxes, other.boxes, atol=1e-4)
        assert torch.allclose(alone.scores, other.scores, atol=1e-5)


def test_boxes_that_clipping_leaves_without_area_are_no_detections() -> None:
    regions = torch.tensor([[0.0, 0, 4, 10], [2.0, 2, 8, 8]])
    boxes = torch.tensor([[-9.0, 0, -5, 10], [2.0, 2, 8, 8]])
    look = (torch.tensor([[0.1, 0.9, 0.0], [0.2, 0.8, 0.0]]), boxes, regions)
    again = (look[0], regions, regions)
    image = torch.zeros(3, 20, 20, dtype=torch.uint8)
    for refine in (False, True):
        how = DetectionOptions(shorter_side=20, longer_side=20, refine=refine)
        (found,) = detect([Scripted(regions, look, again)], [image], how)
        assert found.boxes.tolist() == [pytest.approx([2, 2, 8, 8])]


@pytest.mark.parametrize(("refine", "scales", "times"), [(False, (), 1), (True, (), 1), (True, (32, 40), 0)])
def test_what_regions_are_pooled_from_is_computed_once(
    refine: bool, scales: tuple[int, ...], times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often regions are pooled; with several scales it is the maps themselves."""
    model = small_detector(pooling="align", global_context=True).eval()
    calls: list[torch.Size] = []
    original = FasterRCNN.region_maps

    def counted(self: FasterRCNN, map: torch.Tensor) -> list[torch.Tensor]:
        calls.append(map.shape)
        return original(self, map)

    monkeypatch.setattr(FasterRCNN, "region_maps", counted)
    image = torch.randint(0, 256, (3, 40, 48), dtype=torch.uint8)
    detect([model], [image], DetectionOptions(40, 64, refine=refine, scales=scales))
    assert len(calls) == times


def test_a_long_image_has_its_shape_at_every_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its longer side has a limit at the usual scale, where regions are proposed; it grows with others."""
    sizes: list[tuple[int, ...]] = []
    pooled: list[list[tuple[int, ...]]] = []
    original, pool = FasterRCNN.maps, inference.pool_maxout

    def maps(self: FasterRCNN, images: Sequence[Tensor]) -> list[Tensor]:
        sizes.extend(tuple(image.shape[1:]) for image in images)
        return original(self, images)

    def pool_maxout(detector: FasterRCNN, maps: Sequence[Tensor], *more: Any) -> Tensor:
        pooled.append([tuple(map.shape[2:]) for map in maps])
        return pool(detector, maps, *more)

    monkeypatch.setattr(FasterRCNN, "maps", maps)
    monkeypatch.setattr(inference, "pool_maxout", pool_maxout)
    how = DetectionOptions(shorter_side=20, longer_side=40, scales=(10, 40))
    detect([eye(min_size=2.0)], [torch.zeros(3, 30, 120, dtype=torch.uint8)], how)
    assert sizes == [(5, 20), (10, 40), (20, 80)]
    # Regions are pooled at the scales that are asked for.
    assert pooled == [[(5, 20), (20, 80)]]


def test_an_image_too_long_for_every_scale_is_seen_at_the_usual_one() -> None:
    model = small_detector(proposals=(60, 10)).eval()
    image = torch.randint(256, (3, 8, 320), dtype=torch.uint8)
    usual = DetectionOptions(shorter_side=48, longer_side=80, score_threshold=0.0)
    several = replace(usual, scales=(12, 24))
    (found,), (expected,) = detect([model], [image], several), detect([model], [image], usual)
    assert torch.equal(found.boxes, expected.boxes)
