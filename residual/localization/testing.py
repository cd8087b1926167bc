"""Where a localizer is tested: where each image's class, or each of a classifier's five, is said to be.

The protocols of appendix C: the centre crop with the true class, the whole image fully convolutionally
("dense") with the true class, and the same with the classes that a classifier guesses.

Shapes: N images, T classes that are asked for of each.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..data.box_batches import in_order
from ..data.boxes import BoxDataset
from ..data.images import DamagedImage, centre, fatal, resize_shorter, square
from ..data.located import LocatedImages
from ..device import full_float32, send
from ..distributed import World
from ..evaluation.batching import by_shape
from ..evaluation.classes import match_classes
from ..evaluation.labelled import ImagesInFiles
from ..evaluation.testing import evaluate
from ..evaluation.views import Views, side_for
from ..models.inference import for_inference
from ..models.weights import Weights
from .error import GUESSES, Guesses, LocalizationErrors, localization_errors
from .model import PerClassRegression
from .rcnn import RCNN, AnyLocalizer
from .regions import Proposals

#: Images of one shape that go through the network together.
BATCH = 32
#: An image longer than this many shorter sides is not looked at: seen whole, it takes as much memory as so
#: many others.
TOO_LONG = 32


@dataclass(frozen=True)
class View:
    """What of an image the localizer sees.

    Attributes:
        size: side of the centre square.
        dense: the whole image instead, at the same scale: the square is cut from a shorter side that is to
            ``size`` as 256 to 224.
    """

    size: int
    dense: bool

    def __str__(self) -> str:
        side = side_for(self.size)
        return f"dense (shorter side {side})" if self.dense else f"centre crop ({self.size} of {side})"

    def check(self, image: Tensor) -> None:
        """Raise a DamagedImage for an image (3, H, W) that is too long."""
        height, width = image.shape[1:]
        if max(height, width) > TOO_LONG * min(height, width):
            raise DamagedImage(
                f"an image of {width} x {height} is too long: it has more than {TOO_LONG} times its shorter "
                "side; cut it into parts"
            )

    def of(self, image: Tensor) -> tuple[Tensor, tuple[float, float, float, float]]:
        """Return what is seen of an image uint8 (3, H, W), and how its boxes become the image's own.

        Returns:
            The view, uint8 (3, h, w); and left, top, x and y: what is at (u, v) in it is at
            ((u + left) / x, (v + top) / y) in the image.

        Raises:
            DamagedImage: as ``check``.
        """
        self.check(image)
        resized = resize_shorter(image, side_for(self.size))
        x, y = resized.shape[2] / image.shape[2], resized.shape[1] / image.shape[1]
        if self.dense:
            return resized, (0.0, 0.0, x, y)
        top, left = centre(resized, self.size)
        return square(resized, self.size, top, left), (float(left), float(top), x, y)


@dataclass(frozen=True)
class Located:
    """Where classes were said to be.

    Attributes:
        boxes: float32 (N, T, 4), in the images' pixels; of no meaning for images that could not be used.
        scores: float32 (N, T), in [0, 1].
        usable: which images could be used, bool (N,).
        unusable: what is wrong with the others, by their ids.
        images_per_second: over all ranks, decoding included.
    """

    boxes: Tensor
    scores: Tensor
    usable: Tensor
    unusable: dict[str, str]
    images_per_second: float


def in_image(boxes: Tensor, places: Sequence[tuple[float, float, float, float]]) -> Tensor:
    """Return boxes of n views, (n, T, 4), in their images' pixels; ``places`` are as ``View.of`` gives."""
    each = torch.tensor(places)[:, None]
    return (boxes + each[..., [0, 1, 0, 1]]) / each[..., [2, 3, 2, 3]]


def locate(
    model: AnyLocalizer,
    seen: Tensor,
    places: Sequence[tuple[float, float, float, float]],
    labels: Tensor,
    images: Sequence[Tensor] = (),
) -> tuple[Tensor, Tensor]:
    """Return where each of some classes is on n images: boxes (n, T, 4) in their pixels, and scores (n, T).

    Args:
        seen: their views, uint8 (n, 3, h, w).
        places: how boxes of these become the images', as ``View.of`` gives it.
        labels: int64 (n, T).
        images: uint8 (3, H, W) each, of which a localizer of two stages looks at parts.
    """
    if isinstance(model, RCNN):
        found = _propose(model.localizer, seen, places, labels, model.proposals)
        return model.refine(images, found, labels)
    boxes, scores = model.locate(send(seen, model.device), send(labels, model.device))
    return in_image(boxes.cpu(), places), scores.cpu()


def _propose(
    model: PerClassRegression,
    seen: Tensor,
    places: Sequence[tuple[float, float, float, float]],
    labels: Tensor,
    most: int,
) -> list[Tensor]:
    """Return proposals for each image and class, (R, 4), in the images' pixels; as ``locate`` is asked."""
    found = model.propose(send(seen, model.device), send(labels, model.device), most)
    every = (place for place in places for _ in range(labels.shape[1]))
    return [in_image(boxes.cpu()[None], [place])[0] for boxes, place in zip(found, every, strict=True)]


#: What is seen of some images of one shape, these images, and the number and place (``View.of``) of each.
_Batch = tuple[Tensor, Tensor, list[tuple[int, tuple[float, float, float, float]]]]


def _batches(
    dataset: BoxDataset,
    view: View,
    world: World,
    damaged: Literal["skip", "fatal"],
    unusable: dict[str, str],
    whole: bool,
) -> Iterator[_Batch]:
    """Yield this rank's images as batches.

    Args:
        unusable: receives what is wrong with images that cannot be used.
        whole: whether the images themselves are wanted; they are empty else.

    Raises:
        InputError: for an image that cannot be used, if those are fatal.
    """

    def views() -> Iterator[tuple[Sequence[Tensor], tuple[int, tuple[float, float, float, float]]]]:
        for number, annotated, image in in_order(dataset, world.rank, world.size):
            try:
                if isinstance(image, DamagedImage):
                    raise image
                seen, place = view.of(image)
            except DamagedImage as error:
                if damaged == "fatal":
                    raise DamagedImage(fatal(error, "data.damaged")) from None
                unusable[annotated.id] = f"{annotated.id}: {error}"
                continue
            yield [seen, image if whole else torch.empty(0)], (number, place)

    for (seen, images), items in by_shape(views(), BATCH):
        yield seen, images, items


@torch.inference_mode()
def propose_images(
    model: PerClassRegression,
    dataset: BoxDataset,
    view: View,
    most: int,
    world: World | None = None,
    *,
    damaged: Literal["skip", "fatal"] = "skip",
    progress: Callable[[int], None] | None = None,
) -> tuple[Proposals, dict[str, str]]:
    """Say of every image of a dataset where its class may be, each rank of every size-th image.

    Returns:
        The proposals, none where an image cannot be used, and what is wrong with each of these, by its id.

    Args:
        model, view, damaged, progress: as of ``locate_images``.
        most: of an image.

    Raises:
        InputError: as of ``locate_images``.
    """
    world = world or World()
    labels = true_classes(dataset)
    boxes, counts = torch.zeros(len(dataset), most, 4), torch.zeros(len(dataset))
    unusable: dict[str, str] = {}
    done = 0
    with full_float32(model.device):
        for seen, _, items in _batches(dataset, view, world, damaged, unusable, whole=False):
            numbers = [number for number, _ in items]
            found = _propose(model, seen, [place for _, place in items], labels[numbers], most)
            for number, mine in zip(numbers, found, strict=True):
                boxes[number, : len(mine)], counts[number] = mine, len(mine)
            done += len(items)
            if progress:
                progress(done)
    (boxes, counts), unusable = _over_ranks(world, model.device, (boxes, counts), unusable)
    return Proposals(boxes[torch.arange(most) < counts[:, None]], counts.long()), unusable


@torch.inference_mode()
def locate_images(
    model: AnyLocalizer,
    dataset: BoxDataset,
    labels: Tensor,
    view: View,
    world: World | None = None,
    *,
    damaged: Literal["skip", "fatal"] = "skip",
    progress: Callable[[int], None] | None = None,
) -> Located:
    """Say of every image of a dataset where some classes are, each rank of every size-th image.

    Args:
        model: in evaluation mode, on its device.
        labels: the classes that are asked for, int64 (N, T); -1 for one that the localizer does not know.
        damaged: "skip": an image that cannot be used is named and left out.
        progress: called with the number of images done by this rank.

    Raises:
        InputError: for an image that cannot be used, if those are fatal.
    """
    world = world or World()
    start = time.perf_counter()
    unusable: dict[str, str] = {}
    shape = tuple(labels.shape)
    boxes, scores, usable = torch.zeros(*shape, 4), torch.zeros(shape), torch.zeros(shape[0])
    done = 0
    with full_float32(model.device):
        batches = _batches(dataset, view, world, damaged, unusable, whole=isinstance(model, RCNN))
        for seen, images, items in batches:
            numbers = torch.tensor([number for number, _ in items])
            asked = labels[numbers].clamp(min=0)
            found = locate(model, seen, [place for _, place in items], asked, list(images))
            boxes[numbers], scores[numbers] = found
            usable[numbers] = 1
            done += len(items)
            if progress:
                progress(done)
    (boxes, scores, usable), unusable = _over_ranks(world, model.device, (boxes, scores, usable), unusable)
    seconds = time.perf_counter() - start
    return Located(boxes, scores, usable > 0, unusable, len(dataset) / seconds)


def _over_ranks(
    world: World, device: torch.device, found: Sequence[Tensor], unusable: dict[str, str]
) -> tuple[list[Tensor], dict[str, str]]:
    """Return what all ranks have found together, each with zeros for the others, and could not use."""
    if world.size == 1:
        return list(found), unusable
    for named in world.gather(unusable):
        unusable = unusable | named
    return [world.sum_(each.to(device)).cpu() for each in found], unusable


def true_classes(dataset: BoxDataset) -> Tensor:
    """Return each image's class, int64 (N, 1)."""
    return torch.stack([annotated.labels[:1] for annotated in dataset.images])


def guessed_classes(
    classifier: Weights, images: LocatedImages, views: Views, device: torch.device, world: World | None = None
) -> Tensor:
    """Return the five likeliest classes of each image, the likeliest first: int64 (N, 5).

    They are numbered as the images' classes are; -1 is a class of the classifier's that these have not.

    Raises:
        InputError: for a class that the classifier does not know.
    """
    index = images.index
    matched = match_classes(index.classes, classifier.classes, index.name)
    found = evaluate(
        for_inference(classifier.model, device),
        classifier.preprocessing.to(device),
        ImagesInFiles(index),
        views,
        world=world,
        targets=matched[index.targets],
        keep_scores=True,
    )
    assert found.probabilities is not None
    ours = torch.full((len(classifier.classes),), -1)
    ours[matched] = torch.arange(len(matched))
    return ours[found.probabilities.topk(min(GUESSES, len(ours)), dim=1).indices]


def errors_of(dataset: BoxDataset, labels: Tensor, found: Located) -> LocalizationErrors:
    """Return which of the images that could be used are right.

    Args:
        labels: as they were asked for, int64 (N, T).
    """
    kept = [annotated for annotated, usable in zip(dataset.images, found.usable, strict=True) if usable]
    if not kept:
        first = next(iter(found.unusable.values()))
        raise DamagedImage(f"{dataset.name}: no image can be used; the first: {first}")
    return localization_errors(kept, Guesses(labels[found.usable], found.boxes[found.usable]))


def mean_box(dataset: BoxDataset) -> tuple[float, float]:
    """Return the mean width and height of a dataset's boxes, in parts of their image's."""
    sides = [
        (annotated.boxes[:, 2:] - annotated.boxes[:, :2]) / torch.tensor(annotated.size)
        for annotated in dataset.images
    ]
    width, height = torch.cat(sides).double().mean(dim=0).tolist()
    return width, height


def middle_boxes(dataset: BoxDataset, part: tuple[float, float], usable: Tensor) -> Located:
    """Return what a trivial predictor says: the box of one size in the middle of every image.

    Args:
        part: its width and height in parts of the image's, as ``mean_box`` gives them.
        usable: which images it is compared on, bool (N,): those that a network could look at.
    """
    sizes = torch.tensor([annotated.size for annotated in dataset.images], dtype=torch.float32)
    half = sizes * torch.tensor(part) / 2
    boxes = torch.cat([sizes / 2 - half, sizes / 2 + half], dim=1)[:, None]
    return Located(boxes, torch.ones(len(sizes), 1), usable, {}, 0.0)
