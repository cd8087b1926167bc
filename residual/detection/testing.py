"""Where a detector is tested: what is found on every image of a dataset, shared by ranks."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from ..data.box_batches import in_order
from ..data.boxes import BoxDataset
from ..data.images import DamagedImage, fatal
from ..distributed import World
from ..errors import InputError, OtherData
from ..files import damaged as damaged_file
from ..files import first_line, parse_json, replace_file, strict_json
from ..tensors import pack, unpack
from .average_precision import Detections
from .faster_rcnn import FasterRCNN
from .inference import DetectionOptions, detect


@dataclass(frozen=True)
class DatasetDetections:
    """What was found on every image of a dataset.

    Attributes:
        detections: of each image, on the CPU; none for those that could not be used.
        unusable: what is wrong with each of those, by its id.
        images_per_second: over all ranks, decoding included.
    """

    detections: list[Detections]
    unusable: dict[str, str]
    images_per_second: float


def detect_dataset(
    members: Sequence[FasterRCNN],
    dataset: BoxDataset,
    how: DetectionOptions,
    world: World | None = None,
    *,
    damaged: Literal["skip", "fatal"] = "skip",
    progress: Callable[[int], None] | None = None,
) -> DatasetDetections:
    """Look at every image of a dataset, each rank at every size-th of them.

    Args:
        members: one detector, or several as an ensemble.
        damaged: "skip": nothing is found on an image that cannot be used, and it is named; its objects count
            as missed.
        progress: called with the number of images done by this rank.

    Raises:
        InputError: for an image that cannot be used, if those are fatal, and where none can be.
    """
    world = world or World()
    start = time.perf_counter()
    mine: dict[int, Detections] = {}
    unusable: dict[str, str] = {}
    modes = [member.training for member in members]
    for member in members:
        member.eval()
    for done, (number, annotated, image) in enumerate(in_order(dataset, world.rank, world.size), start=1):
        try:
            if isinstance(image, InputError):
                raise image
            mine[number] = detect(members, [image], how)[0].cpu()
        except InputError as error:
            if damaged == "fatal":
                raise DamagedImage(fatal(error, "data.damaged")) from None
            unusable[annotated.id] = f"{annotated.id}: {error}"
        if progress:
            progress(done)
    for member, mode in zip(members, modes, strict=True):
        member.train(mode)
    nothing = Detections(torch.empty(0, 4), torch.empty(0), torch.empty(0, dtype=torch.int64))
    found: dict[int, Detections] = {}
    for theirs, names in world.gather((mine, unusable)):
        found |= theirs
        unusable = unusable | names
    if not found:
        first = next(iter(unusable.values()), "there is none")
        raise DamagedImage(f"{dataset.name}: no image can be looked at; the first: {first}")
    return DatasetDetections(
        [found.get(number, nothing) for number in range(len(dataset))],
        unusable,
        len(dataset) / (time.perf_counter() - start),
    )


def save_detections(file: Path, dataset: BoxDataset, found: Sequence[Detections]) -> None:
    """Keep what was found on each image of a dataset, and what tells these from others; masks are not kept.

    Raises:
        OSError: when the file cannot be written.
    """
    tensors = {
        "boxes": torch.cat([torch.empty(0, 4), *(one.boxes for one in found)]),
        "scores": torch.cat([torch.empty(0), *(one.scores for one in found)]),
        "labels": torch.cat([torch.empty(0, dtype=torch.int64), *(one.labels for one in found)]),
        "counts": torch.tensor([len(one) for one in found], dtype=torch.int64),
    }
    ids = [annotated.id for annotated in dataset.images]
    replace_file(file, pack(tensors, {"ids": strict_json(ids), "content": dataset.content()}))


def load_detections(file: Path, dataset: BoxDataset) -> list[Detections]:
    """Return what ``save_detections`` kept.

    Raises:
        InputError: when the file is damaged.
        OtherData: when it is of other images than the dataset's, or these have other classes or boxes now.
    """
    remedy = "remove it to test anew"
    tensors, metadata = unpack(file, remedy)
    try:
        ids = parse_json(metadata["ids"], list[str], ValueError)
        counts = tensors["counts"].tolist()
        split = [tensors[name].split(counts) for name in ("boxes", "scores", "labels")]
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise damaged_file(file, first_line(error), remedy) from None
    # Earlier versions noted the names alone, then accents apart where macOS has written them so.
    content = metadata.get("content")
    same = content in (None, dataset.content()) or content == dataset.content("NFD")
    if not same or ids != [annotated.id for annotated in dataset.images]:
        raise OtherData(f"{file} is of other images, classes or boxes than {dataset.name} now has; {remedy}")
    return [Detections(*one) for one in zip(*split, strict=True)]
