"""How anchors fit objects: against all anchors looked at one by one, and cases by hand."""

from pathlib import Path

import pytest
import torch
from conftest import sentence_of
from detectors import small_detector
from torchvision.ops import box_iou

from residual.data.boxes import AnnotatedImage, BoxDataset
from residual.detection.anchors import _cures, advice, anchor_fits, best_overlaps, fit_table, objects_of
from residual.recipes.detection import DETECTION, Boxes, Detector
from residual.recipes.schema import Model

DATA = Boxes(layout="voc", train=("train",), shorter_side=96, longer_side=96)


def detector(**numbers: object) -> Detector:
    return Detector.model_validate({"backbone": Model(name="resnet18"), **numbers})


def dataset(*objects: tuple[str, float, float, float, float], side: int = 96) -> BoxDataset:
    """Return one image a given box, of square images, classes in alphabetical order."""
    classes = sorted({name for name, *_ in objects})
    no = torch.zeros(1, dtype=torch.bool)
    images = [
        AnnotatedImage(
            *(str(n), Path("x"), (side, side), torch.tensor([box]), torch.tensor([classes.index(name)])),
            *(no, no, torch.ones(1)),
        )
        for n, (name, *box) in enumerate(objects)
    ]
    return BoxDataset("voc", ("train",), tuple(classes), tuple(images), (), tuple(range(len(classes))))


@pytest.mark.parametrize("inside", [True, False])
def test_the_best_anchor_is_the_best_of_all(inside: bool) -> None:
    model = small_detector(anchor_sizes=(12, 24, 40), aspect_ratios=(0.5, 1.0, 2.0))
    stride = model.backbone.stride
    width, height = 40 * stride + 1, 28 * stride
    random = torch.Generator().manual_seed(0)
    corners = torch.rand(200, 2, generator=random) * torch.tensor([width, height]) * 0.8
    boxes = torch.cat([corners, corners + 4 + 40 * torch.rand(200, 2, generator=random)], dim=1).double()
    anchors = model.grid_anchors(28, 41).double()
    if inside:
        within = (anchors[:, :2] >= 0).all(1) & (anchors[:, 2] <= width) & (anchors[:, 3] <= height)
        anchors = anchors[within]
    numbers = detector(anchor_sizes=(12, 24, 40), ignore_cross_boundary_anchors=inside)
    sizes = torch.tensor([[width, height]]).expand(200, 2).double()
    found = best_overlaps(boxes, sizes, numbers, stride)
    assert found.median() > 0.3
    torch.testing.assert_close(found, box_iou(boxes, anchors).amax(dim=1))


def test_a_class_of_small_objects_is_told_with_its_cure() -> None:
    """Anchors of 32 x 32 around 8, 24, 40, ...: (8, 8, 40, 40) is one, (16, 16, 32, 32) a quarter of it."""
    numbers = detector(anchor_sizes=[32], aspect_ratios=[1], min_size=16)
    data = dataset(
        *(("big", 8.0, 8.0, 40.0, 40.0),) * 3,
        *(("tiny", 16.0, 16.0, 32.0, 32.0), ("tiny", 16.0, 16.0, 31.0, 32.0), ("tiny", 8.0, 8.0, 40.0, 40.0)),
    )
    objects = objects_of(data, DATA, 16)
    big, tiny = fits = anchor_fits(objects, numbers)
    assert (big.objects, big.images, big.median, big.below, big.small) == (3, 3, 1.0, 0.0, 0)
    assert (tiny.objects, tiny.images, tiny.median, tiny.small) == (3, 3, 0.25, 1)
    assert tiny.below == pytest.approx(2 / 3)
    rows = [tuple(row.cells) for row in fit_table(fits, numbers).rows]
    assert rows == [("big", "3", "3", "1.00", "0 %", "0"), ("tiny", "3", "3", "0.25", "67 %", "1")]
    told = advice(fits, data, objects, numbers, DATA)
    assert told is not None
    assert told.startswith("tiny will hardly be found")
    assert told.endswith("cured by --set 'detector.anchor_sizes=[16,32]'")
    # A detector that goes on has as many anchors as it had.
    told = str(advice(fits, data, objects, numbers, DATA, more_anchors=False))
    assert "anchor_sizes" not in told
    assert told.endswith("larger images or more anchors, from a classifier's weights, may help")
    # The cure is one.
    cured = numbers.model_copy(update={"anchor_sizes": (16.0, 32.0)})
    again = anchor_fits(objects, cured)
    assert [fit.median for fit in again] == [1, 1]
    # Without a smallest proposal there is nothing to tell of it.
    everything = fit_table(fits, numbers.model_copy(update={"min_size": 0.0}))
    assert len(everything.headings) == len(everything.rows[0].cells) == 5
    assert advice(again, data, objects, cured, DATA) is None


def test_objects_below_the_smallest_proposal_are_told() -> None:
    numbers = detector(anchor_sizes=[8, 32], aspect_ratios=[1])
    data = dataset(*(("dot", 20.0, 20.0, 28.0, 28.0),) * 2)
    objects = objects_of(data, DATA, 16)
    fits = anchor_fits(objects, numbers)
    assert (fits[0].median, fits[0].small) == (1.0, 2)
    assert "--set 'detector.min_size=0.0'" in str(advice(fits, data, objects, numbers, DATA))


def test_objects_as_large_as_their_image_need_anchors_over_its_edge() -> None:
    """64 x 64 is the largest of these anchors that lies on 96 x 96; 128 x 128 reaches over it."""
    numbers = detector(anchor_sizes=[32, 64], aspect_ratios=[1])
    data = dataset(*(("all", 0.0, 0.0, 96.0, 96.0),) * 2)
    objects = objects_of(data, DATA, 16)
    fits = anchor_fits(objects, numbers)
    assert fits[0].median == pytest.approx(64**2 / 96**2)
    told = str(advice(fits, data, objects, numbers, DATA))
    assert "detector.ignore_cross_boundary_anchors=false" in told
    assert "detector.anchor_sizes=[32,64,128]" in told


def test_anchors_of_which_none_lies_on_the_images_are_refused() -> None:
    """128 to 512 on 72 pixels: nothing would be learned, and every loss of the proposals would be 0."""
    data = dataset(("dog", 0.0, 0.0, 72.0, 72.0), side=72)
    small = Boxes(layout="voc", train=("train",), shorter_side=72, longer_side=72)
    said = sentence_of(lambda: anchor_fits(objects_of(data, small, 16), detector()))
    assert "no anchor of 128, 256, 512 pixels lies on the images" in said
    assert "at most 72" in said
    assert "set detector.anchor_sizes" in said
    over = detector(ignore_cross_boundary_anchors=False)
    assert anchor_fits(objects_of(data, small, 16), over)[0].median == pytest.approx(72**2 / 128**2, abs=1e-3)


def test_the_defaults_find_objects_of_three_sizes_and_the_papers_do_not() -> None:
    """Sides of 5, 20 and 80 of 100 pixels, which are 30, 120 and 480 where the shorter side is 600."""
    objects = []
    for name, side in (("bee", 5.0), ("cat", 20.0), ("cow", 80.0)):
        for place in (0.0, 3.0, 7.0, 11.0, 100 - side):
            objects.append((name, place, 100 - side - place, place + side, 100 - place))
    made = dataset(*objects, side=100)
    fits, bad = {}, {}
    for name in ("voc-finetune", "voc07+12-resnet101"):
        recipe = DETECTION[name]
        seen = objects_of(made, recipe.data, 16)
        fits[name] = anchor_fits(seen, recipe.detector)
        bad[name] = [fit.name for fit in fits[name] if fit.is_bad]
        told = advice(fits[name], made, seen, recipe.detector, recipe.data)
        assert (told is None) == (not bad[name])
    assert bad == {"voc-finetune": [], "voc07+12-resnet101": ["bee"]}
    assert min(fit.median for fit in fits["voc-finetune"]) > 0.5


def test_what_no_recipe_may_have_is_no_cure() -> None:
    data = dataset(("dog", 0.0, 0.0, 4.0, 4.0), side=5000)
    large = Boxes(layout="voc", train=("train",), shorter_side=5000, longer_side=5000)
    config = detector(anchor_sizes=(32.0,), min_size=0.0, ignore_cross_boundary_anchors=False)
    bad = anchor_fits(objects_of(data, large, 16), config)
    tried = [boxes.longer_side for _, boxes in _cures(bad, config, large, True)]
    assert 7500 in tried
    assert max(tried) <= 8192
