"""What anchors and regions are to learn: which are positive, which negative, and which are sampled.

All of it has shapes that the host knows, so on a GPU nothing waits for an answer. Sampling is by random
numbers that the caller draws: a pure function of the image and the iteration, on any device and any rank.

Shapes: M objects of an image, B boxes (anchors or proposals) to be matched.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_iou

#: Faster R-CNN, Section 3.1.2: an anchor is an object from an overlap of 0.7 on, or when none overlaps an
#: object more; background below 0.3; else neither.
RPN_POSITIVE_IOU, RPN_NEGATIVE_IOU = 0.7, 0.3
#: Fast R-CNN, Section 2.3: a region is an object from an overlap of 0.5 on. All others are background, as in
#: [32]'s longer version for COCO; in Fast R-CNN those from 0.1 on are.
ROI_POSITIVE_IOU = 0.5
#: A box of which so much lies in a crowd is no background.
CROWD_OVERLAP = 0.7


def match_anchors(
    anchors: Tensor,
    boxes: Tensor,
    crowds: Tensor,
    size: tuple[int, int] | None,
    positive_iou: float = RPN_POSITIVE_IOU,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return which anchors are positive, bool (B,), which negative, bool (B,), and their objects, int64 (B,).

    Args:
        anchors: (B, 4).
        boxes, crowds: (M, 4) and (C, 4).
        size: width and height of the network's input; anchors that reach over its edge are neither, as
            Faster R-CNN has it. None: they count like others.
        positive_iou: from what overlap with an object on an anchor is positive; the nearest one always is.
    """
    if size is None:
        usable = torch.ones(len(anchors), dtype=torch.bool, device=anchors.device)
    else:
        usable = (anchors[:, :2] >= 0).all(1) & (anchors[:, 2] <= size[0]) & (anchors[:, 3] <= size[1])
    negative = usable & ~_crowded(anchors, crowds)
    if not len(boxes):
        return (
            torch.zeros_like(usable),
            negative,
            torch.zeros(len(anchors), dtype=torch.int64).to(boxes.device),
        )
    iou = box_iou(boxes, anchors) * usable
    best, matched = iou.max(dim=0)
    most = iou.max(dim=1, keepdim=True).values
    nearest = ((iou == most) & (most > 0)).any(dim=0)
    positive = usable & ((best >= positive_iou) | nearest)
    return positive, negative & (best < RPN_NEGATIVE_IOU) & ~positive, matched


def match_regions(regions: Tensor, boxes: Tensor, crowds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As ``match_anchors``, for the proposals of an image."""
    negative = ~_crowded(regions, crowds)
    if not len(boxes):
        none = torch.zeros_like(negative)
        return none, negative, none.long()
    best, matched = box_iou(boxes, regions).max(dim=0)
    positive = best >= ROI_POSITIVE_IOU
    return positive, negative & ~positive, matched


def sample(
    positive: Tensor, negative: Tensor, random: Tensor, count: int, most: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Choose ``count`` boxes, at most ``most`` of them positive, the others negative.

    Args:
        positive, negative: bool (B,).
        random: (B,), in [0, 1): the boxes with the highest numbers are chosen.

    Returns:
        Positions, int64 (count,); which of them are positive, bool (count,); which are chosen at all, bool
        (count,): there may be fewer boxes than asked for.
    """
    first = _highest(random.masked_fill(~positive, -1), most, count)
    second = _highest(random.masked_fill(~negative, -1), count, count)
    slots = torch.arange(count, device=random.device)
    picked = positive.sum().clamp(max=most)
    filled = negative.sum().clamp(max=count - picked)
    chosen = torch.where(slots < picked, first, second[(slots - picked).clamp(min=0)])
    return chosen, slots < picked, slots < picked + filled


def smooth_l1(values: Tensor, targets: Tensor, chosen: Tensor, beta: float) -> Tensor:
    """Return the sum over the chosen rows of (S, 4): quadratic below ``beta``, then linear."""
    losses = F.smooth_l1_loss(values, targets, beta=beta, reduction="none").sum(dim=1)
    return torch.where(chosen, losses, 0).sum()


def _highest(keys: Tensor, count: int, length: int) -> Tensor:
    """Return the positions of the ``count`` highest keys, padded with zeros to ``length``."""
    positions = keys.topk(min(count, len(keys))).indices
    return F.pad(positions, (0, length - len(positions)))


def parts_inside(boxes: Tensor, crowds: Tensor) -> Tensor:
    """Return which part of each box's area lies in each of C crowds, in [0, 1]: (B, C)."""
    corners = (
        torch.maximum(boxes[:, None, :2], crowds[:, :2]),
        torch.minimum(boxes[:, None, 2:], crowds[:, 2:]),
    )
    inside = (corners[1] - corners[0]).clamp(min=0).prod(dim=2)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    return inside / area.clamp(min=1e-6)[:, None]


def _crowded(boxes: Tensor, crowds: Tensor) -> Tensor:
    """Return which boxes lie in a crowd to the most part, bool (B,)."""
    if not len(crowds):
        return torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    return parts_inside(boxes, crowds).max(dim=1).values >= CROWD_OVERLAP
