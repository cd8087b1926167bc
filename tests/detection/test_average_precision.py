"""Average precision against an independent, slow reading of the rules, and against pycocotools' own."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch

from residual.data.boxes import AnnotatedImage, BoxDataset
from residual.detection.average_precision import Detections, coco_ap, judge, mean_ap, voc_ap
from residual.recipes.detection import APRule

CLASSES = ("a", "b", "c")


def annotated(
    boxes: list[list[float]], labels: list[int], difficult: list[bool] | None = None
) -> AnnotatedImage:
    tensor = torch.tensor(boxes).reshape(-1, 4)
    areas = (tensor[:, 2:] - tensor[:, :2]).prod(dim=1)
    flags = torch.tensor(difficult or [False] * len(boxes), dtype=torch.bool)
    return AnnotatedImage(
        *("x", Path("x.jpg"), (100, 100), tensor, torch.tensor(labels, dtype=torch.int64)),
        *(flags, torch.zeros(len(boxes), dtype=torch.bool), areas),
    )


def dataset(*images: AnnotatedImage) -> BoxDataset:
    return BoxDataset("voc", ("made",), CLASSES, images, (), (1, 2, 3))


def found(boxes: list[list[float]], scores: list[float], labels: list[int]) -> Detections:
    return Detections(
        torch.tensor(boxes).reshape(-1, 4), torch.tensor(scores), torch.tensor(labels, dtype=torch.int64)
    )


def overlap(a: list[float], b: list[float]) -> float:
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    if w <= 0 or h <= 0:
        return 0.0
    return w * h / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h)


def slow_precision(
    data: BoxDataset, detections: list[Detections], number: int, ap_rule: Literal["11 points", "area"]
) -> float:
    """VOC's devkit in plain loops: one detection after the other, a flag an object."""
    entries = []
    for i, d in enumerate(detections):
        for box, score, label in zip(d.boxes.tolist(), d.scores.tolist(), d.labels.tolist(), strict=True):
            if label == number:
                entries.append((-score, len(entries), i, box))
    entries.sort()
    taken: set[tuple[int, int]] = set()
    objects = sum(
        label == number and not hard
        for p in data.images
        for label, hard in zip(p.labels.tolist(), p.difficult.tolist(), strict=True)
    )
    if objects == 0:
        return math.nan
    hits = misses = 0
    points: list[tuple[int, float]] = []
    for _, _, i, box in entries:
        best, chosen = -1.0, -1
        for j, other in enumerate(data.images[i].boxes.tolist()):
            if data.images[i].labels[j] == number and overlap(box, other) > best:
                best, chosen = overlap(box, other), j
        if best >= 0.5:
            if data.images[i].difficult[chosen]:
                continue
            if (i, chosen) in taken:
                misses += 1
            else:
                taken.add((i, chosen))
                hits += 1
        else:
            misses += 1
        points.append((hits, hits / (hits + misses)))
    if ap_rule == "11 points":
        highest = [
            max((p for h, p in points if 10 * h >= tenth * objects), default=0.0) for tenth in range(11)
        ]
        return sum(highest) / 11
    area = 0.0
    for h in range(1, objects + 1):
        area += max((p for reached, p in points if reached >= h), default=0.0) / objects
    return area


def slow_imagenet_precisions(data: BoxDataset, detections: list[Detections]) -> list[float]:
    """ImageNet's development kit (eval_detection and VOCap) in plain loops, image by image."""
    right: list[list[bool]] = [[] for _ in CLASSES]
    scores: list[list[float]] = [[] for _ in CLASSES]
    objects = [0] * len(CLASSES)
    for one, d in zip(data.images, detections, strict=True):
        truth = list(zip(one.boxes.tolist(), one.labels.tolist(), strict=True))
        free = [True] * len(truth)
        for _, label in truth:
            objects[label] += label not in one.unjudged
        for j in sorted(range(len(d)), key=lambda j: -d.scores[j].item()):
            label = int(d.labels[j])
            if label in one.unjudged:
                continue
            best, chosen = -1.0, -1
            for k, (box, of) in enumerate(truth):
                if of != label or not free[k]:
                    continue
                width, height = box[2] - box[0], box[3] - box[1]
                threshold = min(0.5, width * height / ((width + 10) * (height + 10)))
                shared = overlap(d.boxes[j].tolist(), box)
                if shared >= threshold and shared > best:
                    best, chosen = shared, k
            if chosen >= 0:
                free[chosen] = False
            right[label].append(chosen >= 0)
            scores[label].append(d.scores[j].item())
    precisions = []
    for label, count in enumerate(objects):
        order = sorted(range(len(scores[label])), key=lambda n: -scores[label][n])
        recalls, heights, hits = [0.0], [0.0], 0
        for seen, n in enumerate(order, start=1):
            hits += right[label][n]
            recalls.append(hits / count if count else math.nan)
            heights.append(hits / seen)
        recalls.append(1.0)
        heights.append(0.0)
        for n in range(len(heights) - 2, -1, -1):
            heights[n] = max(heights[n], heights[n + 1])
        area = sum((b - a) * h for a, b, h in zip(recalls, recalls[1:], heights[1:], strict=False))
        precisions.append(area if count else math.nan)
    return precisions


@pytest.mark.parametrize("ap_rule", ["11 points", "area", "imagenet"])
@pytest.mark.parametrize("seed", range(12))
def test_agrees_with_loops_on_random_cases(seed: int, ap_rule: APRule) -> None:
    random = torch.Generator().manual_seed(seed)

    def number(low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=random))

    images, detections = [], []
    for _ in range(number(1, 9)):
        corners = torch.randint(0, 60, (number(0, 6), 2), generator=random).float()
        # ImageNet's threshold is a lower one for sides below 25.
        sides = torch.randint(8 if ap_rule != "imagenet" else 2, 40, corners.shape, generator=random).float()
        boxes = torch.cat([corners, corners + sides], dim=1)
        # The last class has no objects.
        labels = torch.randint(0, 2, (len(boxes),), generator=random)
        hard = torch.rand(len(boxes), generator=random) < (0.3 if ap_rule != "imagenet" else 0)
        image = annotated(boxes.tolist(), labels.tolist(), hard.tolist())
        unjudged = (number(0, 2),) if ap_rule == "imagenet" and number(0, 4) == 0 else ()
        images.append(replace(image, unjudged=unjudged))
        # Several detections of an object, near it or not, few distinct scores so that many tie.
        near = boxes.repeat(number(0, 4), 1)
        near = near + torch.randint(-4, 5, near.shape, generator=random)
        other = torch.cat([corners.flip(0), corners.flip(0) + 20.0], dim=1)
        every = torch.cat([near, other])
        every[:, 2:] = torch.maximum(every[:, 2:], every[:, :2] + 1)
        scores = torch.randint(1, 5, (len(every),), generator=random) / 4
        marks = torch.cat([labels.repeat(len(near) // max(len(boxes), 1)), labels.flip(0)])
        wrong = torch.rand(len(every), generator=random) < 0.2
        marks = torch.where(wrong, torch.randint(0, 3, marks.shape, generator=random), marks)
        detections.append(Detections(every, scores, marks))
    data = dataset(*images)
    results = voc_ap(data, detections, ap_rule)
    if ap_rule == "imagenet":
        expected = slow_imagenet_precisions(data, detections)
    else:
        expected = [slow_precision(data, detections, k, ap_rule) for k in range(3)]
    for result, value in zip(results, expected, strict=True):
        assert result.average_precision == pytest.approx(value, abs=1e-12, nan_ok=True)
    known = [v for v in expected if not math.isnan(v)]
    if known:
        assert mean_ap(results) == pytest.approx(sum(known) / len(known))


def test_a_case_by_hand() -> None:
    """Two objects; right (0.9), wrong (0.8), twice (0.7), right (0.6): precisions 1, 1/2, 1/3, 2/4."""
    data = dataset(annotated([[0, 0, 10, 10], [50, 50, 60, 60]], [0, 0]))
    boxes = [[0, 0, 10, 10], [20, 20, 30, 30], [0, 0, 10, 9], [50, 50, 60, 60]]
    (result, *_) = voc_ap(data, [found(boxes, [0.9, 0.8, 0.7, 0.6], [0] * 4)], "area")
    assert result.precision.tolist() == pytest.approx([1, 1 / 2, 1 / 3, 1 / 2])
    assert result.recall.tolist() == [0.5, 0.5, 0.5, 1.0]
    assert result.average_precision == pytest.approx(0.5 * 1 + 0.5 * 0.5)
    (result, *_) = voc_ap(data, [found(boxes, [0.9, 0.8, 0.7, 0.6], [0] * 4)], "11 points")
    # Recalls 0 to 0.5 have precision 1, 0.6 to 1 have 1/2.
    assert result.average_precision == pytest.approx((6 * 1 + 5 * 0.5) / 11)


def test_imagenets_threshold_is_lower_for_small_objects() -> None:
    """The readme's example: 10 x 10 pixels in 20 x 20 overlap by 0.25, and so much is asked for there."""
    small, large = annotated([[5, 5, 15, 15]], [0]), annotated([[0, 0, 50, 50]], [0])
    for object_, box, values in (
        (small, [0.0, 0, 20, 20], (0, 1)),
        (small, [0.0, 0, 20, 21], (0, 0)),
        # 50 x 50 of 60 x 60 is more than a half: 0.5 for all larger ones.
        (large, [0.0, 0, 50, 25], (1, 1)),
        (large, [0.0, 0, 50, 24], (0, 0)),
    ):
        rules: tuple[APRule, ...] = ("area", "imagenet")
        aps = [voc_ap(dataset(object_), [found([box], [0.9], [0])], rule)[0] for rule in rules]
        assert tuple(ap.average_precision for ap in aps) == values


def test_imagenet_gives_a_detection_to_the_object_that_is_left() -> None:
    """Of three detections, all nearest to the first of two objects, VOC has one right and ImageNet two."""
    truth = annotated([[0, 0, 40, 40], [0, 4, 40, 44]], [0, 0])
    boxes = [[0.0, 0, 40, 40], [0.0, 1, 40, 41], [0.0, 0, 40, 41]]
    three = found(boxes, [0.9, 0.8, 0.7], [0, 0, 0])
    (voc, *_), (imagenet, *_) = (voc_ap(dataset(truth), [three], rule) for rule in ("area", "imagenet"))
    assert (voc.average_precision, imagenet.average_precision) == (0.5, 1)
    assert imagenet.precision.tolist() == [1, 1, 2 / 3]
    assert judge(truth, three, 0.5).false.tolist() == [False, True, True]
    judged = judge(truth, three, 0.5, "imagenet")
    assert judged.false.tolist() == [False, False, True]
    assert judged.missed.tolist() == [False, False]


def test_what_is_not_judged_on_an_image_is_nothing_there() -> None:
    truth = replace(annotated([[0, 0, 40, 40], [50, 50, 90, 90]], [0, 1]), unjudged=(0,))
    other = annotated([[0, 0, 40, 40]], [0])
    boxes = [[0.0, 0, 40, 40], [50.0, 50, 90, 90]]
    ours = [found(boxes, [0.9, 0.8], [0, 0]), found(boxes[:1], [0.7], [0])]
    first, second, _ = voc_ap(dataset(truth, other), ours, "imagenet")
    assert (first.objects, first.precision.tolist()) == (1, [1])
    assert (second.objects, second.average_precision) == (1, 0)
    judged = judge(truth, ours[0], 0.5, "imagenet")
    assert (len(judged.shown), judged.missed.tolist()) == (0, [False, True])
    classes = coco_ap(dataset(truth, other), ours)["classes"]
    assert (classes["a"]["AP50"], classes["b"]["AP50"]) == (pytest.approx(1), 0)


@pytest.mark.parametrize("rule", ["area", "11 points", "imagenet"])
def test_what_lies_in_a_crowd_is_no_mistake(rule: APRule) -> None:
    """As pycocotools counts: each detection that is of no object and lies in the crowd by a half or more."""
    truth = annotated([[0, 0, 40, 40], [0, 0, 100, 100], [0, 0, 100, 100]], [0, 0, 1])
    truth = replace(truth, crowd=torch.tensor([False, True, False]))
    boxes = [
        *([50, 50, 60, 60], [70, 70, 80, 80]),  # in the crowd
        [95, 0, 105, 10],  # a half of it
        [0, 0, 40, 40],  # the object, which lies in the crowd too
        [96, 0, 106, 10],  # less than a half
    ]
    ours = found(boxes, [0.9, 0.8, 0.7, 0.6, 0.5], [0] * 5)
    (first, second, _) = voc_ap(dataset(truth), [ours], rule)
    assert (first.objects, second.objects) == (1, 1)
    assert first.scores.tolist() == pytest.approx([0.6, 0.5])
    assert first.precision.tolist() == [1, 0.5]
    assert first.average_precision == 1
    assert coco_ap(dataset(truth), [ours])["classes"]["a"]["AP50"] == pytest.approx(1)
    judged = judge(truth, ours, 0.5, rule)
    assert judged.false.tolist() == [False, False, False, False, True]
    assert judged.missed.tolist() == [False, False, True]
    # A crowd of another class hides nothing.
    other = voc_ap(dataset(truth), [replace(ours, labels=torch.ones(5, dtype=torch.int64))], rule)[1]
    assert len(other.scores) == 5


def test_a_tenth_of_the_recall_is_reached_exactly() -> None:
    """3 of 10 objects is a recall of 0.3, however 0.3 is rounded."""
    boxes = [[10.0 * i, 0.0, 10.0 * i + 8, 8.0] for i in range(10)]
    data = dataset(annotated(boxes, [0] * 10))
    (result, *_) = voc_ap(data, [found(boxes[:3], [0.9, 0.8, 0.7], [0] * 3)], "11 points")
    assert result.average_precision == pytest.approx(4 / 11)


def test_nothing_found_and_nothing_there() -> None:
    data = dataset(annotated([[0, 0, 10, 10]], [1]), annotated([], []))
    nothing = found([], [], [])
    results = voc_ap(data, [nothing, nothing], "area")
    assert [r.objects for r in results] == [0, 1, 0]
    assert math.isnan(results[0].average_precision)
    assert mean_ap(results) == 0
    assert math.isnan(mean_ap(results[:1]))
    coco = coco_ap(data, [nothing, nothing])
    assert coco["AP"] == 0
    assert math.isnan(coco["classes"]["a"]["AP"])


def test_coco_on_cases_by_hand() -> None:
    data = dataset(annotated([[0, 0, 50, 50], [60, 60, 80, 80]], [0, 1]))
    perfect = coco_ap(data, [found([[0, 0, 50, 50], [60, 60, 80, 80]], [0.9, 0.8], [0, 1])])
    assert [perfect[key] for key in ("AP", "AP50", "AP75")] == pytest.approx([1, 1, 1])
    # 20 x 20 is small, 50 x 50 is medium, nothing is large.
    assert perfect["APs"] == pytest.approx(1)
    assert math.isnan(perfect["APl"])
    # 50 x 40 of 50 x 50: an overlap of 0.8 counts at 0.5, 0.55, ..., 0.8.
    partly = coco_ap(data, [found([[0, 0, 50, 40], [60, 60, 80, 80]], [0.9, 0.8], [0, 1])])
    assert partly["classes"]["a"]["AP"] == pytest.approx(0.7)
    assert partly["classes"]["a"]["AP75"] == pytest.approx(1)
    assert partly["classes"]["b"]["AP"] == pytest.approx(1)


def test_coco_takes_difficult_objects_for_crowds() -> None:
    data = dataset(annotated([[0, 0, 50, 50], [60, 60, 80, 80]], [0, 0], [False, True]))
    boxes = [[60, 60, 80, 80], [0, 0, 50, 50]]
    assert coco_ap(data, [found(boxes, [0.9, 0.8], [0, 0])])["AP"] == pytest.approx(1)


def test_misses_and_false_alarms_of_an_image() -> None:
    truth = annotated(
        [[0, 0, 20, 20], [40, 40, 60, 60], [70, 0, 90, 20], [0, 70, 20, 90]],
        [0, 0, 1, 0],
        [False, False, False, True],
    )
    # In turn: right; a second one of the same object; of the difficult one, twice; another class; too unsure.
    boxes = [
        [0, 0, 20, 20],
        [1, 1, 20, 20],
        [0, 70, 20, 90],
        [0, 71, 20, 90],
        [70, 0, 90, 20],
        [40, 40, 60, 60],
    ]
    judged = judge(truth, found(boxes, [0.9, 0.8, 0.8, 0.7, 0.6, 0.4], [0, 0, 0, 0, 0, 0]), 0.5)
    assert len(judged.shown) == 5
    assert judged.false.tolist() == [False, True, False, False, True]
    assert judged.missed.tolist() == [False, True, True, False]
    nothing = judge(truth, found([], [], []), 0.5)
    assert nothing.missed.tolist() == [True, True, True, False]
    assert nothing.false.tolist() == []
