"""Average precision as PASCAL VOC, ImageNet's detection task and COCO define it.

Shapes: M objects of an image, D detections of it, K classes. Boxes are (x1, y1, x2, y2) in the image's
pixels, continuous coordinates (data/boxes.py).
"""

import contextlib
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou

from ..data.boxes import AnnotatedImage, BoxDataset
from ..data.masks import Mask, area, box_mask, check_pycocotools, masks_as_pixels
from ..errors import InputError
from ..recipes.detection import APRule
from .targets import parts_inside

#: Intersection over union from which on a detection is of an object.
OVERLAP = 0.5
#: Pixels by which ImageNet lets a box be larger than a small object, over both sides together.
TOLERANCE = 10
#: Detections of a class on an image that COCO's average precision counts, the best first.
COCO_DETECTIONS = 100


@dataclass(frozen=True)
class Detections:
    """What a detector found on an image.

    Attributes:
        boxes: float32 (D, 4), in the image's pixels.
        scores: float32 (D,), falling.
        labels: int64 (D,), in [0, K).
        masks: of each; empty where the detector gives none.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: tuple[Mask, ...] = ()

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, kept: Tensor) -> "Detections":
        """Return some of the detections: bool (D,), or a tensor of their places."""
        places = torch.arange(len(self), device=kept.device)[kept].tolist() if self.masks else ()
        masks = tuple(self.masks[place] for place in places)
        return Detections(self.boxes[kept], self.scores[kept], self.labels[kept], masks)

    def cpu(self) -> "Detections":
        """Return it on the CPU, of memory of its own, which may be written to: a detector's may not."""
        boxes, scores, labels = (each.cpu().clone() for each in (self.boxes, self.scores, self.labels))
        return Detections(boxes, scores, labels, self.masks)

    def pixels(self, size: tuple[int, int]) -> Tensor:
        """Return the masks on their image of (height, width): uint8 (D, H, W), 1 where the object is.

        Raises:
            InputError: where the detector gives no masks, or the image has another size.
        """
        if len(self) and not self.masks:
            raise InputError(
                "these detections have no masks; train a detector of them with detector.masks=true"
            )
        if self.masks and self.masks[0].size != tuple(size):
            raise InputError(f"the image has a height and width of {self.masks[0].size}, not {tuple(size)}")
        return masks_as_pixels(self.masks, size)

    def judged_on(self, annotated: AnnotatedImage) -> "Detections":
        """Return the detections of classes that are judged on an image."""
        return self[~annotated.is_unjudged(self.labels)]

    def of_classes(self, numbers: Sequence[int]) -> "Detections":
        """Return the detections of some classes, labelled by their places among the numbers."""
        matches = self.labels[:, None] == torch.tensor(numbers, device=self.labels.device)
        kept = matches.any(dim=1)
        return replace(self[kept], labels=matches[kept].int().argmax(dim=1))


@dataclass(frozen=True)
class ClassAP:
    """How well one class was found.

    Attributes:
        name: of the class.
        objects: how many there are; difficult ones and crowds are none.
        average_precision: in [0, 1]; nan where there is no object.
        precision, recall: after each detection, the highest score first; float64 (D,).
        scores: of those detections.
    """

    name: str
    objects: int
    average_precision: float
    precision: np.ndarray
    recall: np.ndarray
    scores: np.ndarray


def voc_ap(
    dataset: BoxDataset,
    found: Sequence[Detections],
    ap_rule: APRule,
    overlap: float = OVERLAP,
) -> list[ClassAP]:
    """Return VOC's or ImageNet's average precision of each class.

    A detection is right when it is of an object of its class (``owners_of``) and no detection of a higher
    score is of that object; of a difficult object (or a crowd) it is neither right nor wrong; else it is
    wrong. Equal scores are taken in the order of the images. What is not judged on an image does not count.

    Args:
        found: the detections of each image of the dataset.
        ap_rule: "11 points" for VOC 2007: the mean of the highest precisions at recalls of at least 0, 0.1,
            ..., 1. "area" for 2010 and later: under the precision made monotonous. "imagenet": that area,
            with the matching of ImageNet's development kit.
        overlap: intersection over union from which on a detection is of an object.
    """
    found = [each.judged_on(annotated) for annotated, each in zip(dataset.images, found, strict=True)]
    # The object of each detection, numbered through the dataset, -1 for none. For one image at a time, all
    # classes together; what follows is one pass over all detections of a class.
    owners, first = [], 0
    for annotated, detections in zip(dataset.images, found, strict=True):
        owner = owners_of(annotated, detections, ap_rule, overlap)
        owners.append(torch.where(owner >= 0, first + owner, owner))
        first += len(annotated.boxes)
    owned = _joined(owners, torch.int64)
    scores = _joined([d.scores for d in found], torch.float32)
    labels = _joined([d.labels for d in found], torch.int64)
    wanted = _joined([annotated.wanted for annotated in dataset.images], torch.bool)
    counts = dataset.counts()
    results = []
    for number, name in enumerate(dataset.classes):
        mine = labels == number
        order = np.argsort(-scores[mine], kind="stable")
        matched = owned[mine][order]
        ignored = (matched >= 0) & ~np.append(wanted, True)[matched]
        right = np.zeros(len(matched), dtype=bool)
        # The first detection of each object, in the order of the scores.
        _, earliest = np.unique(matched, return_index=True)
        right[earliest] = True
        right &= (matched >= 0) & ~ignored
        counted = ~ignored
        hits = np.cumsum(right[counted])
        precision = hits / np.arange(1, len(hits) + 1)
        objects = counts[number]
        results.append(
            ClassAP(
                name,
                objects,
                _average(hits, precision, objects, ap_rule),
                precision,
                hits / max(objects, 1),
                scores[mine][order][counted],
            )
        )
    return results


def owners_of(
    annotated: AnnotatedImage, detections: Detections, ap_rule: APRule = "area", overlap: float = OVERLAP
) -> Tensor:
    """Return which of an image's M objects each detection is of, -1 for none: int64 (D,).

    VOC's rules: it is the one of its class that it overlaps most, if the overlap is enough. ImageNet's
    (``eval_detection`` in the development kit): one after the other, the best score first, each is of the
    object that it overlaps most among those of its class that nothing is of yet, and that it overlaps
    enough; for an object of w x h pixels that is min(0.5, w h / ((w + 10) (h + 10))).

    By either, what is of no object is of the crowd of its class in which most of it lies, if that is enough,
    as COCO has it: a crowd is larger than what is found in it.
    """
    owner = torch.full((len(detections),), -1)
    if not len(annotated.boxes) or not len(detections):
        return owner
    boxes = annotated.boxes.double()
    found = detections.boxes.double()
    others = detections.labels[:, None] != annotated.labels
    iou = box_iou(found, boxes).masked_fill(others | annotated.crowd, -1.0)
    if ap_rule != "imagenet":
        best, index = iou.max(dim=1)
        owner = torch.where(best >= overlap, index, owner)
    else:
        owner = _one_after_the_other(annotated, detections, iou, overlap)
    best, index = parts_inside(found, boxes).masked_fill(others | ~annotated.crowd, -1.0).max(dim=1)
    return torch.where((owner < 0) & (best >= overlap), index, owner)


def _one_after_the_other(
    annotated: AnnotatedImage, detections: Detections, iou: Tensor, overlap: float
) -> Tensor:
    """Return which object each detection is of by ImageNet's rules (``owners_of``); ``iou`` is (D, M)."""
    owner = torch.full((len(detections),), -1)
    boxes = annotated.boxes.double()
    sides = boxes[:, 2:] - boxes[:, :2]
    least = (sides.prod(dim=1) / (sides + TOLERANCE).prod(dim=1)).clamp(max=overlap)
    iou = iou.masked_fill(iou < least, -1.0)
    order = torch.argsort(detections.scores, descending=True, stable=True)
    for number in order[(iou[order] >= 0).any(dim=1)].tolist():
        best, index = iou[number].max(dim=0)
        if best >= 0:
            owner[number] = index
            if annotated.wanted[index]:
                iou[:, index] = -1.0
    return owner


@dataclass(frozen=True)
class Judgement:
    """What is right and wrong about the detections of an image.

    Attributes:
        shown: its detections of at least some score.
        false: which of those are of no object, or of one that another one is of: bool (D,).
        missed: which of its objects nothing is of: bool (M,); difficult ones and crowds are not missed.
    """

    shown: Detections
    false: Tensor
    missed: Tensor

    @property
    def mistakes(self) -> int:
        """How many there are of both kinds."""
        return int(self.false.sum() + self.missed.sum())


def judge(
    annotated: AnnotatedImage, detections: Detections, score_threshold: float, ap_rule: APRule = "area"
) -> Judgement:
    """Say which detections of at least some score are false alarms, and which objects were missed."""
    detections = detections.judged_on(annotated)
    shown = detections[detections.scores >= score_threshold]
    wanted, found = annotated.wanted, torch.zeros(len(annotated.boxes), dtype=torch.bool)
    false = []
    for owner in owners_of(annotated, shown, ap_rule).tolist():
        # Scores are falling: the first one of an object is right.
        false.append(owner < 0 or bool(wanted[owner] & found[owner]))
        if owner >= 0:
            found[owner] = True
    return Judgement(shown, torch.tensor(false, dtype=torch.bool), wanted & ~found)


def mean_ap(classes: Sequence[ClassAP]) -> float:
    """Return the mean over the classes that have objects (mAP), nan where none has.

    ImageNet's kit takes the mean over all of its 200 classes, which all have objects in its validation set.
    """
    values = [c.average_precision for c in classes if c.objects]
    return sum(values) / len(values) if values else math.nan


def _average(hits: np.ndarray, precision: np.ndarray, objects: int, ap_rule: str) -> float:
    if objects == 0:
        return math.nan
    if not len(hits):
        return 0.0
    # The highest precision at this recall or any higher one.
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    if ap_rule == "11 points":
        # Whole numbers, exact: the authors' Python steps by 0.1 and so asks for a recall of
        # 0.30000000000000004, which 3 of 10 objects miss.
        reached = [np.flatnonzero(10 * hits >= tenth * objects) for tenth in range(11)]
        return float(sum(envelope[places[0]] for places in reached if len(places)) / 11)
    return float((np.diff(hits, prepend=0) * envelope).sum() / objects)


def _joined(parts: Sequence[Tensor], dtype: torch.dtype) -> np.ndarray:
    return torch.cat([torch.empty(0, dtype=dtype), *parts]).numpy()


def coco_ap(dataset: BoxDataset, found: Sequence[Detections], masks: bool = False) -> dict[str, Any]:
    """Return COCO's average precision of boxes or masks, computed by pycocotools.

    Difficult objects of VOC count as crowds: nobody has to find them. So do, of masks, the boxes of objects
    that have none. Classes that are not judged on an image are nothing there. Objects are as large as COCO
    says; of other layouts' masks, as many pixels.

    Args:
        masks: of masks, which the detections then have.

    Returns:
        "AP" (mean over overlaps 0.5 to 0.95), "AP50", "AP75", "APs", "APm", "APl", and "classes", a dict of
        AP, AP50 and AP75 by the class's name; in [0, 1], nan where there is no object. Of each class on an
        image the best ``COCO_DETECTIONS`` count.

    Raises:
        InputError: when pycocotools is not installed.
    """
    check_pycocotools("COCO AP")
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    found = [one.judged_on(annotated) for annotated, one in zip(dataset.images, found, strict=True)]
    objects = []
    for number, (annotated, detections) in enumerate(zip(dataset.images, found, strict=True)):
        for (x1, y1, x2, y2), label, size, wanted, mask in zip(
            annotated.boxes.tolist(),
            annotated.labels.tolist(),
            annotated.areas.tolist(),
            annotated.wanted.tolist(),
            annotated.masks or [None] * len(annotated.labels),
            strict=True,
        ):
            own = {"image_id": number, "category_id": label + 1, "bbox": [x1, y1, x2 - x1, y2 - y1]}
            if masks and mask is None:
                # Where nothing is found there is nothing to leave uncounted; such an image may have any size.
                if not len(detections):
                    continue
                wanted, mask = False, box_mask((x1, y1, x2, y2), annotated.size[::-1])
            elif masks and mask and dataset.layout != "coco":
                size = area(mask)
            own |= {"area": size, "iscrowd": int(not wanted)}
            objects.append(own | ({"segmentation": mask.rle} if masks and mask else {}))
    truth = COCO()
    truth.dataset = {
        "images": [
            {"id": number, "width": annotated.size[0], "height": annotated.size[1]}
            for number, annotated in enumerate(dataset.images)
        ],
        "annotations": [{"id": number} | own for number, own in enumerate(objects, start=1)],
        "categories": [{"id": k + 1, "name": name} for k, name in enumerate(dataset.classes)],
    }
    results = [
        {"image_id": number, "category_id": label + 1, "score": score}
        | ({"segmentation": mask.rle} if mask is not None and masks else {"bbox": box})
        for number, detections in enumerate(found)
        for box, score, label, mask in as_coco(detections)
    ]
    # It prints as it works; what we want to know is returned.
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        theirs = truth.loadRes(results) if results else COCO()
        evaluation = COCOeval(truth, theirs, "segm" if masks else "bbox")
        evaluation.params.maxDets = [1, 10, COCO_DETECTIONS]
        evaluation.params.imgIds = list(range(len(dataset)))
        evaluation.params.catIds = [k + 1 for k in range(len(dataset.classes))]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    names = ("AP", "AP50", "AP75", "APs", "APm", "APl")
    summary: dict[str, Any] = dict(zip(names, map(_or_nan, evaluation.stats[:6]), strict=True))
    # Overlaps, recalls, classes, areas (0: all), numbers of detections (last: 100).
    curves = evaluation.eval["precision"][:, :, :, 0, -1]
    summary["classes"] = {
        name: {
            "AP": _class_mean(curves[:, :, number]),
            "AP50": _class_mean(curves[0, :, number]),
            "AP75": _class_mean(curves[5, :, number]),
        }
        for number, name in enumerate(dataset.classes)
    }
    return summary


def as_coco(detections: Detections) -> list[tuple[list[float], float, int, Mask | None]]:
    """Return detections as COCO writes them: box as x, y, width, height; score; label; mask if there are."""
    x1, y1, x2, y2 = detections.boxes.double().unbind(dim=1)
    boxes = torch.stack([x1, y1, x2 - x1, y2 - y1], dim=1).tolist()
    masks = detections.masks or [None] * len(detections)
    return list(zip(boxes, detections.scores.tolist(), detections.labels.tolist(), masks, strict=True))


def _class_mean(values: np.ndarray) -> float:
    known = values[values > -1]
    return float(known.mean()) if known.size else math.nan


def _or_nan(value: float) -> float:
    # pycocotools' sign for "no object of this kind".
    return float(value) if value > -1 else math.nan
