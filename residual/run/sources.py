"""What a classifier is trained and tested on: a dataset in memory, or images in folders."""

import hashlib
import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import distributed
from ..class_names import Form, in_form
from ..data import load_dataset, split_validation
from ..data.colour import ColourNoise
from ..data.crops import Crop, ResizedCrop, ScaleCrop
from ..data.folder import FolderIndex, holds_classes, index_folder, parts_of, refuse_other_names
from ..data.identity import identity_of
from ..data.images import DamagedImage, fatal
from ..data.resident import ResidentBatches
from ..data.statistics import Statistics, mean_of, std_of, training_statistics
from ..data.stream import StreamBatches
from ..distributed import World
from ..errors import InputError
from ..evaluation.labelled import ImagesInFiles, ImagesInMemory, LabelledImages
from ..evaluation.testing import Evaluation, Scoring, evaluate
from ..evaluation.views import Views, make_views, score, side_for, whole_images
from ..models import Classifier
from ..models.preprocessing import Preprocessing
from ..recipes import Recipe
from ..terminal import counted, note, say

#: A channel whose deviation is no larger never changes, but for rounding: it is not divided by it.
CONSTANT = 1e-5
#: Of this rank, by iteration.
TrainingBatches = ResidentBatches | StreamBatches


class Source(ABC):
    """What a recipe is trained and tested on.

    Attributes:
        classes: names of the K classes.
        shape: of the network's input, (C, H, W).
        images: how many there are in each split that there is: "train", "validation", "test".
        unreadable: what is wrong with each image that could not be tested on, by its split and id.
        notes: a sentence on whatever of the data may not be as it was meant.
        measured: what was found in the training split, of images in files; None while nobody has asked.
    """

    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    images: dict[str, int]
    notes: tuple[str, ...] = ()
    measured: Statistics | None = None

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.unreadable: dict[str, str] = {}

    def preprocessing(self, stored: Preprocessing | None) -> Preprocessing:
        """Return the preprocessing that the recipe asks for.

        Args:
            stored: that of the weights which the run starts from.
        """
        data = self.recipe.data
        if data.mean == "weights":
            assert stored is not None, "training refuses such a recipe without weights"
            return stored
        std = None
        if data.std:
            measured = self.std()
            std = measured.where(measured > CONSTANT, 1.0)
        return Preprocessing(self.mean(data.mean), std)

    @abstractmethod
    def mean(self, kind: str) -> Tensor:
        """Return the training split's mean, "per-pixel" (C, H, W) or "per-channel" (C,)."""

    @abstractmethod
    def std(self) -> Tensor:
        """Return its channels' deviations, (C,)."""

    @abstractmethod
    def batches(self, preprocessing: Preprocessing, device: torch.device, world: World) -> TrainingBatches:
        """Return the training batches of this rank."""

    def evaluate(
        self,
        model: Classifier,
        preprocessing: Preprocessing,
        split: str,
        world: World,
        keep_scores: bool = False,
        scoring: Scoring = score,
        progress: Callable[[int], None] | None = None,
    ) -> Evaluation:
        """Test a network that is ready for it on a split, one view of each image; see ``evaluate``."""
        folder = self.recipe.data.folder

        def damaged(error: DamagedImage) -> None:
            if folder and folder.damaged == "fatal":
                raise DamagedImage(fatal(error, "data.folder.damaged"))

        images, views = self.labelled(split)
        found = evaluate(
            model,
            preprocessing,
            images,
            views,
            world=world,
            damaged=damaged,
            keep_scores=keep_scores,
            scoring=scoring,
            progress=progress,
        )
        self.unreadable |= {f"{split}/{id}": reason for id, reason in found.unreadable.items()}
        return found

    @abstractmethod
    def labelled(self, split: str) -> tuple[LabelledImages, Views]:
        """Return the images of a split, and the view of each."""

    def fingerprint(self, form: Form = "NFC") -> dict[str, Any]:
        """Return what tells these data from others, as of ``Task``."""
        return {"classes": len(self.classes), "images": self.images, "content": self.content(form)}

    @abstractmethod
    def content(self, form: Form) -> str:
        """Return the identity of the images and their classes, before anything is moved to a device.

        Args:
            form: of accents in names of classes.
        """

    def colours(self) -> dict[str, Any] | None:
        """Return the principal components of RGB that colour noise went along, for the weights folder."""
        return None

    def divided(self) -> dict[str, FolderIndex] | None:
        """Return the splits that this recipe made of a folder; None where it was divided, or is in memory."""
        return None


def open_source(recipe: Recipe, data_dir: Path | None) -> Source:
    """Return what a recipe is trained and tested on.

    Raises:
        InputError: when the data are missing or wrong.
    """
    return Folders(recipe, data_dir) if recipe.data.folder else Resident(recipe, data_dir)


class Resident(Source):
    """A dataset that fits in memory, and lives on the training device."""

    def __init__(self, recipe: Recipe, data_dir: Path | None) -> None:
        super().__init__(recipe)
        data = recipe.data
        train = load_dataset(data.dataset, "train", data_dir)
        self.splits = {"train": train, "test": load_dataset(data.dataset, "test", data_dir)}
        if data.validation:
            self.splits["train"], self.splits["validation"] = split_validation(
                train, data.validation, data.split_seed
            )
        self.classes = train.classes
        self.shape = train.shape
        self.images = {split: len(dataset) for split, dataset in self.splits.items()}

    def mean(self, kind: str) -> Tensor:
        return mean_of(self.splits["train"].images, kind)

    def std(self) -> Tensor:
        return std_of(self.splits["train"].images)

    def batches(self, preprocessing: Preprocessing, device: torch.device, world: World) -> TrainingBatches:
        self.splits = {split: dataset.to(device) for split, dataset in self.splits.items()}
        recipe = self.recipe
        return ResidentBatches(
            self.splits["train"],
            preprocessing,
            recipe.batch.size,
            recipe.data.pad,
            recipe.data.flip,
            recipe.seed,
            device,
            world.rank,
            world.size,
            balanced=recipe.data.balanced,
        )

    def labelled(self, split: str) -> tuple[LabelledImages, Views]:
        return ImagesInMemory(self.splits[split]), whole_images(self.shape)

    def content(self, form: Form) -> str:
        tensors = (tensor for each in self.splits.values() for tensor in (each.images, each.targets))
        return identity_of(in_form(self.classes, form), tensors)


def _divided(data_dir: Path, share: float, seed: int) -> tuple[FolderIndex, FolderIndex]:
    """Return a folder's images to train on and to validate by.

    Args:
        share: of each class that is held out; 0 for a folder that is divided already.
    """
    parts = parts_of(data_dir)
    if share:
        if "val" in parts:
            raise InputError(
                f"{data_dir} has a validation part of its own; leave data.validation at 0 to use it"
            )
        return split_validation(index_folder(data_dir, "all"), share, seed)
    if data_dir.exists() and "val" not in parts and (parts or holds_classes(data_dir)):
        refuse_other_names(data_dir, "val")
        raise InputError(
            f"{data_dir} has no validation part (val); hold a share of each class out with "
            "--set data.validation=0.2"
        )
    train = index_folder(data_dir, "train")
    return train, index_folder(data_dir, "val", train.classes)


class Folders(Source):
    """Images in folders, decoded as they are needed; ``val`` is the validation split, or what is held out."""

    def __init__(self, recipe: Recipe, data_dir: Path | None) -> None:
        super().__init__(recipe)
        assert recipe.data.folder is not None
        self.folder = recipe.data.folder
        if recipe.data.pad:
            raise InputError("data.pad is for images of one size; a folder's are cropped (set data.pad=0)")
        if data_dir is None:
            raise InputError("name the folder that holds train/ and val/, or the classes, with --data-dir")
        train, validation = _divided(data_dir, recipe.data.validation, recipe.data.split_seed)
        self.splits = {"train": train, "validation": validation}
        # A folder that was divided here has the same ones for both parts.
        self.notes = tuple(dict.fromkeys(note for index in self.splits.values() for note in index.notes))
        self.classes = train.classes
        self.shape = (3, self.folder.size, self.folder.size)
        self.images = {split: len(index) for split, index in self.splits.items()}

    def mean(self, kind: str) -> Tensor:
        return self.statistics.mean if kind == "per-pixel" else self.statistics.channel_mean

    def std(self) -> Tensor:
        return self.statistics.channel_std

    @property
    def statistics(self) -> Statistics:
        """The training split's statistics, measured once and then kept in the user's cache folder."""
        if self.measured is None:
            self.measured = _statistics(self.splits["train"], self.folder.size)
        return self.measured

    def batches(self, preprocessing: Preprocessing, device: torch.device, world: World) -> TrainingBatches:
        recipe, folder = self.recipe, self.folder
        crop: Crop = ResizedCrop(folder.size)
        if folder.crop == "scale":
            crop = ScaleCrop(folder.size, *folder.shorter_side)
        noise = None
        if folder.colour_noise:
            noise = ColourNoise(*self.statistics.components, folder.colour_noise)
        return StreamBatches(
            self.splits["train"],
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
            balanced=recipe.data.balanced,
        )

    def labelled(self, split: str) -> tuple[LabelledImages, Views]:
        size = self.folder.size
        return ImagesInFiles(self.splits[split]), make_views("center", size, side_for(size))

    def content(self, form: Form) -> str:
        indices = self.splits.values()
        files = [index.path(position) for index in indices for position in range(len(index))]
        return self._identity(form, files)

    def fingerprint(self, form: Form = "NFC") -> dict[str, Any]:
        told = "\n".join(file for index in self.splits.values() for file in index.files)
        names = hashlib.sha256(os.fsencode(told)).hexdigest()[:16]
        return super().fingerprint(form) | {"files": names, "labels": self._identity(form, [])}

    def _identity(self, form: Form, files: Sequence[Path]) -> str:
        """Return the identity of the images' names and classes, and of files."""
        indices = self.splits.values()
        names = [*in_form(self.classes, form), *(file for index in indices for file in index.files)]
        return identity_of(names, [index.targets for index in indices], files)

    def divided(self) -> dict[str, FolderIndex] | None:
        return self.splits if self.recipe.data.validation else None

    def colours(self) -> dict[str, Any] | None:
        if not self.folder.colour_noise:
            return None
        values, vectors = self.statistics.components
        return {"rgb_eigenvalues": values.tolist(), "rgb_eigenvectors": vectors.tolist()}


def folder_statistics(data_dir: Path, size: int) -> tuple[FolderIndex, Statistics]:
    """Return a folder's training split and its statistics for a network's input of ``size``.

    Raises:
        InputError: when there is no such folder, or no image in it can be read.
    """
    index = index_folder(data_dir, "train")
    note(*index.notes)
    return index, _statistics(index, size)


def _statistics(index: FolderIndex, size: int) -> Statistics:
    """Return a training split's statistics, of what testing sees of its images."""
    started = time.perf_counter()
    measured = 0
    with counted("images") as show:

        def tell(done: int) -> None:
            # Called only where the cache did not have them.
            nonlocal measured
            if not measured:
                say(f"reading {len(index):,} images once for their mean and colours", stderr=True)
            measured = done
            show(len(index), done)

        # One rank measures while the others wait: all cores are its own.
        found = training_statistics(index, size, side_for(size), tell, distributed.cores(all_ranks=True))
    if measured:
        say(f"  {time.perf_counter() - started:.0f} s", stderr=True)
    if found.unreadable:
        print(f"  {len(found.unreadable):,} of them could not be read", file=sys.stderr)
    return found
