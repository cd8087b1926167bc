"""The appendix's improvements, each on a case small enough to be computed by hand."""

import pytest
import torch
from torch import Tensor, nn

from residual.detection import testing
from residual.detection.backbones import Backbone
from residual.detection.faster_rcnn import FasterRCNN
from residual.detection.improvements import (
    adjacent_scales,
    mean_outputs,
    most_likely_boxes,
    pool_maxout,
    vote,
)
from residual.detection.precision import Detections
from residual.detection.testing import Options, detect
from residual.models.preprocessing import Preprocessing


def test_the_second_look_is_at_the_box_of_the_likeliest_class() -> None:
    # The background does not count: the second region's likeliest class is the first one.
    scores = torch.tensor([[0.1, 0.3, 0.6], [0.8, 0.15, 0.05]])
    boxes = torch.arange(16.0).reshape(2, 2, 4)
    assert most_likely_boxes(scores, boxes).tolist() == [[4, 5, 6, 7], [8, 9, 10, 11]]


def test_voting_by_hand() -> None:
    """Two of a class around the kept box, one far away, and one of another class right on it."""
    candidates = Detections(
        torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 8], [30, 30, 40, 40], [0, 0, 10, 10]]),
        torch.tensor([0.6, 0.2, 0.9, 0.9]),
        torch.tensor([0, 0, 0, 1]),
    )
    kept = Detections(candidates.boxes[:1], candidates.scores[:1], candidates.labels[:1])
    voted = vote(kept, candidates)
    # Only the bottom differs: (0.6 * 10 + 0.2 * 8) / 0.8 = 9.5.
    assert voted.boxes.tolist() == [pytest.approx([0, 0, 10, 9.5])]
    assert voted.scores.tolist() == kept.scores.tolist()
    # An overlap of a half still counts: 10 x 5 of 10 x 10.
    half = Detections(torch.tensor([[0.0, 0, 10, 5]]), torch.tensor([0.6]), torch.tensor([0]))
    both = Detections(torch.cat([kept.boxes, half.boxes]), torch.tensor([0.6, 0.6]), torch.tensor([0, 0]))
    assert vote(kept, both).boxes.tolist() == [pytest.approx([0, 0, 10, 7.5])]
    nothing = Detections(torch.empty(0, 4), torch.empty(0), torch.empty(0, dtype=torch.int64))
    assert len(vote(nothing, nothing)) == 0


def test_which_two_scales() -> None:
    """Factors 0.5, 1, 2 and 4 make a side of 100 into 50, 100, 200 and 400 pixels; wanted are 224."""
    boxes = torch.tensor([[0.0, 0, 100, 100], [0, 0, 1000, 1000], [0, 0, 30, 30], [0, 0, 50, 200]])
    # 100: |100-224| + |200-224| = 148 is less than |200-224| + |400-224| = 200. A box of 50 x 200 has the
    # area of one of 100 x 100.
    assert adjacent_scales(boxes, [0.5, 1, 2, 4]).tolist() == [1, 0, 2, 1]


class Eye(Backbone):
    """A backbone whose map is its input at stride 1, and whose description of a region is its mean."""

    channels, stride, side, width = 3, 1, 2, 3

    def __init__(self) -> None:
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(()))

    def stages(self) -> list[list[nn.Module]]:
        return []

    def shared(self, x: Tensor) -> Tensor:
        return x

    def describe(self, regions: Tensor) -> Tensor:
        return regions.mean(dim=(2, 3))


def eye(**options: object) -> FasterRCNN:
    torch.manual_seed(0)
    detector = FasterRCNN(Eye(), 2, Preprocessing(torch.zeros(3)), anchor_sides=(8,), **options)  # type: ignore[arg-type]
    return detector.eval()


def test_maxout_takes_the_larger_of_two_scales() -> None:
    """Maps of the values 3, 5 and 4 (9 in its lower half) at factors 0.5, 1 and 2."""
    maps = [torch.full((1, 3, side, side), value) for side, value in ((50, 3.0), (100, 5.0), (200, 4.0))]
    maps[2][:, :, 100:] = 9.0
    scales = [torch.full((4,), factor) for factor in (0.5, 1.0, 2.0)]
    boxes = torch.tensor([[0.0, 0, 100, 90], [0, 60, 90, 90]])
    # Sides of 95 and 52 both want the higher pair, whose larger value is 9 below and 5 above.
    pooled = pool_maxout(eye(), maps, scales, boxes)
    assert pooled.shape == (2, 3, 2, 2)
    assert pooled[0, 0].tolist() == [[5, 5], [9, 9]]
    assert pooled[1, 0].tolist() == [[9, 9], [9, 9]]
    # A side of 400 wants the lower pair, so the third map's 9 is not seen.
    large_maps = [map.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3) for map in maps]
    large = pool_maxout(eye(), large_maps, scales, torch.tensor([[0.0, 0, 400, 400]]))
    assert large[0, 0].tolist() == [[5, 5], [5, 5]]


def test_an_ensemble_averages_probabilities_and_boxes() -> None:
    first = torch.tensor([[0.2, 0.8]]), torch.tensor([[[0.0, 0, 10, 10]]])
    second = torch.tensor([[0.6, 0.4]]), torch.tensor([[[2.0, 2, 14, 10]]])
    scores, boxes = mean_outputs([first, second])
    assert scores.tolist() == [pytest.approx([0.4, 0.6])]
    assert boxes.tolist() == [[[1, 1, 12, 10]]]


def test_an_ensemble_looks_at_the_union_of_the_proposals(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = eye(), eye()
    a, b = torch.tensor([[0.0, 0, 8, 8]]), torch.tensor([[8.0, 8, 16, 16], [0, 8, 8, 16]])
    monkeypatch.setattr(first, "propose", lambda *_: [a])
    monkeypatch.setattr(second, "propose", lambda *_: [b])
    looked: list[Tensor] = []
    original = testing._outputs

    def spy(members: object, views: object, regions: list[Tensor], sizes: object) -> object:
        looked.extend(regions)
        return original(members, views, regions, sizes)  # type: ignore[arg-type]

    monkeypatch.setattr(testing, "_outputs", spy)
    image = torch.zeros(3, 16, 16, dtype=torch.uint8)
    detect([first, second], [image], Options(shorter=16, longer=16))
    assert torch.equal(looked[0], torch.cat([a, b]))


def test_refinement_joins_new_and_old_predictions_before_nms(monkeypatch: pytest.MonkeyPatch) -> None:
    """The old prediction has the higher score, the new one lies nearby: NMS keeps one, and both vote."""
    detector = eye()
    region = torch.tensor([[0.0, 0, 8, 8]])
    monkeypatch.setattr(detector, "propose", lambda *_: [region])
    looks: list[Tensor] = []

    def outputs(
        _: object, __: object, regions: list[Tensor], ___: object
    ) -> tuple[list[Tensor], list[Tensor]]:
        looks.append(regions[0])
        score = [0.4, 0.6, 0.0] if len(looks) == 1 else [0.7, 0.3, 0.0]
        box = [[0.0, 0, 8, 10], [9.0, 9, 9, 9]] if len(looks) == 1 else [[0.0, 0, 8, 13], [9.0, 9, 9, 9]]
        return [torch.tensor([score])], [torch.tensor([box])]

    monkeypatch.setattr(testing, "_outputs", outputs)
    image = torch.zeros(3, 16, 16, dtype=torch.uint8)
    (found,) = detect([detector], [image], Options(shorter=16, longer=16, refine=True))
    # The second look is at the first look's box of the likelier class.
    assert [look.tolist() for look in looks] == [[[0, 0, 8, 8]], [[0, 0, 8, 10]]]
    assert found.scores.tolist() == pytest.approx([0.6])
    # (0.6 * 10 + 0.3 * 13) / 0.9 = 11
    assert found.boxes.tolist() == [pytest.approx([0, 0, 8, 11])]
    looks.clear()
    (plain,) = detect([detector], [image], Options(shorter=16, longer=16))
    assert plain.boxes.tolist() == [[0, 0, 8, 10]]


def test_global_context_joins_the_whole_picture_to_each_region() -> None:
    """With the eye, a region's description is its mean, then the mean of the whole picture."""
    detector = eye(global_context=True)
    seen: list[Tensor] = []
    detector.predict = lambda described: seen.append(described) or (torch.zeros(3, 3), torch.zeros(3, 2, 4))  # type: ignore
    maps = [torch.full((1, 3, 8, 8), 2.0), torch.full((1, 3, 8, 8), 7.0)]
    maps[0][:, :, :4] = 4.0
    boxes = [torch.tensor([[0.0, 0, 7, 3], [0, 4, 7, 7]]), torch.tensor([[0.0, 0, 7, 7]])]
    pooled = [detector.pool(map, box) for map, box in zip(maps, boxes, strict=True)]
    detector.assess(pooled, [detector.whole(map, (8, 8)) for map in maps])
    # The whole of the first picture is 4 above and 2 below; each half has its own largest value.
    assert seen[0][:, 0].tolist() == [4, 2, 7]
    assert seen[0][:2, 3].tolist() == [3, 3]
    assert seen[0][2, 3] == 7


def test_scales_and_ensembles_of_one_change_nothing() -> None:
    image = torch.randint(0, 256, (3, 40, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    how = Options(shorter=32, longer=64, score=0.3)
    detector = eye(proposals=(50, 20), smallest=2.0)
    (alone,) = detect([detector], [image], how)
    (twice,) = detect([detector, detector], [image], how)
    (scaled,) = detect([detector], [image], Options(shorter=32, longer=64, score=0.3, scales=(32,)))
    assert len(alone) > 0
    for other in (twice, scaled):
        assert torch.allclose(alone.boxes, other.boxes, atol=1e-4)
        assert torch.allclose(alone.scores, other.scores, atol=1e-5)


def test_boxes_that_clipping_leaves_without_area_are_no_detections() -> None:
    scores = torch.tensor([[0.1, 0.9], [0.2, 0.8]])
    boxes = torch.tensor([[[-9.0, 0, -5, 10]], [[2.0, 2, 8, 8]]])
    for refine in (False, True):
        (found,) = testing._choose([scores], [boxes], [(20, 20)], Options(refine=refine))
        assert found.boxes.tolist() == [[2, 2, 8, 8]]
