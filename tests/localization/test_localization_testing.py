"""What is seen of an image, and how boxes come back from there; guessed classes by name."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import randomise, sentence_of
from located import WNIDS, write_tiny
from PIL import Image
from torch import Tensor

from residual.data.boxes import AnnotatedImage, BoxDataset
from residual.data.located import load_located
from residual.evaluation.views import make_views
from residual.localization.testing import (
    View,
    errors_of,
    guessed_classes,
    locate_images,
    mean_box,
    middle_boxes,
    true_classes,
)
from residual.models import build_model
from residual.models.preprocessing import Preprocessing
from residual.models.weights import Weights


class Bright:
    """A localizer that says of every class: where it is bright."""

    def __init__(self) -> None:
        self.device = torch.device("cpu")
        self.seen: list[tuple[int, ...]] = []

    def locate(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        self.seen.append(tuple(images.shape[2:]))
        boxes = []
        for image in images:
            rows, columns = (image[0] > 100).nonzero().unbind(dim=1)
            ends = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            boxes.append(torch.stack(ends).float().expand(labels.shape[1], 4))
        return torch.stack(boxes), torch.full(tuple(labels.shape), 0.5)


@pytest.fixture
def dataset(tmp_path: Path) -> BoxDataset:
    """Return images of several shapes with a bright box; the third is damaged."""
    found = []
    for number, (size, box) in enumerate(
        [((200, 120), (70, 30, 130, 100)), ((90, 150), (20, 50, 70, 110)), ((60, 60), (1, 1, 9, 9))]
    ):
        path = tmp_path / f"{number}.png"
        image = Image.new("RGB", size)
        image.paste((255, 255, 255), box)
        image.save(path)
        none = torch.zeros(1, dtype=torch.bool)
        corners, area = torch.tensor([box], dtype=torch.float32), torch.ones(1)
        label = torch.tensor([number % 2])
        found.append(AnnotatedImage(f"i{number}", path, size, corners, label, none, none, area))
    found[2].path.write_bytes(b"nothing")
    return BoxDataset("imagenet", ("val",), ("a", "b"), tuple(found), (), (1, 2))


def test_an_image_that_is_too_long_is_left_out(dataset: BoxDataset, tmp_path: Path) -> None:
    """Whole, at a shorter side of 64, it would be 64 x 64,000."""
    Image.new("RGB", (10, 10_000)).save(tmp_path / "long.png")
    first, *others = dataset.images
    long = replace(first, path=tmp_path / "long.png", size=(10, 10_000))
    model: Any = Bright()
    images = replace(dataset, images=(long, *others))
    found = locate_images(model, images, true_classes(images), View(56, True))
    assert found.usable.tolist() == [False, True, False]
    assert "an image of 10 x 10000 is too long" in found.unusable["i0"]
    said = sentence_of(
        lambda: locate_images(model, images, true_classes(images), View(56, True), damaged="fatal")
    )
    assert "10 x 10000 is too long" in said
    assert "with data.damaged=skip" in said
    # 32 shorter sides are enough.
    assert View(56, True).of(torch.zeros(3, 4, 128, dtype=torch.uint8))[0].shape == (3, 64, 2048)


@pytest.mark.parametrize("dense", [False, True])
def test_boxes_come_back_to_their_images(dataset: BoxDataset, dense: bool) -> None:
    model: Any = Bright()
    labels = true_classes(dataset)
    assert labels.tolist() == [[0], [1], [0]]
    done: list[int] = []
    found = locate_images(model, dataset, labels, View(56, dense), progress=done.append)
    # The shorter side is 64: 107 x 64 and 64 x 107, or the middle 56 x 56 of these.
    assert sorted(model.seen) == ([(64, 106), (106, 64)] if dense else [(56, 56)])
    assert found.usable.tolist() == [True, True, False]
    assert list(found.unusable) == ["i2"]
    assert done[-1] == 2
    for annotated, box in zip(dataset.images[:2], found.boxes[:2, 0], strict=True):
        assert box.tolist() == pytest.approx(annotated.boxes[0].tolist(), abs=2)
    errors = errors_of(dataset, labels, found)
    assert errors.right.tolist() == [True, True]
    assert errors_of(dataset, 1 - labels, found).localization == 100


def test_ranks_share_the_images(dataset: BoxDataset) -> None:
    from residual.distributed import World

    model: Any = Bright()

    class Second(World):
        """The second of two ranks, that hears nothing of the first."""

        def sum_(self, tensor: Tensor) -> Tensor:
            return tensor

        def gather(self, value: Any) -> list[Any]:
            return [value]

    found = locate_images(model, dataset, true_classes(dataset), View(56, True), Second(1, 2))
    assert found.usable.tolist() == [False, True, False]


def test_the_trivial_predictors_box_is_in_the_middle() -> None:
    none = torch.zeros(2, dtype=torch.bool)
    boxes = torch.tensor([[0.0, 0, 50, 30], [10, 10, 60, 60]])
    image = AnnotatedImage("a", Path("a"), (100, 60), boxes, torch.tensor([0, 0]), none, none, torch.ones(2))
    dataset = BoxDataset("imagenet", ("val",), ("a",), (image,), (), (1,))
    width, height = mean_box(dataset)
    assert (width, height) == pytest.approx((0.5, (30 / 60 + 50 / 60) / 2))
    found = middle_boxes(dataset, (width, height), torch.ones(1, dtype=torch.bool))
    assert found.boxes[0, 0].tolist() == pytest.approx([25, 10, 75, 50])


def test_guessed_classes_are_known_by_name(tmp_path: Path) -> None:
    images = load_located(write_tiny(tmp_path / "tiny", train=1, val=2), "val")
    torch.manual_seed(0)
    model = randomise(build_model("cifar_resnet8", classes=4))
    views = make_views("center", 32, 32)

    def guessed(*classes: str) -> Tensor:
        weights = Weights(model, Preprocessing(torch.rand(3)), classes, {})
        torch.manual_seed(1)
        return guessed_classes(weights, images, views, torch.device("cpu"))

    fish, cat, ball = WNIDS
    plain = guessed(fish, cat, ball, "n09999999")
    assert plain.shape == (6, 4)
    assert {tuple(sorted(row)) for row in plain.tolist()} == {(-1, 0, 1, 2)}
    # The network's first class is now the images' third, ...
    other = guessed(ball, fish, "n09999999", cat)
    mapped = torch.tensor([2, 0, -1, 1, -1])
    numbers = torch.where(plain < 0, 3, plain)
    assert torch.equal(other, mapped[numbers])
