"""What a kind of run has of its own: run.py calls it, classification.py, detection.py and others fill it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..class_names import Form
from ..data.boxes import BoxDataset
from ..data.order import OrderedBatches
from ..distributed import World
from ..errors import InputError, OtherData
from ..recipes import TrainingRecipe
from ..recipes.schema import Schedule
from ..terminal import counted
from ..training.folder import RunFolder
from ..training.loop import Run, Work


def check_shared(batch: int, world: World) -> None:
    """Raise an InputError where ranks cannot have equal shares of a mini-batch."""
    if batch % world.size:
        raise InputError(
            f"batch.size {batch} cannot be shared by {world.size} processes; start a number of processes "
            "that divides it"
        )


def check_classes(trained: Sequence[str], now: Sequence[str], folder: Path, data: str) -> None:
    """Raise OtherData where trained weights have other classes, or in another order, than data have now.

    Args:
        folder: of the run, for the sentence, as ``data``, the name of the images.
    """
    if tuple(trained) != tuple(now):
        raise OtherData(f"{folder} was trained on other classes than there are now in {data}; put them back")


def identities(splits: Sequence[BoxDataset], form: Form) -> dict[str, str]:
    """Return what a fingerprint says of annotated images besides names: with their bytes, and without."""
    return {
        what: " ".join(split.content(form, files) for split in splits)
        for what, files in (("content", True), ("labels", False))
    }


class Task(ABC):
    """What a run is about. Making one reads the data, so that wrong data are found before a file is made.

    Attributes:
        recipe, world: what it was made with.
        command: whose option --resume continues such a run.
        images: of the training split.
        one_size: whether all inputs have one size.
        mends: whether an image that cannot be read ends the run, which then goes on with it mended.
        notes: on what was left out of the data.
        departures: in which ways the run differs from what its recipe says.
        started_from: what was kept of trained weights, None for a fresh network; known after ``start``.
        model: on the CPU after ``start``, on the device after ``place``.
        batches: of this rank; known after ``place``.
        split: what the curve is about, "validation" or "test".
    """

    recipe: TrainingRecipe
    world: World
    command: Sequence[str]
    images: int
    one_size: bool
    mends: bool
    notes: Sequence[str]
    departures: list[str]
    started_from: str | None
    model: nn.Module
    batches: OrderedBatches
    split: str

    @abstractmethod
    def fingerprint(self, form: Form = "NFC") -> dict[str, Any]:
        """Return what tells the data from others: a resumed run has to have the same.

        Of images that are read from files again and again "content" may differ where damaged ones have been
        mended (``mends``), and "labels", of the same without the files' bytes, may not.

        Args:
            form: of accents in names of classes; "NFD" for what earlier versions noted of names from macOS.
        """

    @abstractmethod
    def start(self, begun: RunFolder | None = None) -> None:
        """Build the network that the run starts from, and check that it fits the data.

        Args:
            begun: the folder of a run that goes on at a checkpoint: the weights that it once started from may
                be gone.
        """

    @abstractmethod
    def record(self, folder: RunFolder) -> None:
        """Write into the run folder what was decided about the data."""

    @abstractmethod
    def place(self, device: torch.device, schedule: Schedule, eager: bool) -> Work:
        """Move everything to a device, and return what is learned there.

        Args:
            schedule: the recipe's, in iterations.
        """

    def prepare(self, folder: RunFolder) -> None:  # noqa: B027 (most kinds have nothing to do)
        """Have the folder hold what is found out about the data before the first iteration, on all ranks."""

    @abstractmethod
    def evaluate(self) -> dict[str, Any]:
        """Return the network's metrics on the split that the curve is about."""

    @abstractmethod
    def results(self, run: Run) -> dict[str, Any]:
        """Return what results.json says of this task."""

    @abstractmethod
    def unreadable(self) -> dict[str, str]:
        """Return what is wrong with each image that this rank left out, by its id."""

    @abstractmethod
    def keep(self, folder: RunFolder) -> None:
        """Keep what the final network saw in the images that the curve is about; after ``results``."""

    @abstractmethod
    def findings(self, folder: RunFolder, device: str) -> dict[str, Any] | None:
        """Return what the run's page says of single images and classes, None before there are weights.

        It is made of what was kept. A run that has not kept it is tested once more, and then keeps it.

        Raises:
            OtherData: when the images, classes or boxes are not those any more that it was kept of.
        """

    @abstractmethod
    def save(self, folder: Path, results: dict[str, Any]) -> None:
        """Write the trained network into a folder that is not there yet."""

    @contextmanager
    def showing(self, what: str, count: int) -> Iterator[Callable[[int], None]]:
        """Give what shows how many of ``count`` images are done, called with the number of this rank's."""
        with counted(f"{self.recipe.name}: {what}", silent=not self.world.is_main) as show:
            yield lambda done: show(count, self.world.about_done(done, count))
