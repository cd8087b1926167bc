"""From a detector and annotated pictures to average precisions, over exactly the data set."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from ..data.boxes import BoxDataset
from ..data.photos import in_order
from ..distributed import World
from ..errors import InputError
from .faster_rcnn import FasterRCNN
from .precision import Detections
from .testing import Options, detect


@dataclass(frozen=True)
class Found:
    """What was found on every picture of a data set.

    Attributes:
        detections: of each picture, on the CPU; none for those that could not be used.
        unusable: what is wrong with each of those, by its id.
        images_per_second: over all ranks, decoding included.
    """

    detections: list[Detections]
    unusable: dict[str, str]
    images_per_second: float


def find_all(
    members: Sequence[FasterRCNN],
    dataset: BoxDataset,
    how: Options,
    world: World | None = None,
    *,
    at_once: int = 1,
    damaged: Literal["skip", "fatal"] = "skip",
    progress: Callable[[int], None] | None = None,
) -> Found:
    """Look at every picture of a data set, each rank at every size-th of them.

    Args:
        members: one detector, or several as an ensemble.
        at_once: pictures whose regions go through the head together; the result does not depend on it.
        damaged: "skip": nothing is found on a picture that cannot be used, and it is named.
        progress: called with the number of pictures done by this rank.

    Raises:
        InputError: for a picture that cannot be used, if those are fatal.
    """
    world = world or World()
    start = time.perf_counter()
    mine: dict[int, Detections] = {}
    unusable: dict[str, str] = {}
    waiting: list[tuple[int, str, torch.Tensor]] = []

    def empty_waiting() -> None:
        try:
            found = detect(members, [image for _, _, image in waiting], how)
            mine.update((n, d.cpu()) for (n, _, _), d in zip(waiting, found, strict=True))
        except InputError:
            # One of them is too long: each by itself tells which.
            for number, name, image in waiting:
                try:
                    mine[number] = detect(members, [image], how)[0].cpu()
                except InputError as error:
                    skip(name, error)
        waiting.clear()

    def skip(name: str, error: InputError) -> None:
        if damaged == "fatal":
            raise InputError(f"{error}; mend or remove it, or set data.damaged=skip") from None
        unusable[name] = f"{name}: {error}"

    modes = [member.training for member in members]
    for member in members:
        member.eval()
    for done, (number, photo, image) in enumerate(in_order(dataset, world.rank, world.size), start=1):
        if isinstance(image, InputError):
            skip(photo.id, image)
        else:
            waiting.append((number, photo.id, image))
        if len(waiting) == at_once:
            empty_waiting()
        if progress:
            progress(done)
    if waiting:
        empty_waiting()
    for member, mode in zip(members, modes, strict=True):
        member.train(mode)
    nothing = Detections(torch.empty(0, 4), torch.empty(0), torch.empty(0, dtype=torch.int64))
    found: dict[int, Detections] = {}
    for theirs, names in world.gather((mine, unusable)):
        found |= theirs
        unusable = unusable | names
    return Found(
        [found.get(number, nothing) for number in range(len(dataset))],
        unusable,
        len(dataset) / (time.perf_counter() - start),
    )
