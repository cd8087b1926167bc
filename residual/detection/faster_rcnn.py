"""Faster R-CNN on one page (Section 4.3, appendix A; Ren et al. [32]), from torchvision's parts.

Shapes: N images, each (3, H, W) at the size that the network sees; C channels of the shared map and its
stride s; A anchors at each position of it; M objects of an image; R regions; D numbers that describe a
region; K classes. Boxes are (x1, y1, x2, y2) in the network's input, continuous coordinates. Class 0 of the
R x (K+1) scores is the background, and class k of the data is k + 1 there.

Images are never padded to a common size: their maps are computed one by one (those of one size together),
and their regions all at once. So an image's result does not depend on its neighbours in the batch, and no
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
from torchvision.ops import batched_nms, clip_boxes_to_image, nms

from ..data.box_batches import TrainingImage
from ..device import send, sums_dtype
from ..errors import InputError
from ..models.preprocessing import Preprocessing
from .backbones import Backbone, VGGBackbone
from .masks import INSIDE, MaskHead, mask_loss
from .pooling import align_masks, roi_align, roi_pool
from .targets import RPN_POSITIVE_IOU, match_anchors, match_regions, sample, smooth_l1

#: Filters of the proposal network's 3x3 convolution.
RPN_CHANNELS = 512
#: Proposals whose overlap is larger are one; how many go into that comparison, in training and in testing.
RPN_NMS_THRESHOLD = 0.7
PRE_NMS_TOP_N = {True: 12_000, False: 6_000}
#: Boxes that NMS takes at a time on a CPU.
NMS_STRETCH = 1_000
#: Anchors that the proposal network learns from in an image, and at most so many of them objects.
RPN_SAMPLES, RPN_MAX_POSITIVES = 256, 128
#: At most so much of the regions that the head learns from are objects.
ROI_POSITIVE_FRACTION = 0.25
#: Box outputs are in units of the deviations that the targets have in training (Fast R-CNN, Section 2.3), by
#: the numbers of the released code.
RPN_CODER, ROI_CODER = BoxCoder((1.0, 1.0, 1.0, 1.0)), BoxCoder((10.0, 10.0, 5.0, 5.0))
#: Where the loss of a box output turns from quadratic to linear (sigma 3 and 1 in the released code).
RPN_BETA, ROI_BETA = 1 / 9, 1.0
#: Names of the losses; the last one is of detectors with masks.
LOSSES = ("rpn_class", "rpn_box", "roi_class", "roi_box")
MASK_LOSS = "mask"


class RPNHead(nn.Module):
    """A 3x3 convolution, then for each anchor one score and four box outputs.

    Shapes: (N, C, h, w) to scores (N, h*w*A) and outputs (N, h*w*A, 4), anchors of a position together.
    """

    def __init__(self, channels: int, anchors: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, RPN_CHANNELS, 3, padding=1)
        self.cls_logits = nn.Conv2d(RPN_CHANNELS, anchors, 1)
        self.bbox_pred = nn.Conv2d(RPN_CHANNELS, 4 * anchors, 1)
        for layer in (self.conv, self.cls_logits, self.bbox_pred):
            nn.init.normal_(layer.weight, std=0.01)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = F.relu_(self.conv(x))
        scores, outputs = self.cls_logits(x).permute(0, 2, 3, 1), self.bbox_pred(x).permute(0, 2, 3, 1)
        return scores.flatten(1).float(), outputs.reshape(len(x), -1, 4).float()


class FasterRCNN(nn.Module):
    """A detector of K classes.

    Args:
        backbone: a network cut in two, BN already fixed.
        classes: K.
        preprocessing: from uint8 images (N, 3, H, W) to the backbone's input.
        anchor_sizes: square roots of the anchors' areas ("3 scales").
        aspect_ratios: heights over widths ("3 ratios").
        pooling: "pool" (the paper) or "align".
        roi_size: regions are pooled to roi_size x roi_size; None for the backbone's own.
        global_context: describe each region also by the whole image (appendix B).
        proposals: left after NMS in training and in testing.
        regions: that the head learns from in an image.
        min_size: sides that a proposal has at least.
        ignore_cross_boundary_anchors: leave those that reach over the image's edge out of training.
        freeze: stages of the backbone that stay as they are: conv1 and conv2_x, as in Fast R-CNN.
        masks: give each object's mask as well (masks.py).

    Raises:
        InputError: for masks by a network whose regions end in no map (VGG).
    """

    def __init__(
        self,
        backbone: Backbone,
        classes: int,
        preprocessing: Preprocessing,
        *,
        anchor_sizes: Sequence[float] = (128, 256, 512),
        aspect_ratios: Sequence[float] = (0.5, 1.0, 2.0),
        pooling: Literal["pool", "align"] = "pool",
        roi_size: int | None = None,
        global_context: bool = False,
        proposals: tuple[int, int] = (2000, 300),
        regions: int = 128,
        min_size: float = 16.0,
        ignore_cross_boundary_anchors: bool = True,
        freeze: int = 2,
        masks: bool = False,
    ) -> None:
        super().__init__()
        self.classes = classes
        self.preprocessing = preprocessing
        self.backbone = backbone
        self.pooling = pooling
        self.roi_size = roi_size or backbone.roi_size
        self.global_context = global_context
        self.proposals = {True: proposals[0], False: proposals[1]}
        self.regions = regions
        self.min_size = min_size
        self.ignore_cross_boundary_anchors = ignore_cross_boundary_anchors
        self.anchors = AnchorGenerator((tuple(anchor_sizes),), (tuple(aspect_ratios),))
        self.rpn_head = RPNHead(backbone.channels, len(anchor_sizes) * len(aspect_ratios))
        width = backbone.width * (2 if global_context else 1)
        self.cls_score = nn.Linear(width, classes + 1)
        self.bbox_pred = nn.Linear(width, 4 * classes)
        for layer, deviation in ((self.cls_score, 0.01), (self.bbox_pred, 0.001)):
            nn.init.normal_(layer.weight, std=deviation)
            nn.init.zeros_(layer.bias)
        if masks and isinstance(backbone, VGGBackbone):
            raise InputError(
                "detector.masks: VGG's head has no map to draw a mask on; take a residual network"
            )
        # The last of the layers: the others begin with the same numbers without it.
        self.mask_head = MaskHead(backbone.width, classes) if masks else None
        self.losses = (*LOSSES, MASK_LOSS) if masks else LOSSES
        backbone.freeze(freeze)

    # Shared by training and testing

    def maps(self, images: Sequence[Tensor]) -> list[Tensor]:
        """Return each image's shared map, (1, C, h, w); images are (3, H, W)."""
        same: dict[torch.Size, list[int]] = defaultdict(list)
        for number, image in enumerate(images):
            same[image.shape].append(number)
        found: dict[int, Tensor] = {}
        for numbers in same.values():
            batch = torch.stack([images[number] for number in numbers])
            maps = self.backbone.shared(batch.contiguous(memory_format=torch.channels_last))
            found |= zip(numbers, maps.split(1), strict=True)
        return [found[number] for number in range(len(images))]

    def grid_anchors(self, height: int, width: int) -> Tensor:
        """Return the anchors of a map, (h*w*A, 4), those of a position together, around its middle."""
        return grid_anchors(
            self.anchors, height, width, self.backbone.stride, self.rpn_head.conv.weight.device
        )

    def run_rpn(self, maps: Sequence[Tensor], sizes: list[tuple[int, int]]) -> "RPNOutput":
        """Return what the proposal head makes of the maps of images of these (height, width)."""
        scores, outputs = [], []
        for map in maps:
            score, output = self.rpn_head(map)
            scores.append(score[0])
            outputs.append(output[0])
        anchors = [self.grid_anchors(map.shape[2], map.shape[3]) for map in maps]
        return RPNOutput(scores, outputs, anchors, self.propose(scores, outputs, anchors, sizes))

    @torch.no_grad()
    def propose(
        self,
        scores: Sequence[Tensor],
        outputs: Sequence[Tensor],
        anchors: Sequence[Tensor],
        sizes: list[tuple[int, int]],
    ) -> list[Tensor]:
        """Return each image's proposals, (R, 4), the best first: as ``best_regions``."""
        most = self.proposals[self.training]
        before = max(PRE_NMS_TOP_N[self.training], most)
        return best_regions(scores, outputs, anchors, sizes, before, most, self.min_size)

    def region_maps(self, map: Tensor) -> list[Tensor]:
        """Return what regions are pooled from, for a map (1, C, h, w).

        By RoI align it is what the head's first layers make of the map: they are computed once for a position
        then, and not in every region anew.
        """
        if self.pooling == "align":
            return self.backbone.entry(map, [1] * len(self.backbone.steps))
        return [map]

    def pool(self, maps: Sequence[Tensor], boxes: Tensor) -> list[Tensor]:
        """Return the parts that the head takes of the regions under boxes (R, 4), each (R, C', n, n).

        Args:
            maps: that ``region_maps`` gives, of one image.
        """
        if self.pooling == "align":
            where = self.roi_size, self.backbone.stride
            return [
                roi_align(map, boxes, *where, step)
                for map, step in zip(maps, self.backbone.steps, strict=True)
            ]
        return self.enter(self.pool_cells(maps[0], boxes))

    def pool_cells(self, map: Tensor, boxes: Tensor) -> Tensor:
        """Return the cells under each box that the head looks at, (R, C, cells, cells), of a map itself."""
        where = self.roi_size, self.backbone.stride, min(self.backbone.steps)
        # Boxes stay float32: in bfloat16 a corner at 900 would be off by two pixels.
        if self.pooling == "pool":
            return roi_pool(map, _whole_pixels(boxes, map, self.backbone.stride), *where)
        return roi_align(map, boxes, *where)

    @property
    def cells(self) -> int:
        """Rows and columns of cells that ``pool_cells`` gives."""
        return -(-self.roi_size // min(self.backbone.steps))

    def enter(self, cells: Tensor) -> list[Tensor]:
        """Return the parts that the head takes of pooled cells, (R, C, cells, cells)."""
        steps = self.backbone.steps
        return self.backbone.entry(cells, [step // min(steps) for step in steps])

    def head_maps(self, parts: Sequence[Tensor]) -> Tensor:
        """Return the maps (R, D, m, m) of regions, given their parts (R, C', n, n)."""
        return self.backbone.head_maps([part.contiguous(memory_format=torch.channels_last) for part in parts])

    def predict(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores (logits) (R, K+1) and box outputs (R, K, 4) of described regions (R, D or 2D)."""
        return self.cls_score(features).float(), self.bbox_pred(features).float().unflatten(
            1, (self.classes, 4)
        )

    def predict_regions(
        self, pooled: Sequence[list[Tensor]], contexts: Sequence[list[Tensor]] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return scores, box outputs and maps (R, D, m, m) of the regions of N images, all at once.

        Args:
            pooled: of each image, the parts of its R regions.
            contexts: the whole image pooled as one region, of each; None without global context.
        """
        wholes = contexts or []
        maps = self.head_maps([torch.cat(part) for part in zip(*pooled, *wholes, strict=True)])
        features = maps.mean(dim=(2, 3))
        if contexts is None:
            return *self.predict(features), maps
        regions, whole = features[: -len(contexts)], features[-len(contexts) :]
        counts = torch.tensor([len(parts[0]) for parts in pooled])
        rows = send(torch.arange(len(contexts)).repeat_interleave(counts), features.device)
        return *self.predict(torch.cat([regions, whole[rows]], dim=1)), maps[: len(regions)]

    def predict_masks(self, pooled: Sequence[list[Tensor]]) -> Tensor:
        """Return the masks' logits (R, K, n, n) of the regions of N images, given each image's parts."""
        assert self.mask_head is not None
        return self.mask_head(self.head_maps([torch.cat(part) for part in zip(*pooled, strict=True)]))

    def pool_whole_image(self, maps: Sequence[Tensor], size: tuple[int, int]) -> list[Tensor]:
        """Return the whole image of (height, width) pooled as one region, as ``pool`` does."""
        return self.pool(maps, send(torch.tensor([[0.0, 0.0, size[1], size[0]]]), maps[0].device))

    # Training

    def training_maps(self, images: Sequence[TrainingImage]) -> list[Tensor]:
        """Return the shared maps of images as they were read: uint8, on the detector's device."""
        return self.maps([self.preprocessing(image.image[None])[0] for image in images])

    def forward(self, images: Sequence[TrainingImage]) -> Tensor:
        """Return the sums over the images of the losses (``losses``), (4,) or (5,)."""
        maps = self.training_maps(images)
        losses, proposals = self.rpn_losses(images, maps)
        return torch.cat([losses, self.roi_losses(images, maps, proposals)])

    def rpn_losses(
        self, images: Sequence[TrainingImage], maps: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the sums over the images of the proposals' two losses, (2,), and the proposals."""
        sizes = [image.height_width for image in images]
        seen = self.run_rpn(maps, sizes)
        losses = [
            torch.stack(self._anchor_losses(*each)).to(sums_dtype(maps[0].device))
            for each in zip(images, sizes, seen.scores, seen.outputs, seen.anchors, strict=True)
        ]
        return torch.stack(losses).sum(dim=0), seen.proposals

    def roi_losses(
        self, images: Sequence[TrainingImage], maps: Sequence[Tensor], proposals: Sequence[Tensor]
    ) -> Tensor:
        """Return the sums over the images of the head's losses, (2,), or (3,) with masks."""
        sampled = [self.sample_regions(*each) for each in zip(images, proposals, strict=True)]
        losses = self._head_losses(maps, images, sampled)
        return losses.to(sums_dtype(losses.device))

    def _anchor_losses(
        self, image: TrainingImage, size: tuple[int, int], scores: Tensor, outputs: Tensor, anchors: Tensor
    ) -> tuple[Tensor, Tensor]:
        edge = (size[1], size[0]) if self.ignore_cross_boundary_anchors else None
        return anchor_losses(image, edge, scores, outputs, anchors, RPN_SAMPLES, RPN_MAX_POSITIVES)

    @torch.no_grad()
    def sample_regions(self, image: TrainingImage, proposals: Tensor) -> "SampledRegions":
        """Return the regions of an image that the head learns from; its objects are among the candidates."""
        candidates = torch.cat([image.boxes, proposals])
        if not len(candidates):
            # Nothing was proposed and nothing is there: the whole image is background.
            height, width = image.height_width
            candidates = send(torch.tensor([[0.0, 0.0, width, height]]), candidates.device)
        positive, negative, matched = match_regions(candidates, image.boxes, image.crowds)
        random = _random(image.seed, 1, len(candidates), candidates.device)
        most = round(self.regions * ROI_POSITIVE_FRACTION)
        index, positive, used = sample(positive, negative, random, self.regions, most)
        regions = candidates[index]
        targets = _encode(ROI_CODER, image.boxes, matched[index], regions)
        labels = torch.zeros_like(index)
        if len(image.labels):
            labels = torch.where(positive, image.labels[matched[index]] + 1, 0)
        return SampledRegions(regions, labels, targets, used, matched[index])

    def _head_losses(
        self, maps: Sequence[Tensor], images: Sequence[TrainingImage], sampled: list["SampledRegions"]
    ) -> Tensor:
        seen = [self.region_maps(map) for map in maps]
        pooled = [self.pool(each, part.regions) for each, part in zip(seen, sampled, strict=True)]
        contexts = None
        if self.global_context:
            contexts = [
                self.pool_whole_image(each, image.height_width)
                for each, image in zip(seen, images, strict=True)
            ]
        scores, outputs, regions = self.predict_regions(pooled, contexts)
        labels = torch.cat([part.labels for part in sampled])
        used = torch.cat([part.used for part in sampled])
        # Each image counts the same, whatever the number of regions that it has.
        counts = torch.stack([part.used.sum().clamp(min=1) for part in sampled])
        weights = used / counts.repeat_interleave(self.regions)
        classified = (F.cross_entropy(scores, labels, reduction="none") * weights).sum()
        # The box outputs of a region's own class; the background has none.
        own = outputs[torch.arange(len(labels), device=labels.device), (labels - 1).clamp(min=0)]
        targets = torch.cat([part.targets for part in sampled])
        losses = F.smooth_l1_loss(own, targets, beta=ROI_BETA, reduction="none").sum(dim=1)
        found = [classified, (torch.where(labels > 0, losses, 0) * weights).sum()]
        if self.mask_head is not None:
            found.append(self._mask_loss(self.mask_head, regions, images, sampled))
        return torch.stack(found)

    def _mask_loss(
        self,
        head: MaskHead,
        maps: Tensor,
        images: Sequence[TrainingImage],
        sampled: Sequence["SampledRegions"],
    ) -> Tensor:
        """Return the sum over the images of the mean over the regions that are objects with a mask."""
        # Positive regions come first, and these are as many as there can be: the host knows all shapes.
        most = round(self.regions * ROI_POSITIVE_FRACTION)
        logits = head(maps.unflatten(0, (len(images), self.regions))[:, :most].flatten(0, 1))
        losses = []
        for image, part, logit in zip(images, sampled, logits.split(most), strict=True):
            labels, objects = part.labels[:most], part.objects[:most]
            counted = torch.zeros_like(labels, dtype=torch.bool)
            targets = torch.zeros_like(logit[:, 0], dtype=torch.bool)
            if image.masks is not None:
                counted = (labels > 0) & (image.masks.sizes[objects, 0] > 0)
                shares = align_masks(image.masks, objects, part.regions[:most], logit.shape[-1])
                targets = shares >= 255 * INSIDE
            each = mask_loss(logit, (labels - 1).clamp(min=0), targets)
            losses.append(torch.where(counted, each, 0).sum() / counted.sum().clamp(min=1))
        return torch.stack(losses).sum()


@dataclass(frozen=True)
class RPNOutput:
    """What the proposal head makes of N images, each entry of one.

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
class SampledRegions:
    """The regions of an image that the head learns from.

    Attributes:
        regions: (S, 4).
        labels: int64 (S,), 0 for background.
        targets: box outputs that lead to the object, (S, 4); of no meaning for background.
        used: bool (S,); False fills the places up where there are too few regions.
        objects: which of the image's objects each is of, int64 (S,); of no meaning for background.
    """

    regions: Tensor
    labels: Tensor
    targets: Tensor
    used: Tensor
    objects: Tensor


def grid_anchors(
    generator: AnchorGenerator, height: int, width: int, stride: int, device: torch.device
) -> Tensor:
    """Return the anchors of a map, (h*w*A, 4), those of a position together, around its middle."""
    generator.set_cell_anchors(torch.float32, device)
    (anchors,) = generator.grid_anchors([[height, width]], [[stride, stride]])
    return anchors + stride / 2


def best_regions(
    scores: Sequence[Tensor],
    outputs: Sequence[Tensor],
    anchors: Sequence[Tensor],
    sizes: Sequence[tuple[int, int]],
    before: int,
    most: int,
    min_size: float = 0.0,
) -> list[Tensor]:
    """Return the regions that a proposal network makes of each image's anchors, (R, 4), the best first.

    The host waits for a GPU twice, for the number of boxes that are large enough and for the number that NMS
    leaves; where there are more than 25,000 boxes, torchvision's NMS waits once an image.

    Args:
        scores, outputs: of the network's head, (h*w*A,) and (h*w*A, 4) for each image.
        anchors: (h*w*A, 4) for each.
        sizes: (height, width) of each.
        before: how many of the highest scores are compared by NMS.
        most: regions of an image.
        min_size: sides that a region has at least.
    """
    boxes, tops, owners = [], [], []
    for number, (score, output, places, size) in enumerate(zip(scores, outputs, anchors, sizes, strict=True)):
        top, index = score.topk(min(before, len(score)))
        decoded = RPN_CODER.decode_single(output[index], places[index])
        boxes.append(clip_boxes_to_image(decoded, size))
        tops.append(top)
        owners.append(torch.full_like(index, number))
    box, top, owner = torch.cat(boxes), torch.cat(tops), torch.cat(owners)
    # What clipping leaves without area is no region, whatever ``min_size`` is.
    sides = box[:, 2:] - box[:, :2]
    large = ((sides >= min_size) & (sides > 0)).all(dim=1).nonzero()[:, 0]
    box, top, owner = box[large], top[large], owner[large]
    if box.device.type == "cpu":
        counts = owner.bincount(minlength=len(sizes)).tolist()
        return [
            part[_first_of_nms(part, score, most)]
            for part, score in zip(box.split(counts), top.split(counts), strict=True)
        ]
    kept = batched_nms(box, top, owner, RPN_NMS_THRESHOLD)
    # Sorted by image, the order of scores within each kept.
    kept = kept[owner[kept].argsort(stable=True)]
    counts = owner[kept].bincount(minlength=len(sizes)).tolist()
    return [part[:most] for part in box[kept].split(counts)]


def _first_of_nms(boxes: Tensor, scores: Tensor, most: int) -> Tensor:
    """Return the first ``most`` of the boxes that NMS keeps, as if all had been compared; on a CPU.

    Only a better box can suppress another. So a stretch of boxes after the other is compared with what was
    kept so far, all pairs at once, and then among themselves, until there are enough: torchvision's NMS takes
    one pair at a time, and goes on to the last box.

    Args:
        boxes, scores: (N, 4) and (N,), the highest score first.
    """
    kept = torch.empty(0, dtype=torch.int64)
    for start in range(0, len(boxes), NMS_STRETCH):
        new = torch.arange(start, min(start + NMS_STRETCH, len(boxes)))
        if start:
            new = new[~_suppressed(boxes[new], boxes[kept])]
        kept = torch.cat([kept, new[nms(boxes[new], scores[new], RPN_NMS_THRESHOLD)]])
        if len(kept) >= most:
            break
    return kept[:most]


def _suppressed(boxes: Tensor, better: Tensor) -> Tensor:
    """Return which boxes (N, 4) overlap any of some better ones (M, 4) too much: bool (N,)."""
    # Row by row in memory, and in place: box_iou takes three times as long.
    x1, y1, x2, y2 = boxes.T.contiguous()
    found = torch.zeros(len(boxes), dtype=torch.bool)
    for part in better.split(NMS_STRETCH):
        left, top, right, bottom = part.T[:, :, None].contiguous()
        width = torch.minimum(right, x2).sub_(torch.maximum(left, x1)).clamp_(min=0)
        common = width.mul_(torch.minimum(bottom, y2).sub_(torch.maximum(top, y1)).clamp_(min=0))
        union = ((right - left) * (bottom - top) + (x2 - x1) * (y2 - y1)).sub_(common)
        found |= (common.div_(union) > RPN_NMS_THRESHOLD).any(dim=0)
    return found


def anchor_losses(
    image: TrainingImage,
    edge: tuple[int, int] | None,
    scores: Tensor,
    outputs: Tensor,
    anchors: Tensor,
    samples: int,
    most: int,
    even: bool = False,
    positive_iou: float = RPN_POSITIVE_IOU,
) -> tuple[Tensor, Tensor]:
    """Return an image's losses of class and box, over some of its anchors: the mean over those.

    Args:
        edge: as ``size`` of ``match_anchors``.
        scores, outputs: (B,) and (B, 4), for each anchor.
        anchors: (B, 4).
        samples: anchors that count.
        most: of them that may be objects.
        even: as many that are not objects as are, and not what fills the number up.
        positive_iou: as of ``match_anchors``.
    """
    positive, negative, matched = match_anchors(anchors, image.boxes, image.crowds, edge, positive_iou)
    random = _random(image.seed, 0, len(anchors), anchors.device)
    index, positive, used = sample(positive, negative, random, samples, most)
    if even:
        # Positive ones come first.
        used = used & (torch.arange(samples, device=used.device) < 2 * positive.sum())
    count = used.sum().clamp(min=1)
    losses = F.binary_cross_entropy_with_logits(scores[index], positive.float(), reduction="none")
    targets = _encode(RPN_CODER, image.boxes, matched[index], anchors[index])
    return (losses * used).sum() / count, smooth_l1(outputs[index], targets, positive, RPN_BETA) / count


def decode(outputs: Tensor, regions: Tensor) -> Tensor:
    """Return the boxes that the head's outputs (R, K, 4) make of regions (R, 4): (R, K, 4)."""
    return ROI_CODER.decode_single(outputs.flatten(1), regions).reshape(outputs.shape)


def _whole_pixels(boxes: Tensor, map: Tensor, stride: int) -> Tensor:
    """Return boxes (R, 4) as RoI pooling has them: x2 and y2 are the last pixel, on the map at any rate.

    Its kernel rounds each corner to a cell and takes the last cell too; bins beyond the map would be zeros.
    """
    height, width = map.shape[2:]
    # The largest coordinate that is rounded to the last cell, whatever is done with halves.
    edge = send(torch.tensor([width, height], dtype=boxes.dtype), boxes.device) * stride - stride / 2 - 1
    first = torch.minimum(boxes[:, :2], edge)
    last = torch.maximum(torch.minimum(boxes[:, 2:] - 1, edge), first)
    return torch.cat([first, last], dim=1)


def _encode(coder: BoxCoder, boxes: Tensor, matched: Tensor, regions: Tensor) -> Tensor:
    """Return the outputs that lead from regions (R, 4) to their objects, boxes[matched]; else zeros."""
    if not len(boxes):
        return torch.zeros_like(regions)
    return coder.encode_single(boxes[matched], regions)


def _random(seed: int, use: int, count: int, device: torch.device) -> Tensor:
    """Return numbers in [0, 1) that are the same on every device; anchors and regions use different ones."""
    generator = torch.Generator().manual_seed(seed * 2 + use)
    return send(torch.rand(count, generator=generator), device)
