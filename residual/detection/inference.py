"""From images and one or several detectors to detections, with the appendix's improvements as switches.

Boxes are in the pixels of the images as they are given, from the proposals on: members of an ensemble and
scales then need no translation.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import batched_nms, clip_boxes_to_image

from ..data.images import resize
from ..device import full_float32, send
from ..errors import InputError
from .average_precision import Detections
from .faster_rcnn import FasterRCNN, decode
from .improvements import mean_outputs, most_likely_boxes, pool_maxout, vote
from .masks import paste


@dataclass(frozen=True)
class DetectionOptions:
    """How a detector is used.

    Attributes:
        shorter_side, longer_side: what the image's shorter side becomes, and its longer one at most.
        score_threshold: least score of a detection (the box score threshold).
        nms_threshold: of two detections of a class that overlap more, the one with the lower score goes.
        max_detections: of an image.
        refine: box refinement and voting.
        scales: shorter sides for multi-scale testing; empty for none.
        precision: "bfloat16" autocasts convolutions and products.
        sides: the shorter and the longer side of each of several members; empty where all have the above.
    """

    shorter_side: int = 600
    longer_side: int = 1000
    score_threshold: float = 0.05
    nms_threshold: float = 0.3
    max_detections: int = 100
    refine: bool = False
    scales: tuple[int, ...] = ()
    precision: str = "float32"
    sides: tuple[tuple[int, int], ...] = ()

    def of_members(self, count: int) -> "list[DetectionOptions]":
        """Return how each of so many members is used: a detector sees images as it was trained to."""
        sides = self.sides or ((self.shorter_side, self.longer_side),) * count
        return [replace(self, shorter_side=shorter, longer_side=longer) for shorter, longer in sides]


class _View:
    """An image as one member sees it.

    Args:
        maps: of the image at rising scales.
        scales: from the image's pixels to each map's input, (4,).
    """

    def __init__(self, member: FasterRCNN, maps: list[Tensor], scales: list[Tensor]) -> None:
        self.member = member
        self.maps = maps
        self.scales = scales
        #: Of a single map; computed once, however often regions are pooled.
        self.region_maps = member.region_maps(maps[0]) if len(maps) == 1 else []

    def pool(self, boxes: Tensor) -> list[Tensor]:
        """Return what the member's head takes of regions (R, 4)."""
        if len(self.maps) == 1:
            return self.member.pool(self.region_maps, boxes * self.scales[0])
        return self.member.enter(pool_maxout(self.member, self.maps, self.scales, boxes))


def input_size(width: int, height: int, shorter: int, longer: int, stride: int) -> tuple[int, int]:
    """Return the width and height that an image has in the network.

    Raises:
        InputError: for an image so long that nothing is left of its shorter side.
    """
    factor = min(shorter / min(width, height), longer / max(width, height))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    if min(size) < stride:
        raise InputError(
            f"an image of {width} x {height} is too long: with {longer} pixels on its longer side, "
            f"{min(size)} are left on the other, and the network needs {stride}; cut it into parts"
        )
    return size


@torch.inference_mode()
def detect(
    members: Sequence[FasterRCNN], images: Sequence[Tensor], how: DetectionOptions
) -> list[Detections]:
    """Return what one detector, or several together, find on each image.

    Args:
        members: of the same classes, in evaluation mode, on one device; all with masks, or none.
        images: uint8 (3, H, W), of any sizes.

    Raises:
        InputError: for an image that is too long.
    """
    device = members[0].cls_score.weight.device
    images = [send(image, device) for image in images]
    sizes = [(int(image.shape[1]), int(image.shape[2])) for image in images]
    autocast = torch.autocast(device.type, torch.bfloat16, how.precision == "bfloat16")
    with full_float32(device), autocast:
        each = zip(members, how.of_members(len(members)), strict=True)
        views, offers = zip(*(_look(member, images, own) for member, own in each), strict=True)
        regions = [torch.cat(parts) for parts in zip(*offers, strict=True)]
        scores, boxes = _outputs(members, views, regions, sizes)
        if how.refine:
            again = [
                clip_boxes_to_image(most_likely_boxes(s, b), size)
                for s, b, size in zip(scores, boxes, sizes, strict=True)
            ]
            new_scores, new_boxes = _outputs(members, views, again, sizes)
            scores = [torch.cat(pair) for pair in zip(scores, new_scores, strict=True)]
            boxes = [torch.cat(pair) for pair in zip(boxes, new_boxes, strict=True)]
    found = _choose(scores, boxes, sizes, how)
    if members[0].mask_head is None:
        return found
    with full_float32(device), autocast:
        return _with_masks(members, views, found, sizes)


def _look(
    member: FasterRCNN, images: Sequence[Tensor], how: DetectionOptions
) -> tuple[list[_View], list[Tensor]]:
    """Return a member's maps of each image, and its proposals."""
    scales = sorted({how.shorter_side, *how.scales}) if how.scales else [how.shorter_side]
    maps: list[list[Tensor]] = [[] for _ in images]
    factors: list[list[Tensor]] = [[] for _ in images]
    proposals: list[Tensor] = []
    usual: list[tuple[Tensor, Tensor]] = []
    for shorter in scales:
        longer = round(how.longer_side * shorter / how.shorter_side)
        # A long image is left with nothing at a small scale, which is then not one of its scales.
        fits = [shorter == how.shorter_side or _fits(image, shorter, longer, member) for image in images]
        numbers = [number for number, fit in enumerate(fits) if fit]
        inputs = [_resized(images[number], shorter, longer, member) for number in numbers]
        here = member.maps(inputs)
        scaled = [_scale(x, images[number]) for x, number in zip(inputs, numbers, strict=True)]
        if shorter == how.shorter_side:
            found = member.run_rpn(here, [(int(x.shape[1]), int(x.shape[2])) for x in inputs]).proposals
            proposals = [boxes / scale for boxes, scale in zip(found, scaled, strict=True)]
            usual = list(zip(here, scaled, strict=True))
        if not how.scales or shorter in how.scales:
            for number, map_, scale in zip(numbers, here, scaled, strict=True):
                maps[number].append(map_)
                factors[number].append(scale)
    for number, (map_, scale) in enumerate(usual):
        if not maps[number]:  # too long for each of the scales that are asked for
            maps[number], factors[number] = [map_], [scale]
    return [_View(member, m, f) for m, f in zip(maps, factors, strict=True)], proposals


def _outputs(
    members: Sequence[FasterRCNN],
    views: Sequence[Sequence[_View]],
    regions: Sequence[Tensor],
    sizes: Sequence[tuple[int, int]],
) -> tuple[list[Tensor], list[Tensor]]:
    """Return each image's probabilities (R, K+1) and boxes (R, K, 4) of its regions (R, 4)."""
    every = torch.cat(list(regions))
    outputs = []
    for member, seen in zip(members, views, strict=True):
        pooled = [view.pool(boxes) for view, boxes in zip(seen, regions, strict=True)]
        contexts = None
        if member.global_context:
            whole = [send(torch.tensor([[0.0, 0.0, width, height]]), every.device) for height, width in sizes]
            contexts = [view.pool(box) for view, box in zip(seen, whole, strict=True)]
        logits, deltas, _ = member.predict_regions(pooled, contexts)
        outputs.append((logits.softmax(dim=1), decode(deltas, every)))
    scores, boxes = mean_outputs(outputs)
    counts = [len(part) for part in regions]
    return list(scores.split(counts)), list(boxes.split(counts))


def _choose(
    scores: Sequence[Tensor], boxes: Sequence[Tensor], sizes: Sequence[tuple[int, int]], how: DetectionOptions
) -> list[Detections]:
    """Return what is left after the least score, NMS within each class, and voting."""
    results = []
    # Who votes does not hang on which detections are asked for: a box would move with that.
    least = min(how.score_threshold, DetectionOptions.score_threshold) if how.refine else how.score_threshold
    for score, box, size in zip(scores, boxes, sizes, strict=True):
        region, label = (score[:, 1:] > least).nonzero().unbind(dim=1)
        values = score[region, label + 1]
        places = clip_boxes_to_image(box[region, label], size)
        # A box that was outside the image has no area left, and overlaps nothing, not even itself.
        there = (places[:, 2:] > places[:, :2]).all(dim=1)
        places, values, label = places[there], values[there], label[there]
        every = Detections(places, values, label)
        kept = batched_nms(places, values, label, how.nms_threshold)[: how.max_detections]
        chosen = Detections(places[kept], values[kept], label[kept])
        if how.refine:
            voters = every[every.scores > DetectionOptions.score_threshold]
            chosen = vote(chosen[chosen.scores > how.score_threshold], voters)
        results.append(chosen)
    return results


def _with_masks(
    members: Sequence[FasterRCNN],
    views: Sequence[Sequence[_View]],
    found: Sequence[Detections],
    sizes: Sequence[tuple[int, int]],
) -> list[Detections]:
    """Return each image's detections with their masks: the mean of the members' probabilities."""
    labels = torch.cat([each.labels for each in found])
    if not len(labels):
        return list(found)
    squares: list[Tensor] = []
    for member, seen in zip(members, views, strict=True):
        pooled = [view.pool(each.boxes) for view, each in zip(seen, found, strict=True) if len(each)]
        logits = member.predict_masks(pooled)
        squares.append(logits[torch.arange(len(labels), device=labels.device), labels].sigmoid())
    # Members may pool regions to different sides: the largest counts, whoever is named first.
    side = max(square.shape[-1] for square in squares)
    squares = [
        square
        if square.shape[-1] == side
        else F.interpolate(square[None], (side, side), mode="bilinear", antialias=True)[0]
        for square in squares
    ]
    parts = torch.stack(squares).mean(dim=0).cpu().split([len(each) for each in found])
    return [
        replace(each, masks=tuple(paste(part, each.boxes.cpu(), size)))
        for each, part, size in zip(found, parts, sizes, strict=True)
    ]


def _fits(image: Tensor, shorter: int, longer: int, member: FasterRCNN) -> bool:
    height, width = image.shape[1:]
    try:
        input_size(width, height, shorter, longer, member.backbone.stride)
    except InputError:
        return False
    return True


def _resized(image: Tensor, shorter: int, longer: int, member: FasterRCNN) -> Tensor:
    height, width = image.shape[1:]
    new_width, new_height = input_size(width, height, shorter, longer, member.backbone.stride)
    return member.preprocessing(resize(image, new_height, new_width)[None])[0]


def _scale(resized: Tensor, image: Tensor) -> Tensor:
    x, y = resized.shape[2] / image.shape[2], resized.shape[1] / image.shape[1]
    return send(torch.tensor([x, y, x, y]), image.device)
