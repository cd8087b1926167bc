"""Where a network is tested: one path from images to scores and errors, whoever asks and whatever the views.

A run's curve and its final numbers, ``residual evaluate``, ensembles and the paper's tables all come through
``evaluate``; ``predict`` shares its ``scored``. So one network, one dataset and one view give one number.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..data.images import DamagedImage
from ..device import send
from ..distributed import World
from ..models import Classifier
from .labelled import LabelledImages
from .metrics import Metrics, Tally
from .scores import Scores
from .views import Views, score

T = TypeVar("T")

Prepare = Callable[[Tensor], Tensor]
#: From a network, the preparation of its input, a batch of views and what they are to their softmax scores.
Scoring = Callable[[Classifier, Prepare, Sequence[Tensor], Views], Tensor]


@dataclass
class Evaluation:
    """What a test found.

    Attributes:
        metrics: over all ranks.
        unreadable: what is wrong with each image of this rank that was left out, by its id.
        probabilities: softmax scores of all N images, float32 (N, K), on the CPU, where they were asked for.
        read: which of them were read, bool (N,).
    """

    metrics: Metrics
    unreadable: dict[str, str] = field(default_factory=dict)
    probabilities: Tensor | None = None
    read: Tensor | None = None

    def scores(
        self, images: LabelledImages, classes: Sequence[str], targets: Tensor, about: dict[str, Any]
    ) -> Scores | None:
        """Return the scores of the images that were read, None where they were not asked for.

        Args:
            classes: names of the network's K classes.
            targets: of all N images among them.
            about: where the scores come from.
        """
        if self.probabilities is None or self.read is None:
            return None
        return Scores(
            ids=tuple(name for name, there in zip(images.ids, self.read.tolist(), strict=True) if there),
            classes=tuple(classes),
            probabilities=self.probabilities[self.read],
            targets=targets.cpu()[self.read],
            about=about,
        )


def evaluate(
    model: Classifier,
    prepare: Prepare,
    images: LabelledImages,
    views: Views,
    *,
    world: World | None = None,
    targets: Tensor | None = None,
    damaged: Callable[[DamagedImage], None] | None = None,
    keep_scores: bool = False,
    scoring: Scoring = score,
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Test a network on every image once; all ranks get the same metrics.

    Args:
        model: in evaluation mode, on its device (models/inference.py makes it so).
        prepare: from uint8 (n, C, H, W) to the network's input, on the same device.
        targets: of the images among the network's K classes, int64 (N,); None where the classes are the same.
        damaged: told of each image that cannot be read; it may raise what ends the test.
        keep_scores: keep the scores of all images, N x K numbers.
        scoring: what scores a batch, ``score`` or that recorded (recorded.py).
        progress: called with the number of this rank's images that are done.

    Raises:
        InputError: when no image is readable.
    """
    world = world or World()
    device = next(model.parameters()).device
    targets = (images.targets if targets is None else targets).to(device)
    tally = Tally()
    found = Evaluation(Metrics(0, 0, 0, 0, 0))
    count = len(targets)
    kept = torch.zeros(count, model.classes, device=device) if keep_scores else None
    read = torch.zeros(count, device=device)
    done = 0

    def skip(id: str, error: DamagedImage) -> None:
        if damaged:
            damaged(error)
        found.unreadable[id] = str(error)

    batches = images.batches(views, model.in_channels, world, skip)
    for rows, numbers in scored(model, prepare, batches, views, scoring):
        positions = send(torch.tensor(numbers), device)
        tally.add(rows, targets[positions])
        if kept is not None:
            kept[positions] = rows
            read[positions] = 1
        done += len(numbers)
        if progress:
            progress(done)
    found.metrics = tally.metrics(world, device)
    if kept is not None:
        # Every rank has zeros where the others have scores.
        found.probabilities, found.read = world.sum_(kept).cpu(), world.sum_(read).cpu() > 0
    return found


def scored(
    model: Classifier,
    prepare: Prepare,
    batches: Iterable[tuple[Sequence[Tensor], list[T]]],
    views: Views,
    scoring: Scoring = score,
) -> Iterator[tuple[Tensor, list[T]]]:
    """Yield the softmax scores of batches of views, float32 (n, K) on the model's device, and their items.

    Args:
        model, prepare, scoring: as of ``evaluate``.
        batches: of views as ``crop_views`` gives them, and what tells the n images.
    """
    device = next(model.parameters()).device
    for crops, items in batches:
        yield scoring(model, prepare, [send(part, device) for part in crops], views), items
