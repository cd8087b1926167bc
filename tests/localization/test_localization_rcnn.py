"""The second stage: regions where they should be, what is learned of them, and how proposals are refined."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import pixels_of, randomise, sentence_of
from PIL import Image
from torch import Tensor
from torchvision.ops import box_iou

from residual.data.boxes import AnnotatedImage, BoxDataset
from residual.detection.backbones import make_backbone
from residual.distributed import World
from residual.localization.model import PerClassRegression
from residual.localization.rcnn import RCNN
from residual.localization.regions import (
    IDENTITY,
    Proposals,
    RegionBatches,
    load_proposals,
    load_region,
    save_proposals,
    warp,
    whole_pixels,
)
from residual.localization.testing import (
    View,
    locate,
    locate_images,
    propose_images,
    true_classes,
)
from residual.models import build_model
from residual.models.frozen import freeze_batch_norm
from residual.models.preprocessing import Preprocessing
from residual.tensors import pack

CLASSES, SIDE = 4, 16
#: Of a wide region, a small one that is enlarged, the whole image, and one at its corner.
REGIONS = [(3, 5, 53, 25), (20, 10, 29, 22), (0, 0, 60, 40), (49, 33, 60, 40)]


@pytest.fixture(scope="module")
def model() -> RCNN:
    torch.manual_seed(0)
    first, second = (randomise(build_model("cifar_resnet8"), seed) for seed in (0, 1))
    for network in (first, second):
        freeze_batch_norm(network)
    preprocessing = Preprocessing(torch.full((3,), 0.5))
    localizer = PerClassRegression(
        make_backbone(first), CLASSES, preprocessing, anchor_sizes=(8, 16), aspect_ratios=(1.0, 2.0)
    )
    made = RCNN(localizer, second, preprocessing, side=SIDE, proposals=5)
    for layer in (localizer.head.cls_logits, localizer.head.bbox_pred, made.cls_score, made.bbox_pred):
        torch.nn.init.normal_(layer.weight, std=0.02)
        assert layer.bias is not None
        torch.nn.init.normal_(layer.bias, std=0.5)
    return made.eval()


def noise(width: int = 60, height: int = 40, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def annotated(path: Path, size: tuple[int, int], boxes: list[list[float]], label: int = 2) -> AnnotatedImage:
    none, corners = torch.zeros(len(boxes), dtype=torch.bool), torch.tensor(boxes)
    labels = torch.full((len(boxes),), label)
    return AnnotatedImage(path.stem, path, size, corners, labels, none, none, torch.ones(len(boxes)))


@pytest.mark.parametrize("region", REGIONS)
def test_regions_are_cropped_and_warped_as_by_pillow(region: Sequence[int], tmp_path: Path) -> None:
    whole = Image.fromarray(noise())
    whole.save(tmp_path / "a.png")
    expected = pixels_of(whole.crop(tuple(region)).resize((28, 28), Image.Resampling.BILINEAR)).int()
    place = torch.tensor(region, dtype=torch.float32)
    assert (warp(pixels_of(whole), place, 28).int() - expected).abs().max() <= 1
    image = annotated(tmp_path / "a.png", (60, 40), [[0, 0, 9, 9]])
    read, flipped = (load_region(image, place, image.boxes, 28, flip, 1).image for flip in (False, True))
    assert (read.int() - expected).abs().max() <= 1
    assert torch.equal(flipped.flip(2), read)


def test_the_whole_object_goes_with_its_region(tmp_path: Path) -> None:
    Image.new("RGB", (60, 40)).save(tmp_path / "a.png")
    image = annotated(tmp_path / "a.png", (60, 40), [[0, 10, 40, 30]])
    region = torch.tensor([20.0, 0, 40, 40])
    # Two pixels for one across, one down; it begins left of the region.
    assert load_region(image, region, image.boxes, 40, False, 1).boxes.tolist() == [[-40, 10, 40, 30]]
    flipped = load_region(image, region, image.boxes, 40, True, 1)
    assert flipped.boxes.tolist() == [[0, 10, 80, 30]]
    assert flipped.whole.tolist() == [2]
    assert "its boxes do not fit it" in sentence_of(
        lambda: load_region(
            annotated(tmp_path / "a.png", (61, 40), [[0, 10, 40, 30]]), region, image.boxes, 40, False, 1
        )
    )


def test_proposals_are_cropped_at_whole_pixels() -> None:
    boxes = torch.tensor([[0.4, 0.6, 9.5, 12.2], [3.1, 3.1, 3.2, 3.3], [29.9, -1, 30, 19.8]])
    assert whole_pixels(boxes, 30, 20).tolist() == [[0, 1, 10, 12], [3, 3, 4, 4], [29, 0, 30, 20]]
    assert whole_pixels(torch.empty(0, 4), 30, 20).tolist() == [[0, 0, 30, 20]]


def slow_nms(boxes: Tensor, scores: Tensor, most: int) -> list[int]:
    overlap, kept = box_iou(boxes, boxes), list[int]()
    for n in scores.argsort(descending=True).tolist():
        if bool((overlap[n, kept] <= 0.7).all()):
            kept.append(n)
    return kept[:most]


def test_a_class_has_proposals_of_its_own(model: RCNN) -> None:
    images = torch.from_numpy(np.stack([noise(24, 20, seed) for seed in (1, 2)])).permute(0, 3, 1, 2)
    labels = torch.tensor([[1, 3], [3, 0]])
    first = model.localizer
    with torch.no_grad():
        found = first.propose(images, labels, 6)
        best, _ = first.locate(images, labels)
        scores, outputs, anchors = first.run_head(first.preprocessing(images), labels)
    assert len(found) == 4
    for n, boxes in enumerate(found):
        image, asked = divmod(n, 2)
        assert len(boxes) == 6
        if bool((best[image, asked, 2:] > best[image, asked, :2]).all()):
            torch.testing.assert_close(boxes[0], best[image, asked])
        sides = anchors[:, 2:] - anchors[:, :2]
        moved = outputs[image, asked]
        middles = (anchors[:, :2] + anchors[:, 2:]) / 2 + moved[:, :2] * sides
        # A box is at most a thousand pixels from an anchor of sixteen.
        halves = sides * moved[:, 2:].clamp(max=math.log(1000 / 16)).exp() / 2
        every = torch.cat([middles - halves, middles + halves], dim=1)
        every = torch.minimum(every.clamp(min=0), torch.tensor([24.0, 20, 24, 20]))
        there = ((every[:, 2:] - every[:, :2]) > 0).all(dim=1).nonzero()[:, 0]
        kept = slow_nms(every[there], scores[image, asked][there], 6)
        torch.testing.assert_close(boxes, every[there][kept])


def test_each_image_keeps_its_proposals(model: RCNN, tmp_path: Path) -> None:
    """In its own pixels: they begin with what the localizer says of it; a damaged one has none."""
    images = []
    for number, size in enumerate([(30, 20), (24, 36), (20, 20)]):
        path = tmp_path / f"{number}.png"
        Image.fromarray(noise(*size, seed=number)).save(path)
        images.append(annotated(path, size, [[2, 2, 9, 9]], label=number))
    images[2].path.write_bytes(b"nothing")
    dataset = BoxDataset("imagenet", ("train",), ("a", "b", "c"), tuple(images), (), (1, 2, 3))
    view, done = View(28, dense=True), list[int]()
    found, unusable = propose_images(model.localizer, dataset, view, 4, progress=done.append)
    assert list(unusable) == [images[2].id]
    assert found.counts.tolist() == [4, 4, 0]
    assert done[-1] == 2
    located = locate_images(model.localizer, dataset, true_classes(dataset), view)
    for number in range(2):
        best, boxes = located.boxes[number, 0], found.of(number)
        assert bool((boxes >= 0).all())
        assert bool((boxes[:, 2:] <= torch.tensor(images[number].size) + 1e-4).all())
        if bool((best[2:] - best[:2] > 0).all()):
            torch.testing.assert_close(boxes[0], best)
    # A rank of two looks at its half; the others' are added to it.
    alone, _ = propose_images(model.localizer, dataset, view, 4, SecondOfTwo(1, 2))
    assert alone.counts.tolist() == [0, 4, 0]
    torch.testing.assert_close(alone.boxes, found.of(1))
    # Of two stages: what is found on an image among others is what is found on it alone.
    every = locate_images(model, dataset, true_classes(dataset), view)
    pixels = pixels_of(Image.open(images[1].path))
    seen, place = view.of(pixels)
    with torch.no_grad():
        box, score = locate(model, seen[None], [place], torch.tensor([[1]]), [pixels])
    torch.testing.assert_close(every.boxes[1], box[0])
    torch.testing.assert_close(every.scores[1], score[0])


def test_proposals_come_back_to_their_own_images(model: RCNN) -> None:
    """Two images of one shape as they are seen, one of them twice as large, and two classes of each."""
    images = [pixels_of(Image.fromarray(noise(*size))) for size in ((30, 20), (60, 40))]
    seen, places = zip(*map(View(28, dense=True).of, images), strict=True)
    labels = torch.tensor([[1, 3], [0, 2]])
    with torch.no_grad():
        boxes, scores = locate(model, torch.stack(seen), places, labels, images)
        for n in range(2):
            box, score = locate(model, seen[n][None], places[n : n + 1], labels[n : n + 1], images[n : n + 1])
            torch.testing.assert_close(boxes[n], box[0])
            torch.testing.assert_close(scores[n], score[0])


class SecondOfTwo(World):
    """The second of two ranks, that hears nothing of the first."""

    def sum_(self, tensor: Tensor) -> Tensor:
        return tensor

    def gather(self, value: Any) -> list[Any]:
        return [value]


def test_a_region_teaches_its_class_where_its_object_is(model: RCNN, tmp_path: Path) -> None:
    Image.fromarray(noise()).save(tmp_path / "a.png")
    there = annotated(tmp_path / "a.png", (60, 40), [[10, 10, 40, 30]])
    other = annotated(tmp_path / "a.png", (60, 40), [[0, 0, 9, 9]], label=0)
    region = torch.tensor([14.0, 8, 44, 28])
    seen = [
        load_region(there, region, there.boxes, SIDE, False, 1),
        load_region(other, torch.tensor([30.0, 20, 50, 40]), torch.empty(0, 4), SIDE, False, 1),
    ]
    losses = model.train()(seen)
    model.zero_grad()
    losses.sum().backward()
    model.eval()
    with torch.no_grad():
        features = model.network(model.preprocessing(torch.stack([one.image for one in seen])))
        scores = (features @ model.cls_score.weight.T + model.cls_score.bias).tolist()
        outputs = (features @ model.bbox_pred.weight.T + model.bbox_pred.bias).view(2, CLASSES, 4).tolist()
    # -log p of an object of class 2, and -log(1 - p) of none of class 0.
    classified = math.log1p(math.exp(-scores[0][2])) + math.log1p(math.exp(scores[1][0]))
    # Targets in units of 0.1 and 0.2: the object is 4 pixels left of the region and 2 below.
    targets = [10 * -4 / 30, 10 * 2 / 20, 5 * math.log(30 / 30), 5 * math.log(20 / 20)]
    apart = [abs(out - target) for out, target in zip(outputs[0][2], targets, strict=True)]
    moved = sum(0.5 * d * d if d < 1 else d - 0.5 for d in apart)
    assert losses.tolist() == pytest.approx([classified, moved], rel=1e-4)
    # Of the region that is no object only the score is learned; the other classes learn nothing.
    for layer, rows in (
        (model.cls_score, [True, False, True, False]),
        (model.bbox_pred, [False, False, True]),
    ):
        assert layer.weight.grad is not None
        taught = layer.weight.grad.unflatten(0, (CLASSES, -1)).abs().sum(dim=(1, 2)) > 0
        assert taught.tolist()[: len(rows)] == rows
    assert all(parameter.grad is None for parameter in model.localizer.parameters())
    model.zero_grad()


def test_the_surest_region_moves(model: RCNN) -> None:
    images = [
        torch.from_numpy(noise(60, 40)).permute(2, 0, 1),
        torch.from_numpy(noise(33, 50)).permute(2, 0, 1),
    ]
    labels = torch.tensor([[2, 0], [1, 1]])
    every = torch.tensor(REGIONS, dtype=torch.float32)
    proposals = [every, every[1:3] + 0.2, every[:2] / 2, torch.empty(0, 4)]
    with torch.no_grad():
        boxes, scores = model.refine(images, proposals, labels)
        for n, given in enumerate(proposals):
            image, label = images[n // 2], int(labels.flatten()[n])
            height, width = image.shape[1:]
            best: tuple[float, list[float]] = (-1, [])
            for x1, y1, x2, y2 in whole_pixels(given, width, height).tolist():
                square = warp(image, torch.tensor([x1, y1, x2, y2]), SIDE)
                features = model.network(model.preprocessing(square[None]))[0]
                score = float(
                    (model.cls_score.weight[label] @ features + model.cls_score.bias[label]).sigmoid()
                )
                rows = slice(4 * label, 4 * label + 4)
                dx, dy, dw, dh = (
                    model.bbox_pred.weight[rows] @ features + model.bbox_pred.bias[rows]
                ).tolist()
                x, y = (x1 + x2) / 2 + dx / 10 * (x2 - x1), (y1 + y2) / 2 + dy / 10 * (y2 - y1)
                w, h = (x2 - x1) * math.exp(dw / 5), (y2 - y1) * math.exp(dh / 5)
                corners = [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
                edges = [width, height, width, height]
                cut = [min(max(c, 0), edge) for c, edge in zip(corners, edges, strict=True)]
                best = max(best, (score, cut))
            assert float(scores.flatten()[n]) == pytest.approx(best[0], abs=1e-4)
            assert boxes.flatten(0, 1)[n].tolist() == pytest.approx(best[1], abs=1e-2)


def batches(folder: Path, rank: int = 0, ranks: int = 1) -> RegionBatches:
    """Return batches of eight of four images; the third has no proposal on its object."""
    images = []
    for number in range(4):
        path = folder / f"{number}.png"
        Image.fromarray(noise(seed=number)).save(path)
        images.append(annotated(path, (60, 40), [[10, 10, 30, 30]], label=number % 2))
    data = BoxDataset("imagenet", ("train",), ("a", "b"), tuple(images), (), (1, 2))
    boxes = torch.tensor([[11.0, 9, 31, 29], [40, 20, 60, 40], [8, 10, 28, 30], [0, 0, 60, 40]])
    made = RegionBatches(data, 24, 8, True, 3, rank, ranks)
    counts = torch.tensor([4, 4, 1, 0])
    made.proposals = Proposals(torch.cat([boxes, boxes, boxes[1:2]]), counts)
    return made


def test_a_quarter_of_all_regions_are_objects(tmp_path: Path) -> None:
    made = batches(tmp_path)
    objects = 0
    for iteration in range(6):
        for image, position in zip(made(iteration), made.indices(iteration).tolist(), strict=True):
            assert image.height_width == (24, 24)
            assert image.whole.tolist() == [position % 2]
            assert position < 2 or not len(image.boxes)
            objects += len(image.boxes)
            for box in image.boxes:
                # The region that it is in overlaps it by a half at least.
                square = torch.tensor([[0.0, 0, 24, 24]])
                assert float(box_iou(box[None], square)) >= 0.5
    # A quarter of 48 are asked to be; half of the images have none.
    assert 2 <= objects <= 10
    made.close()


def test_batches_are_a_function_of_the_iteration_and_shared_by_ranks(tmp_path: Path) -> None:
    whole, again, second = batches(tmp_path), batches(tmp_path), batches(tmp_path, 1, 2)
    whole(0)
    for seen, other in zip(whole(1), again(1), strict=True):
        assert torch.equal(seen.image, other.image)
        assert torch.equal(seen.boxes, other.boxes)
    assert all(
        torch.equal(seen.image, other.image) for seen, other in zip(again(2)[4:], second(2), strict=True)
    )
    for made in (whole, again, second):
        made.close()


def test_proposals_are_kept(tmp_path: Path) -> None:
    boxes, file = torch.rand(5, 4), tmp_path / "proposals.safetensors"
    save_proposals(file, Proposals(boxes, torch.tensor([2, 0, 3])), "mine")
    kept = load_proposals(file, "mine")
    assert kept is not None
    assert len(kept) == 3
    assert [kept.of(n).tolist() for n in range(3)] == [boxes[:2].tolist(), [], boxes[2:].tolist()]
    # Another localizer's, or of other images.
    assert load_proposals(file, "another") is None
    nowhere = boxes.clone()
    nowhere[3, 2] = float("nan")
    for wrong, counts in ((boxes, [2, 4]), (boxes, [2**62, 2**62, 2**62, 2**62 + 5]), (nowhere, [2, 3])):
        file.write_bytes(pack({"boxes": wrong, "counts": torch.tensor(counts)}, {IDENTITY: "mine"}))
        said = sentence_of(lambda: load_proposals(file, "mine"))
        assert "its numbers do not fit each other); remove it, and go on" in said
