"""What a recipe is trained and tested on: a data set in memory, or pictures in folders."""

import hashlib
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn

from ..data import load_dataset, split_validation
from ..data.colour import ColourNoise
from ..data.crops import CentreCrop, Crop, ResizedCrop, ScaleCrop
from ..data.dataset import Dataset
from ..data.folder import FolderIndex, index_folder
from ..data.resident import ResidentBatches
from ..data.statistics import Statistics, load_statistics, measure, save_statistics, statistics_file
from ..data.stream import StreamBatches, in_order
from ..distributed import World
from ..errors import InputError
from ..evaluation.metrics import BATCH, evaluate, evaluate_batches
from ..models.preprocessing import Preprocessing
from ..recipes import Recipe
from ..training.iteration import Batches


class Source(Protocol):
    """What a recipe is trained and tested on.

    Attributes:
        classes: names of the K classes.
        shape: of the network's input, (C, H, W).
        pictures: how many there are in each part that there is: "train", "validation", "test".
    """

    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    pictures: dict[str, int]

    def preprocessing(self, stored: Preprocessing | None) -> Preprocessing:
        """Return the preprocessing that the recipe asks for.

        Args:
            stored: that of the weights which the run starts from.
        """
        ...

    def batches(self, preprocessing: Preprocessing, device: torch.device, world: World) -> Batches:
        """Return the training batches of this rank."""
        ...

    def measure(
        self, model: nn.Module, preprocessing: Preprocessing, part: str, world: World
    ) -> dict[str, Any]:
        """Test the network on a part: one view of each picture."""
        ...

    def identity(self) -> dict[str, Any]:
        """Return what tells these data from others: a resumed run has to have the same."""
        ...

    def colours(self) -> dict[str, Any] | None:
        """Return the principal components of RGB that colour noise went along, for the weights folder."""
        ...


def open_source(recipe: Recipe, data_dir: Path | None) -> Source:
    """Return what a recipe is trained and tested on.

    Raises:
        InputError: when the data are missing or wrong.
    """
    return Folders(recipe, data_dir) if recipe.data.folder else Resident(recipe, data_dir)


class Resident:
    """A data set that fits in memory, and lives on the training device."""

    def __init__(self, recipe: Recipe, data_dir: Path | None) -> None:
        self.recipe = recipe
        data = recipe.data
        train = load_dataset(data.dataset, "train", data_dir)
        self.parts = {"train": train, "test": load_dataset(data.dataset, "test", data_dir)}
        if data.validation:
            self.parts["train"], self.parts["validation"] = split_validation(
                train, data.validation, data.split_seed
            )
        self.classes = train.classes
        channels, height, width = train.images.shape[1:]
        self.shape = (channels, height, width)
        self.pictures = {part: len(dataset) for part, dataset in self.parts.items()}

    def preprocessing(self, stored: Preprocessing | None) -> Preprocessing:
        if self.recipe.data.mean == "weights":
            return _of_weights(stored)
        images = self.parts["train"].images
        mean = _mean(images, self.recipe.data.mean)
        return Preprocessing(mean, _std(images) if self.recipe.data.std else None)

    def batches(self, preprocessing: Preprocessing, device: torch.device, world: World) -> Batches:
        self.parts = {part: dataset.to(device) for part, dataset in self.parts.items()}
        recipe = self.recipe
        return ResidentBatches(
            self.parts["train"],
            preprocessing,
            recipe.batch.size,
            recipe.data.pad,
            recipe.data.flip,
            recipe.seed,
            device,
            world.rank,
            world.size,
        )

    def measure(
        self, model: nn.Module, preprocessing: Preprocessing, part: str, world: World
    ) -> dict[str, Any]:
        dataset: Dataset = self.parts[part]
        return asdict(evaluate(model, preprocessing, dataset.images, dataset.targets, world))

    def identity(self) -> dict[str, Any]:
        return {"classes": len(self.classes), "pictures": self.pictures}

    def colours(self) -> None:
        return None


class Folders:
    """Pictures in folders, decoded as they are needed; ``val`` is the validation part."""

    def __init__(self, recipe: Recipe, data_dir: Path | None) -> None:
        assert recipe.data.folder is not None
        if recipe.data.validation:
            raise InputError(
                "data.validation holds out pictures of data sets in memory; a folder has its validation part "
                "in val/"
            )
        if recipe.data.pad:
            raise InputError("data.pad is for pictures of one size; a folder's are cropped (set data.pad=0)")
        if data_dir is None:
            raise InputError("name the folder that holds train/ and val/ with --data-dir")
        self.recipe, self.folder = recipe, recipe.data.folder
        train = index_folder(data_dir, "train")
        self.parts = {"train": train, "validation": index_folder(data_dir, "val", train.classes)}
        self.classes = train.classes
        self.shape = (3, self.folder.size, self.folder.size)
        self.pictures = {part: len(index) for part, index in self.parts.items()}
        self.centre = centre_crop(self.folder.size)
        self._statistics: Statistics | None = None

    def preprocessing(self, stored: Preprocessing | None) -> Preprocessing:
        if self.recipe.data.mean == "weights":
            return _of_weights(stored)
        found = self.statistics()
        mean = found.mean if self.recipe.data.mean == "per-pixel" else found.channel_mean
        return Preprocessing(mean, found.channel_std if self.recipe.data.std else None)

    def statistics(self) -> Statistics:
        """Return the training part's statistics, measured once and then kept in the user's cache folder."""
        if self._statistics is None:
            self._statistics = training_statistics(self.parts["train"], self.centre)
        return self._statistics

    def batches(self, preprocessing: Preprocessing, device: torch.device, world: World) -> Batches:
        recipe, folder = self.recipe, self.folder
        crop: Crop = ResizedCrop(folder.size)
        if folder.crop == "scale":
            crop = ScaleCrop(folder.size, *folder.shorter_side)
        noise = None
        if folder.colour_noise:
            noise = ColourNoise(*self.statistics().components, folder.colour_noise)
        self._batches = StreamBatches(
            self.parts["train"],
            crop,
            preprocessing,
            recipe.batch.size,
            recipe.data.flip,
            noise,
            recipe.seed,
            device,
            world.rank,
            world.size,
            damaged=folder.damaged,
        )
        return self._batches

    def measure(
        self, model: nn.Module, preprocessing: Preprocessing, part: str, world: World
    ) -> dict[str, Any]:
        device = next(model.parameters()).device
        stream = in_order(self.parts[part], self.centre, BATCH[device.type] // 4, world.rank, world.size)
        return asdict(evaluate_batches(model, preprocessing, self._readable(stream), world))

    def identity(self) -> dict[str, Any]:
        told = "\n".join(file for index in self.parts.values() for file in index.files)
        names = hashlib.sha256(told.encode()).hexdigest()[:16]
        return {"classes": len(self.classes), "pictures": self.pictures, "files": names}

    def colours(self) -> dict[str, Any] | None:
        if not self.folder.colour_noise:
            return None
        values, vectors = self.statistics().components
        return {"rgb_eigenvalues": values.tolist(), "rgb_eigenvectors": vectors.tolist()}

    def _readable(
        self, stream: Iterator[tuple[Tensor, Tensor, dict[str, str]]]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        for images, targets, unreadable in stream:
            for name, reason in unreadable.items():
                if self.folder.damaged == "fatal":
                    raise InputError(f"{reason}; mend or remove it, or set data.folder.damaged=skip")
                self._batches.unreadable[name] = reason
            yield images, targets


def folder_statistics(data_dir: Path, size: int) -> tuple[FolderIndex, Statistics]:
    """Return a folder's training part and its statistics for a network's input of ``size``.

    Raises:
        InputError: when there is no such folder, or no picture in it can be read.
    """
    index = index_folder(data_dir, "train")
    return index, training_statistics(index, centre_crop(size))


def centre_crop(size: int) -> CentreCrop:
    """Return the view of testing: the centre, of the shorter side that is to ``size`` as 256 to 224."""
    return CentreCrop(size, round(size * 256 / 224))


def training_statistics(index: FolderIndex, crop: CentreCrop) -> Statistics:
    """Return a training part's statistics, from the user's cache folder or by reading every picture once.

    Raises:
        InputError: when no picture can be read.
    """
    file = statistics_file(index, crop)
    if kept := load_statistics(file):
        return kept
    started = time.perf_counter()
    console = Console(stderr=True)
    console.print(f"reading {len(index):,} pictures once for their mean and colours", highlight=False)
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("pictures", total=len(index))
        found = measure(index, crop, progress=lambda done: progress.update(task, completed=done))
    if found.unreadable:
        # They may be readable the next time, and then belong to the mean.
        print(f"  {len(found.unreadable):,} of them could not be read", file=sys.stderr)
    else:
        save_statistics(found, file)
    print(f"  {time.perf_counter() - started:.0f} s", file=sys.stderr)
    return found


def _of_weights(stored: Preprocessing | None) -> Preprocessing:
    assert stored is not None, "training refuses such a recipe without weights"
    return stored


def _mean(images: Tensor, kind: str) -> Tensor:
    """Return the mean of uint8 (N, C, H, W) over the pictures, (C, H, W), or over the pixels too, (C,)."""
    # Whole numbers add up exactly, in any order; a thousand pictures at a time take little memory.
    total = torch.stack([part.sum(dim=0, dtype=torch.int64) for part in images.split(1000)]).sum(dim=0)
    mean = total.double() / (255 * len(images))
    return (mean if kind == "per-pixel" else mean.mean(dim=(1, 2))).float()


def _std(images: Tensor) -> Tensor:
    """Return the channels' deviations over all pixels of uint8 (N, C, H, W): (C,)."""
    values = [part.double().div(255) for part in images.split(1000)]
    count = images[:, 0].numel()
    mean = sum((v.sum(dim=(0, 2, 3)) for v in values), torch.zeros(images.shape[1]).double()) / count
    squares = sum((v.square().sum(dim=(0, 2, 3)) for v in values), torch.zeros(images.shape[1]).double())
    return (squares / count - mean.square()).sqrt().float()
