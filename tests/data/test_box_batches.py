"""Annotated images as training batches: boxes follow their image."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from residual.data.box_batches import BoxBatches, CropBatches, load, whole
from residual.data.boxes import AnnotatedImage, BoxDataset
from residual.data.crops import ScaleCrop
from residual.data.masks import encode
from residual.errors import InputError


@pytest.fixture
def annotated(tmp_path: Path) -> AnnotatedImage:
    Image.new("RGB", (80, 60)).save(tmp_path / "a.png")
    boxes = torch.tensor([[8.0, 6, 20, 30], [0, 0, 40, 60], [40, 0, 80, 60]])
    flags = torch.tensor([False, True, False]), torch.tensor([False, False, True])
    return AnnotatedImage(
        "a", tmp_path / "a.png", (80, 60), boxes, torch.tensor([2, 1, 0]), *flags, torch.ones(3)
    )


def test_boxes_follow_their_image(annotated: AnnotatedImage) -> None:
    loaded = load(annotated, whole(lambda w, h: (w // 2, h // 2)), flipped=False, seed=1)
    assert loaded.image.shape == (3, 30, 40)
    # The difficult object is not learned; the crowd is neither object nor background.
    assert loaded.boxes.tolist() == [[4, 3, 10, 15]]
    assert loaded.labels.tolist() == [2]
    assert loaded.crowds.tolist() == [[20, 0, 40, 30]]
    flipped = load(annotated, whole(lambda w, h: (w // 2, h // 2)), flipped=True, seed=1)
    assert flipped.boxes.tolist() == [[30, 3, 36, 15]]


def test_boxes_are_cut_where_a_part_of_the_image_ends(tmp_path: Path) -> None:
    Image.new("RGB", (80, 60)).save(tmp_path / "a.png")
    boxes = torch.tensor([[8.0, 6, 40, 40], [50, 10, 70, 30], [50.5, 10, 70.5, 30], [61, 0, 80, 9]])
    flags = torch.zeros(4, dtype=torch.bool)
    labels = torch.tensor([1, 1, 1, 1])
    image = AnnotatedImage("a", tmp_path / "a.png", (80, 60), boxes, labels, flags, flags, torch.ones(4))

    def part(width: int, height: int) -> tuple[tuple[float, float, float, float], tuple[int, int]]:
        assert (width, height) == (80, 60)
        return (20.0, 20.0, 60.0, 60.0), (80, 80)

    seen = load(image, part, False, 1)
    assert seen.height_width == (80, 80)
    # Twice as large; of the second box a quarter is left, of the third less, of the fourth nothing.
    assert seen.boxes.tolist() == [[0, 0, 40, 40], [60, 0, 80, 20]]
    assert seen.crowds.tolist() == [[61, 0, 80, 20]]
    assert seen.labels.tolist() == [1, 1]
    assert seen.whole.tolist() == [1, 1, 1, 1]
    assert load(image, part, True, 1).boxes.tolist() == [[40, 0, 80, 40], [0, 0, 20, 20]]


def test_crops_are_a_function_of_the_iteration(annotated: AnnotatedImage) -> None:
    data = BoxDataset("imagenet", ("train",), ("a", "b", "c"), (annotated,) * 6, (), (1, 2, 3))

    def batches(rank: int = 0, ranks: int = 1) -> CropBatches:
        return CropBatches(data, ScaleCrop(32, 40, 60), 4, True, 3, rank, ranks)

    first = batches()
    drawn = [first(iteration) for iteration in range(2)]
    assert {image.height_width for batch in drawn for image in batch} == {(32, 32)}
    again = [image for rank in range(2) for image in batches(rank, 2)(1)]
    for one, other in zip(drawn[1], again, strict=True):
        assert torch.equal(one.image, other.image)
        assert torch.equal(one.boxes, other.boxes)
        assert one.seed == other.seed
    assert len({str(image.crowds.tolist()) for batch in drawn for image in batch}) > 4


def test_images_are_drawn_at_sides_of_a_range(annotated: AnnotatedImage) -> None:
    """Sides from a half to twice an image's, boxes with them; a function of the iteration."""
    data = BoxDataset("voc", ("made",), ("a", "b", "c"), (annotated,) * 6, (), (1, 2, 3))

    def batches(scales: tuple[float, float]) -> BoxBatches:
        def size(width: int, height: int, *, scale: float) -> tuple[int, int]:
            return round(scale * width), round(scale * height)

        return BoxBatches(data, size, 8, True, 3, scales=scales)

    drawn = [image for iteration in range(4) for image in batches((0.5, 2.0))(iteration)]
    widths = [image.image.shape[2] for image in drawn]
    assert len(set(widths)) > 20
    assert 40 <= min(widths) < 60
    assert 130 < max(widths) <= 160
    for image in drawn:
        height, width = image.height_width
        x1, y1, x2, y2 = image.boxes[0].tolist()
        assert (x2 - x1, y2 - y1) == pytest.approx((12 / 80 * width, 24 / 60 * height))
    again = batches((0.5, 2.0))(3)
    assert [image.image.shape for image in again] == [image.image.shape for image in drawn[-8:]]
    # What else is drawn does not depend on it.
    plain = batches((1.0, 1.0))(3)
    assert {image.image.shape for image in plain} == {(3, 60, 80)}
    assert [image.boxes[0, 0] < image.image.shape[2] / 2 for image in plain] == [
        image.boxes[0, 0] < image.image.shape[2] / 2 for image in again
    ]


def test_where_no_image_can_be_read_all_were_tried(annotated: AnnotatedImage) -> None:
    annotated.path.unlink()
    data = BoxDataset("voc", ("made",), ("a", "b", "c"), (annotated,) * 6, (), (1, 2, 3))
    with pytest.raises(InputError, match="none of 6 images in a row can be read"):
        BoxBatches(data, lambda width, height, scale: (width, height), 2, True, 3)(0)


def test_an_image_that_was_read_ahead_and_not_used_is_not_left_out(annotated: AnnotatedImage) -> None:
    """How many count would depend on how far threads have come when a run ends."""
    images = [replace(annotated, id=str(number)) for number in range(12)]
    batches = BoxBatches(
        BoxDataset("voc", ("made",), ("a", "b", "c"), tuple(images), (), (1, 2, 3)),
        lambda width, height, scale: (width, height),
        2,
        True,
        3,
    )
    (bad,) = batches.indices(1)[:1].tolist()
    images[bad] = replace(images[bad], path=annotated.path.with_name("gone.png"))
    batches.dataset = replace(batches.dataset, images=tuple(images))
    batches(0)
    for _, _, futures in batches.prefetch._under_way:
        for future in futures:
            future.result()
    assert not batches.unreadable
    batches(1)
    assert list(batches.unreadable) == [str(bad)]


def test_batches_are_a_function_of_the_iteration_and_shared_by_ranks(annotated: AnnotatedImage) -> None:
    data = BoxDataset("voc", ("made",), ("a", "b", "c"), (annotated,) * 6, (), (1, 2, 3))

    def batches(rank: int = 0, ranks: int = 1) -> BoxBatches:
        return BoxBatches(data, lambda width, height, scale: (width, height), 4, True, 3, rank, ranks)

    whole = batches()
    first = [whole(iteration) for iteration in range(3)]
    again = batches()(2)
    assert [image.seed for image in again] == [image.seed for image in first[2]]
    shared = [image for rank in range(2) for image in batches(rank, 2)(1)]
    assert [p.boxes.tolist() for p in shared] == [p.boxes.tolist() for p in first[1]]
    assert [p.seed for p in shared] == [p.seed for p in first[1]]
    assert len({p.seed for part in first for p in part}) == 12
    assert len({p.boxes[0, 0].item() for part in first for p in part}) == 2


def test_masks_follow_their_image(annotated: AnnotatedImage) -> None:
    """Those of wanted objects, no larger than the network's input; how much of a place is covered."""
    pixels = torch.zeros(1, 60, 80, dtype=torch.uint8)
    pixels[0, 6:30, 8:19] = 1
    mask = encode(pixels[0].numpy())
    masked = replace(annotated, masks=(mask, None, mask))
    small = load(masked, whole(lambda w, h: (w // 2, h // 2)), flipped=False, seed=1)
    assert small.masks is not None
    assert small.masks.sizes.tolist() == [[12 + 2, 6 + 2]]
    assert small.masks.corners.tolist() == [[3, 2]]
    assert small.masks.scale.tolist() == [1, 1]
    covered = small.masks.shares[:-1].view(14, 8)
    assert covered[1:-1, 1:-2].unique().tolist() == [255]
    # Half of the last column.
    assert covered[1:-1, -2].unique().tolist() == [128]
    flipped = load(masked, whole(lambda w, h: (w // 2, h // 2)), flipped=True, seed=1)
    assert flipped.masks is not None
    assert torch.equal(flipped.masks.shares[:-1].view(14, 8), covered.flip(1))
    assert flipped.masks.corners.tolist() == [[40 - 3 - 8, 2]]
    large = load(masked, whole(lambda w, h: (2 * w, 2 * h)), flipped=False, seed=1)
    assert large.masks is not None
    assert large.masks.scale.tolist() == [0.5, 0.5]
    assert large.masks.sizes.tolist() == [[24 + 2, 11 + 2]]
    # An object without one among those with one, and none at all.
    some = load(
        replace(annotated, masks=(mask, None, mask), difficult=torch.zeros(3, dtype=torch.bool)),
        whole(lambda w, h: (w, h)),
        flipped=False,
        seed=1,
    )
    assert some.masks is not None
    assert some.masks.sizes.tolist() == [[26, 13], [0, 0]]
    assert load(annotated, whole(lambda w, h: (w, h)), flipped=False, seed=1).masks is None
