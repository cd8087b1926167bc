"""Faster R-CNN on one page (Section 4.3, appendix A; Ren et al. [32]), from torchvision's parts.

Shapes: N pictures, each (3, H, W) at the size that the network sees; C channels of the shared map and its
stride s; A anchors at each position of it; M objects of a picture; R regions; D numbers that describe a
region; K classes. Boxes are (x1, y1, x2, y2) in the network's input, continuous coordinates. Class 0 of the
R x (K+1) scores is the background, and class k of the data is k + 1 there.

Pictures are never padded to a common size: their maps are computed one by one (those of one size together),
and their regions all at once. So a picture's result does not depend on its neighbours in the batch, and no
work is done on padding.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import batched_nms, clip_boxes_to_image, roi_align, roi_pool

from ..models.preprocessing import Preprocessing
from .backbones import Backbone
from .targets import judge_anchors, judge_regions, sample, smooth_l1

#: Filters of the proposal network's 3x3 convolution.
PROPOSAL_FILTERS = 512
#: Proposals whose overlap is larger are one; how many go into that comparison, in training and in testing.
PROPOSAL_NMS = 0.7
BEFORE_NMS = {True: 12_000, False: 6_000}
#: Anchors that the proposal network learns from in a picture, and at most so many of them objects.
ANCHORS_SAMPLED, ANCHOR_OBJECTS = 256, 128
#: At most so much of the regions that the head learns from are objects.
REGION_OBJECTS = 0.25
#: Box outputs are in units of the deviations that the targets have in training (Fast R-CNN, Section 3.1).
PROPOSAL_CODER, REGION_CODER = BoxCoder((1.0, 1.0, 1.0, 1.0)), BoxCoder((10.0, 10.0, 5.0, 5.0))
#: Where the loss of a box output turns from quadratic to linear (sigma 3 and 1 in the released code).
PROPOSAL_BETA, REGION_BETA = 1 / 9, 1.0
#: Names of the four losses.
LOSSES = ("proposal_class", "proposal_box", "class", "box")


@dataclass(frozen=True)
class Example:
    """A picture to learn from.

    Attributes:
        image: preprocessed, float (3, H, W).
        boxes: (M, 4); labels: int64 (M,), in [0, K); crowds: (C, 4), neither objects nor background.
        seed: of the sampling: a function of the iteration and the place in the mini-batch.
    """

    image: Tensor
    boxes: Tensor
    labels: Tensor
    crowds: Tensor
    seed: int


class ProposalHead(nn.Module):
    """A 3x3 convolution, then for each anchor one score and four box outputs.

    Shapes: (N, C, h, w) to scores (N, h*w*A) and outputs (N, h*w*A, 4), anchors of a position together.
    """

    def __init__(self, channels: int, anchors: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, PROPOSAL_FILTERS, 3, padding=1)
        self.score = nn.Conv2d(PROPOSAL_FILTERS, anchors, 1)
        self.box = nn.Conv2d(PROPOSAL_FILTERS, 4 * anchors, 1)
        for layer in (self.conv, self.score, self.box):
            nn.init.normal_(layer.weight, std=0.01)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = F.relu_(self.conv(x))
        scores, outputs = self.score(x).permute(0, 2, 3, 1), self.box(x).permute(0, 2, 3, 1)
        return scores.flatten(1).float(), outputs.reshape(len(x), -1, 4).float()


class FasterRCNN(nn.Module):
    """A detector of K classes.

    Args:
        backbone: a network cut in two, BN already fixed.
        classes: K.
        preprocessing: from uint8 pictures (N, 3, H, W) to the backbone's input.
        anchor_sides: square roots of the anchors' areas ("3 scales").
        anchor_ratios: heights over widths ("3 ratios").
        pooling: "pool" (the paper) or "align".
        side: regions are pooled to side x side; None for the backbone's own.
        global_context: describe each region also by the whole picture (appendix B).
        proposals: left after NMS in training and in testing.
        regions: that the head learns from in a picture.
        smallest: sides that a proposal has at least.
        whole_anchors: whether anchors that reach over the picture's edge are left out of training.
        freeze: stages of the backbone that stay as they are: conv1 and conv2_x, as in Fast R-CNN.
    """

    def __init__(
        self,
        backbone: Backbone,
        classes: int,
        preprocessing: Preprocessing,
        *,
        anchor_sides: Sequence[float] = (128, 256, 512),
        anchor_ratios: Sequence[float] = (0.5, 1.0, 2.0),
        pooling: Literal["pool", "align"] = "pool",
        side: int | None = None,
        global_context: bool = False,
        proposals: tuple[int, int] = (2000, 300),
        regions: int = 128,
        smallest: float = 16.0,
        whole_anchors: bool = True,
        freeze: int = 2,
    ) -> None:
        super().__init__()
        self.classes = classes
        self.preprocessing = preprocessing
        self.backbone = backbone
        self.pooling = pooling
        self.side = side or backbone.side
        self.global_context = global_context
        self.proposals = {True: proposals[0], False: proposals[1]}
        self.regions = regions
        self.smallest = smallest
        self.whole_anchors = whole_anchors
        self.anchors = AnchorGenerator((tuple(anchor_sides),), (tuple(anchor_ratios),))
        self.proposal_head = ProposalHead(backbone.channels, len(anchor_sides) * len(anchor_ratios))
        width = backbone.width * (2 if global_context else 1)
        self.score = nn.Linear(width, classes + 1)
        self.box = nn.Linear(width, 4 * classes)
        for layer, deviation in ((self.score, 0.01), (self.box, 0.001)):
            nn.init.normal_(layer.weight, std=deviation)
            nn.init.zeros_(layer.bias)
        backbone.freeze(freeze)

    # Shared by training and testing

    def maps(self, images: Sequence[Tensor]) -> list[Tensor]:
        """Return each picture's shared map, (1, C, h, w); pictures are (3, H, W)."""
        same: dict[torch.Size, list[int]] = defaultdict(list)
        for number, image in enumerate(images):
            same[image.shape].append(number)
        found: dict[int, Tensor] = {}
        for numbers in same.values():
            batch = torch.stack([images[number] for number in numbers])
            maps = self.backbone.shared(batch.contiguous(memory_format=torch.channels_last))
            found |= zip(numbers, maps.split(1), strict=True)
        return [found[number] for number in range(len(images))]

    def place_anchors(self, height: int, width: int) -> Tensor:
        """Return the anchors of a map, (h*w*A, 4), those of a position together, around its middle."""
        weight = self.proposal_head.conv.weight
        self.anchors.set_cell_anchors(torch.float32, weight.device)
        stride = self.backbone.stride
        (anchors,) = self.anchors.grid_anchors([[height, width]], [[stride, stride]])
        return anchors + stride / 2

    def look(self, maps: Sequence[Tensor], sizes: list[tuple[int, int]]) -> "Seen":
        """Return what the proposal head makes of the maps of pictures of these (height, width)."""
        scores, outputs = [], []
        for map in maps:
            score, output = self.proposal_head(map)
            scores.append(score[0])
            outputs.append(output[0])
        anchors = [self.place_anchors(map.shape[2], map.shape[3]) for map in maps]
        return Seen(scores, outputs, anchors, self.propose(scores, outputs, anchors, sizes))

    @torch.no_grad()
    def propose(
        self,
        scores: Sequence[Tensor],
        outputs: Sequence[Tensor],
        anchors: Sequence[Tensor],
        sizes: list[tuple[int, int]],
    ) -> list[Tensor]:
        """Return each picture's proposals, (R, 4), the best first.

        The host waits for the device twice, whatever the number of pictures: for the number of boxes that are
        large enough, and for the number that NMS leaves.

        Args:
            scores, outputs: of the proposal head, (h*w*A,) and (h*w*A, 4) for each picture.
            sizes: (height, width) of each.
        """
        boxes, tops, pictures = [], [], []
        for number, (score, output, places, size) in enumerate(
            zip(scores, outputs, anchors, sizes, strict=True)
        ):
            top, index = score.topk(min(BEFORE_NMS[self.training], len(score)))
            decoded = PROPOSAL_CODER.decode_single(output[index], places[index])
            boxes.append(clip_boxes_to_image(decoded, size))
            tops.append(top)
            pictures.append(torch.full_like(index, number))
        box, top, picture = torch.cat(boxes), torch.cat(tops), torch.cat(pictures)
        # What clipping leaves without area is no region, whatever ``smallest`` is.
        sides = box[:, 2:] - box[:, :2]
        large = ((sides >= self.smallest) & (sides > 0)).all(dim=1).nonzero()[:, 0]
        box, top, picture = box[large], top[large], picture[large]
        kept = batched_nms(box, top, picture, PROPOSAL_NMS)
        # Sorted by picture, the order of scores within each kept.
        kept = kept[picture[kept].argsort(stable=True)]
        counts = picture[kept].bincount(minlength=len(sizes)).tolist()
        count = self.proposals[self.training]
        return [part[:count] for part in box[kept].split(counts)]

    def pool(self, map: Tensor, boxes: Tensor) -> Tensor:
        """Return the part of a map (1, C, h, w) under each box: (R, C, side, side)."""
        side, scale = self.side, 1 / self.backbone.stride
        # The kernels know no other memory layout. In bfloat16 a corner at 900 would be off by two pixels.
        values = map.contiguous().float()
        if self.pooling == "pool":
            whole = _whole_pixels(boxes, map, self.backbone.stride)
            return roi_pool(values, [whole], side, scale).to(map.dtype)
        return roi_align(values, [boxes], side, scale, sampling_ratio=2, aligned=True).to(map.dtype)

    def describe(self, pooled: Tensor) -> Tensor:
        """Return the descriptions of pooled regions: (R, C, side, side) to (R, D)."""
        return self.backbone.describe(pooled.contiguous(memory_format=torch.channels_last))

    def predict(self, described: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores (logits) (R, K+1) and box outputs (R, K, 4) of described regions (R, D or 2D)."""
        return self.score(described).float(), self.box(described).float().unflatten(1, (self.classes, 4))

    def assess(self, pooled: Sequence[Tensor], contexts: Sequence[Tensor] | None) -> tuple[Tensor, Tensor]:
        """Return scores and box outputs of the regions of N pictures, all at once.

        Args:
            pooled: of each picture, (R, C, side, side).
            contexts: the whole picture pooled as one region, (1, C, side, side), of each; None without
                global context.
        """
        if contexts is None:
            return self.predict(self.describe(torch.cat(list(pooled))))
        described = self.describe(torch.cat([*pooled, *contexts]))
        regions, wholes = described[: -len(contexts)], described[-len(contexts) :]
        counts = torch.tensor([len(part) for part in pooled])
        rows = torch.arange(len(contexts)).repeat_interleave(counts).to(described.device)
        return self.predict(torch.cat([regions, wholes[rows]], dim=1))

    def whole(self, map: Tensor, size: tuple[int, int]) -> Tensor:
        """Return the whole picture of (height, width) pooled as one region, (1, C, side, side)."""
        return self.pool(map, torch.tensor([[0.0, 0.0, size[1], size[0]]], device=map.device))

    # Training

    def forward(self, examples: Sequence[Example]) -> Tensor:
        """Return the sums over the pictures of the four losses (``LOSSES``), (4,)."""
        maps = self.maps([example.image for example in examples])
        losses, proposals = self.learn_proposals(examples, maps)
        return torch.cat([losses, self.learn_regions(examples, maps, proposals)])

    def learn_proposals(
        self, examples: Sequence[Example], maps: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the sums over the pictures of the proposals' two losses, (2,), and the proposals."""
        sizes = [size_of(example) for example in examples]
        seen = self.look(maps, sizes)
        losses = [
            torch.stack(self._proposal_losses(*each)).double()
            for each in zip(examples, sizes, seen.scores, seen.outputs, seen.anchors, strict=True)
        ]
        return torch.stack(losses).sum(dim=0), seen.proposals

    def learn_regions(
        self, examples: Sequence[Example], maps: Sequence[Tensor], proposals: Sequence[Tensor]
    ) -> Tensor:
        """Return the sums over the pictures of the head's two losses, (2,)."""
        chosen = [self.choose_regions(e, regions) for e, regions in zip(examples, proposals, strict=True)]
        return self._head_losses(maps, [size_of(example) for example in examples], chosen).double()

    def _proposal_losses(
        self, example: Example, size: tuple[int, int], scores: Tensor, outputs: Tensor, anchors: Tensor
    ) -> tuple[Tensor, Tensor]:
        edge = (size[1], size[0]) if self.whole_anchors else None
        objects, background, whose = judge_anchors(anchors, example.boxes, example.crowds, edge)
        random = _random(example.seed, 0, len(anchors), anchors.device)
        index, positive, used = sample(objects, background, random, ANCHORS_SAMPLED, ANCHOR_OBJECTS)
        count = used.sum().clamp(min=1)
        losses = F.binary_cross_entropy_with_logits(scores[index], positive.float(), reduction="none")
        targets = _encode(PROPOSAL_CODER, example.boxes, whose[index], anchors[index])
        return (losses * used).sum() / count, smooth_l1(
            outputs[index], targets, positive, PROPOSAL_BETA
        ) / count

    @torch.no_grad()
    def choose_regions(self, example: Example, proposals: Tensor) -> "Chosen":
        """Return the regions of a picture that the head learns from; its objects are among the candidates."""
        candidates = torch.cat([example.boxes, proposals])
        if not len(candidates):
            # Nothing was proposed and nothing is there: the whole picture is background.
            height, width = example.image.shape[1:]
            candidates = candidates.new_tensor([[0.0, 0.0, width, height]])
        objects, background, whose = judge_regions(candidates, example.boxes, example.crowds)
        random = _random(example.seed, 1, len(candidates), candidates.device)
        most = round(self.regions * REGION_OBJECTS)
        index, positive, used = sample(objects, background, random, self.regions, most)
        regions = candidates[index]
        targets = _encode(REGION_CODER, example.boxes, whose[index], regions)
        labels = torch.zeros_like(index)
        if len(example.labels):
            labels = torch.where(positive, example.labels[whose[index]] + 1, 0)
        return Chosen(regions, labels, targets, used)

    def _head_losses(
        self, maps: Sequence[Tensor], sizes: list[tuple[int, int]], chosen: list["Chosen"]
    ) -> Tensor:
        pooled = [self.pool(map, part.regions) for map, part in zip(maps, chosen, strict=True)]
        contexts = None
        if self.global_context:
            contexts = [self.whole(map, size) for map, size in zip(maps, sizes, strict=True)]
        scores, outputs = self.assess(pooled, contexts)
        labels = torch.cat([part.labels for part in chosen])
        used = torch.cat([part.used for part in chosen])
        # Each picture counts the same, whatever the number of regions that it has.
        counts = torch.stack([part.used.sum().clamp(min=1) for part in chosen])
        weights = used / counts.repeat_interleave(self.regions)
        classified = (F.cross_entropy(scores, labels, reduction="none") * weights).sum()
        # The box outputs of a region's own class; the background has none.
        own = outputs[torch.arange(len(labels), device=labels.device), (labels - 1).clamp(min=0)]
        targets = torch.cat([part.targets for part in chosen])
        losses = F.smooth_l1_loss(own, targets, beta=REGION_BETA, reduction="none").sum(dim=1)
        return torch.stack([classified, (torch.where(labels > 0, losses, 0) * weights).sum()])


@dataclass(frozen=True)
class Seen:
    """What the proposal head makes of N pictures, each entry of one.

    Attributes:
        scores, outputs: (h*w*A,) and (h*w*A, 4), for each anchor.
        anchors: (h*w*A, 4).
        proposals: (R, 4), the best first. No gradient goes through their corners ("approximate" training).
    """

    scores: list[Tensor]
    outputs: list[Tensor]
    anchors: list[Tensor]
    proposals: list[Tensor]


@dataclass(frozen=True)
class Chosen:
    """The regions of a picture that the head learns from.

    Attributes:
        regions: (S, 4).
        labels: int64 (S,), 0 for background.
        targets: box outputs that lead to the object, (S, 4); of no meaning for background.
        used: bool (S,); False fills the places up where there are too few regions.
    """

    regions: Tensor
    labels: Tensor
    targets: Tensor
    used: Tensor


def decode(outputs: Tensor, regions: Tensor) -> Tensor:
    """Return the boxes that the head's outputs (R, K, 4) make of regions (R, 4): (R, K, 4)."""
    return REGION_CODER.decode_single(outputs.flatten(1), regions).reshape(outputs.shape)


def size_of(example: Example) -> tuple[int, int]:
    """Return height and width of a picture as the network sees it."""
    return int(example.image.shape[1]), int(example.image.shape[2])


def _whole_pixels(boxes: Tensor, map: Tensor, stride: int) -> Tensor:
    """Return boxes (R, 4) as RoI pooling has them: x2 and y2 are the last pixel, on the map at any rate.

    Its kernel rounds each corner to a cell and takes the last cell too; bins beyond the map would be zeros.
    """
    height, width = map.shape[2:]
    # The largest coordinate that is rounded to the last cell, whatever is done with halves.
    edge = boxes.new_tensor([width, height]) * stride - stride / 2 - 1
    first = torch.minimum(boxes[:, :2], edge)
    last = torch.maximum(torch.minimum(boxes[:, 2:] - 1, edge), first)
    return torch.cat([first, last], dim=1)


def _encode(coder: BoxCoder, boxes: Tensor, whose: Tensor, regions: Tensor) -> Tensor:
    if not len(boxes):
        return torch.zeros_like(regions)
    return coder.encode_single(boxes[whose], regions)


def _random(seed: int, use: int, count: int, device: torch.device) -> Tensor:
    """Return numbers in [0, 1) that are the same on every device; anchors and regions use different ones."""
    generator = torch.Generator().manual_seed(seed * 2 + use)
    return torch.rand(count, generator=generator).to(device)
