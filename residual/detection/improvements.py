"""The appendix's improvements at test time, each by itself: refinement, voting, scales, ensembles.

(Global context is a part of the network: ``FasterRCNN(global_context=True)``.)
Shapes: R regions, K classes; class 0 of the R x (K+1) scores is the background.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import box_iou

from ..device import sums_dtype
from .average_precision import Detections
from .faster_rcnn import FasterRCNN

#: A kept box becomes the mean of the boxes of its class that overlap it by at least so much.
VOTES = 0.5
#: Shorter sides at which the maps are computed, and the side that a region is to have in pixels.
SCALES = (200, 400, 600, 800, 1000)
REGION_SIDE = 224


def most_likely_boxes(scores: Tensor, boxes: Tensor) -> Tensor:
    """Return each region's box for the class that it most likely shows, background aside: (R, 4).

    "Pool again from the regressed box": the head gives a box for each class, and 300 regions are to
    give 300 new ones.

    Args:
        scores: (R, K+1), probabilities.
        boxes: (R, K, 4).
    """
    best = scores[:, 1:].argmax(dim=1)
    return boxes[torch.arange(len(boxes), device=boxes.device), best]


def vote(kept: Detections, candidates: Detections) -> Detections:
    """Return the kept detections, each box the score-weighted mean of the candidates of its class around it.

    A box around which there is no candidate stays as it is.

    Args:
        candidates: those that NMS chose ``kept`` from, but for what is too unsure to move a box.
    """
    if not len(kept):
        return kept
    overlaps = box_iou(kept.boxes, candidates.boxes) >= VOTES
    votes = overlaps & (kept.labels[:, None] == candidates.labels)
    # As exact as can be: a GPU may shorten float32 factors, and coordinates go up to thousands.
    dtype = sums_dtype(kept.boxes.device)
    weights = votes * candidates.scores.to(dtype)
    total = weights.sum(dim=1, keepdim=True)
    mean = (weights @ candidates.boxes.to(dtype) / total).to(kept.boxes.dtype)
    return Detections(torch.where(total > 0, mean, kept.boxes), kept.scores, kept.labels)


def adjacent_scales(boxes: Tensor, factors: Sequence[float]) -> Tensor:
    """Return for each box the position of the lower of its two adjacent scales, int64 (R,).

    Those two whose sides of the box, square roots of its area, together are nearest to 224 pixels.

    Args:
        boxes: in the image's pixels, (R, 4).
        factors: pixels at each scale for one of the image, rising; two or more.
    """
    sides = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1).clamp(min=0).sqrt()
    far = (sides[:, None] * torch.tensor(factors, device=boxes.device) - REGION_SIDE).abs()
    return (far[:, :-1] + far[:, 1:]).argmin(dim=1)


def pool_maxout(
    detector: FasterRCNN, maps: Sequence[Tensor], scales: Sequence[Tensor], boxes: Tensor
) -> Tensor:
    """Return regions' cells pooled from the maps of two adjacent scales, the larger value of each pair.

    Args:
        maps: of one image at rising scales, two or more, each (1, C, h, w).
        scales: from the image's pixels to each map's input, (4,): x, y, x, y.
        boxes: in the image's pixels, (R, 4).

    Returns:
        (R, C, cells, cells).
    """
    lower = adjacent_scales(boxes, [float(scale[:2].mean()) for scale in scales])
    shape = len(boxes), maps[0].shape[1], detector.cells, detector.cells
    # Channels-last, as the regions are from which it is filled.
    pooled = maps[0].new_empty(shape).contiguous(memory_format=torch.channels_last).fill_(-torch.inf)
    for number, (map, scale) in enumerate(zip(maps, scales, strict=True)):
        rows = ((lower == number) | (lower == number - 1)).nonzero()[:, 0]
        if len(rows):
            pooled[rows] = torch.maximum(pooled[rows], detector.pool_cells(map, boxes[rows] * scale))
    return pooled


def mean_outputs(members: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Return the mean of detectors' probabilities (R, K+1) and boxes (R, K, 4) for the same regions."""
    scores, boxes = zip(*members, strict=True)
    return torch.stack(scores).mean(dim=0), torch.stack(boxes).mean(dim=0)
