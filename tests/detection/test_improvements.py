"""The appendix's improvements, each on a case small enough to be computed by hand."""

import pytest
import torch
from detectors import eye

from residual.detection.average_precision import Detections
from residual.detection.improvements import (
    adjacent_scales,
    mean_outputs,
    most_likely_boxes,
    pool_maxout,
    vote,
)


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
    # Where nobody votes, a box stays.
    assert vote(kept, half).boxes.tolist() == [pytest.approx([0, 0, 10, 5])]
    far = Detections(half.boxes + 50, half.scores, half.labels)
    assert vote(kept, far).boxes.tolist() == kept.boxes.tolist()


def test_which_two_scales() -> None:
    """Factors 0.5, 1, 2 and 4 make a side of 100 into 50, 100, 200 and 400 pixels; wanted are 224."""
    boxes = torch.tensor([[0.0, 0, 100, 100], [0, 0, 1000, 1000], [0, 0, 30, 30], [0, 0, 50, 200]])
    # 100: |100-224| + |200-224| = 148 is less than |200-224| + |400-224| = 200. A box of 50 x 200 has the
    # area of one of 100 x 100.
    assert adjacent_scales(boxes, [0.5, 1, 2, 4]).tolist() == [1, 0, 2, 1]


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
