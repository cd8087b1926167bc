"""Images with boxes as training batches, decoded ahead by threads; and in order, for testing."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from ..device import send
from ..errors import InputError
from ..randomness import Stream, generator, mix
from .boxes import AnnotatedImage, BoxDataset
from .crops import Crop
from .images import CropFunction, DamagedImage, decode, decode_part, fatal
from .masks import crop_of
from .order import OrderedBatches
from .threads import Prefetch, in_threads

#: Iterations under way, the one that is asked for among them; in testing images.
AHEAD = 4
#: A box of which less is in a part of an image is neither object nor background there.
VISIBLE = 0.25
#: Images tried in turn for one place in a batch before the run gives up.
TRIES = 100


class Sizes(Protocol):
    """From an image's upright width and height to those of the network's input."""

    def __call__(self, width: int, height: int, *, scale: float) -> tuple[int, int]: ...


@dataclass(frozen=True)
class ObjectMasks:
    """The masks of an image's M objects: what is around each, at a scale of their own.

    Attributes:
        shares: how much of each place is the object's, from 0 to 255: uint8, one object's rows after the
            other's, then a zero.
        starts: where in them an object's begin, int64 (M,).
        sizes: their height and width, int64 (M, 2), zeros for an object without a mask.
        corners: the left and the top of each, in places of the image, float32 (M, 2).
        scale: places for a pixel of the network's input, across and down, float32 (2,).
    """

    shares: Tensor
    starts: Tensor
    sizes: Tensor
    corners: Tensor
    scale: Tensor

    def to(self, device: torch.device) -> "ObjectMasks":
        return ObjectMasks(*(send(getattr(self, each.name), device) for each in fields(self)))


@dataclass(frozen=True)
class TrainingImage:
    """An image as the network sees it, and what is on it.

    Attributes:
        image: uint8 (3, H, W).
        boxes: of the objects to learn, float32 (M, 4), in its pixels.
        labels: int64 (M,).
        crowds: regions that are neither object nor background, float32 (C, 4).
        seed: of random choices among its regions: a function of the iteration and the place in the batch.
        whole: labels of the whole image's objects, int64 (M',), where the image is a part of it.
        masks: of the objects; None where none has one.
    """

    image: Tensor
    boxes: Tensor
    labels: Tensor
    crowds: Tensor
    seed: int
    whole: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    masks: "ObjectMasks | None" = None

    @property
    def height_width(self) -> tuple[int, int]:
        """In pixels."""
        return int(self.image.shape[1]), int(self.image.shape[2])

    def to(self, device: torch.device) -> "TrainingImage":
        return replace(
            self,
            image=send(self.image, device),
            boxes=send(self.boxes, device),
            labels=send(self.labels, device),
            crowds=send(self.crowds, device),
            whole=send(self.whole, device),
            masks=self.masks and self.masks.to(device),
        )


#: From an image's number in the dataset, whether it is flipped, and a seed, to what the network sees of it.
ReadFunction = Callable[[int, bool, int], TrainingImage]
#: What takes a place in a batch, and what is wrong with each image that could not, by its id.
Loaded = tuple[TrainingImage, dict[str, str]]


class AnnotatedBatches(OrderedBatches):
    """The training batches of images with boxes, whatever the network sees of each.

    Args, beside those of ``OrderedBatches``:
        dataset: the training split.
        damaged: "skip": the next image of the dataset takes the place of one that cannot be read; "fatal":
            the run ends.
    """

    def __init__(
        self,
        dataset: BoxDataset,
        batch: int,
        flip: bool,
        seed: int,
        rank: int = 0,
        ranks: int = 1,
        damaged: Literal["skip", "fatal"] = "skip",
    ) -> None:
        super().__init__(len(dataset), batch, flip, seed, rank, ranks)
        self.dataset = dataset
        self.damaged = damaged
        self.prefetch: Prefetch[None, Loaded] = Prefetch(self._begin, AHEAD)

    def __call__(self, iteration: int) -> list[TrainingImage]:
        """Return this rank's images.

        Raises:
            DamagedImage: for an image that cannot be read, if those are fatal.
            InputError: when hardly any image can be read.
        """
        _, loaded = self.prefetch(iteration)
        # Not in the threads: what was read ahead of a run's last iteration is not left out of anything.
        for _, unreadable in loaded:
            self.unreadable |= unreadable
        return [image for image, _ in loaded]

    def _begin(self, iteration: int) -> tuple[None, list[Callable[[], Loaded]]]:
        random = generator(self.seed, Stream.CROPS, iteration)
        flipped = torch.rand(self.batch, generator=random) < 0.5
        readers = self._readers(random)
        positions = self.indices(iteration)
        return None, [
            partial(
                self._load,
                int(positions[place]),
                self.flip and bool(flipped[place]),
                readers[place],
                # 62 bits: what draws from it may need several sequences.
                mix(self.seed, Stream.REGIONS, iteration, place) >> 1,
            )
            for place in range(self.batch)[self.mine]
        ]

    def _readers(self, random: torch.Generator) -> list[ReadFunction]:
        """Return what reads the image of each place in a batch."""
        raise NotImplementedError

    def _read_part(self, part: CropFunction, number: int, flipped: bool, seed: int) -> TrainingImage:
        return load(self.dataset.images[number], part, flipped, seed)

    def _load(self, position: int, flipped: bool, read: ReadFunction, seed: int) -> Loaded:
        unreadable: dict[str, str] = {}
        last = ""
        tries = min(TRIES, len(self.dataset))
        for attempt in range(tries):
            number = (position + attempt) % len(self.dataset)
            try:
                return read(number, flipped, seed), unreadable
            except InputError as error:
                if self.damaged == "fatal":
                    raise DamagedImage(fatal(error, "data.damaged")) from None
                unreadable[self.dataset.images[number].id] = last = str(error)
        raise DamagedImage(
            f"{self.dataset.name}: none of {tries} images in a row can be read; the last: {last}"
        )


class BoxBatches(AnnotatedBatches):
    """The training batches of images with boxes: all of each, at a scale of its own.

    Args, beside those of ``AnnotatedBatches``:
        size: of the network's input, its sides multiplied by ``scale``.
        scales: the range that this is drawn from, for each image.
    """

    def __init__(
        self,
        dataset: BoxDataset,
        size: Sizes,
        batch: int,
        flip: bool,
        seed: int,
        rank: int = 0,
        ranks: int = 1,
        damaged: Literal["skip", "fatal"] = "skip",
        scales: tuple[float, float] = (1.0, 1.0),
    ) -> None:
        super().__init__(dataset, batch, flip, seed, rank, ranks, damaged)
        self.size = size
        self.scales = scales

    def _readers(self, random: torch.Generator) -> list[ReadFunction]:
        low, high = self.scales
        scales = (low + (high - low) * torch.rand(self.batch, generator=random)).tolist()
        return [partial(self._read_part, whole(partial(self.size, scale=scale))) for scale in scales]


class CropBatches(AnnotatedBatches):
    """The training batches of random parts of images with boxes: squares of one size.

    Args, beside those of ``AnnotatedBatches``:
        crop: the random part of each image.
    """

    def __init__(
        self,
        dataset: BoxDataset,
        crop: Crop,
        batch: int,
        flip: bool,
        seed: int,
        rank: int = 0,
        ranks: int = 1,
        damaged: Literal["skip", "fatal"] = "skip",
    ) -> None:
        super().__init__(dataset, batch, flip, seed, rank, ranks, damaged)
        self.crop = crop

    def _readers(self, random: torch.Generator) -> list[ReadFunction]:
        drawn = torch.rand(self.batch, self.crop.numbers, generator=random)
        return [partial(self._read_part, self.crop.at(numbers)) for numbers in drawn]


def whole(size: Callable[[int, int], tuple[int, int]]) -> CropFunction:
    """Return all of an image as its part, resized as ``size`` says of its width and height."""
    return lambda width, height: ((0, 0, width, height), size(width, height))


def load(annotated: AnnotatedImage, part: CropFunction, flipped: bool, seed: int) -> TrainingImage:
    """Read a part of an image at the size that the network sees, its boxes with it.

    Boxes are cut at the part's edge; one of which less than ``VISIBLE`` is left is no object there.

    Raises:
        DamagedImage: when the file cannot be read, or has not the size that its annotation says.
        InputError: as ``part`` does.
    """

    def checked(width: int, height: int) -> tuple[tuple[float, float, float, float], tuple[int, int]]:
        check_size(annotated, width, height)
        return part(width, height)

    pixels = torch.from_numpy(decode_part(annotated.path, checked).copy()).permute(2, 0, 1)
    height, width = pixels.shape[1:]
    (left, top, right, bottom), _ = part(*annotated.size)
    x, y = width / (right - left), height / (bottom - top)
    boxes = (annotated.boxes - torch.tensor([left, top, left, top])) * torch.tensor([x, y, x, y])
    there, wanted = torch.ones(len(boxes), dtype=torch.bool), annotated.wanted
    if (left, top, right, bottom) != (0, 0, *annotated.size):
        boxes, share = _cut(boxes, width, height)
        there, wanted = share > 0, wanted & (share >= VISIBLE)
        assert not annotated.masks, "masks are of whole images"
    if flipped:
        pixels = pixels.flip(2)
        boxes = flip_boxes(boxes, width)
    # Regions of many objects, what is not judged, and objects of which hardly anything is left.
    neither = annotated.crowd | annotated.is_unjudged(annotated.labels) | (annotated.wanted & ~wanted)
    labels = annotated.labels
    masks = _masks(annotated, wanted, (height, width), flipped)
    return TrainingImage(
        pixels.contiguous(),
        boxes[wanted],
        labels[wanted],
        boxes[there & neither],
        seed,
        labels,
        masks,
    )


def _masks(
    annotated: AnnotatedImage, wanted: Tensor, size: tuple[int, int], flipped: bool
) -> ObjectMasks | None:
    """Return the masks of an image's wanted objects, None where none has one.

    Args:
        wanted: bool (M,).
        size: height and width of the network's input; places are no smaller than its pixels need.
    """
    found = [mask for mask, use in zip(annotated.masks, wanted.tolist(), strict=False) if use]
    if not any(found):
        return None
    width, height = annotated.size
    step = max(1, min(height // size[0], width // size[1]))
    crops, sizes, corners = [], [], []
    for mask in found:
        shares, top, left = crop_of(mask, step) if mask else (np.zeros((0, 0), np.uint8), 0, 0)
        if flipped:
            shares = shares[:, ::-1]
        crops.append(torch.from_numpy(shares.copy()).flatten())
        sizes.append(shares.shape)
        corners.append((width / step - left - shares.shape[1] if flipped else left, top))
    lengths = torch.tensor([len(crop) for crop in crops])
    return ObjectMasks(
        torch.cat([*crops, torch.zeros(1, dtype=torch.uint8)]),
        lengths.cumsum(0) - lengths,
        torch.tensor(sizes),
        torch.tensor(corners, dtype=torch.float32),
        torch.tensor([width / size[1] / step, height / size[0] / step]),
    )


def flip_boxes(boxes: Tensor, width: int) -> Tensor:
    """Return boxes (M, 4) of an image as they lie on its flip."""
    return torch.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], dim=1)


def _cut(boxes: Tensor, width: int, height: int) -> tuple[Tensor, Tensor]:
    """Return boxes (M, 4) cut at an image's edges, and how much of each box's area is left, (M,)."""
    edges = torch.tensor([width, height, width, height], dtype=boxes.dtype)
    cut = torch.minimum(boxes.clamp(min=0), edges)
    areas, left = ((each[:, 2:] - each[:, :2]).prod(dim=1) for each in (boxes, cut))
    return cut, left / areas


def check_size(annotated: AnnotatedImage, width: int, height: int) -> None:
    """Raise a DamagedImage where an image has not the size that its annotation says."""
    if (width, height) != annotated.size:
        raise DamagedImage(
            f"{annotated.path} has {width} x {height} pixels and its annotation says {annotated.size[0]} x "
            f"{annotated.size[1]}, so its boxes do not fit it"
        )


def full_size(annotated: AnnotatedImage) -> Tensor:
    """Read an image at full size, uint8 (3, H, W).

    Raises:
        DamagedImage: when the file cannot be read, or has not the size that its annotation says.
    """
    image = decode(annotated.path)
    check_size(annotated, image.shape[2], image.shape[1])
    return image


def in_order(
    dataset: BoxDataset, rank: int = 0, ranks: int = 1
) -> Iterator[tuple[int, AnnotatedImage, Tensor | DamagedImage]]:
    """Yield every ``ranks``-th image at full size, uint8 (3, H, W), or what is wrong with it."""
    numbers = range(rank, len(dataset), ranks)

    def read(annotated: AnnotatedImage) -> Tensor | DamagedImage:
        try:
            return full_size(annotated)
        except DamagedImage as error:
            return error

    # Full-size images are large: few of them are under way.
    images = in_threads(read, (dataset.images[number] for number in numbers), ahead=AHEAD)
    for number, image in zip(numbers, images, strict=True):
        yield number, dataset.images[number], image
