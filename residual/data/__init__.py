"""Datasets by name, and the split that holds some images out for choosing."""

from pathlib import Path
from typing import Literal, TypeVar

import torch
from torch import Tensor

from ..errors import InputError, nearest
from ..randomness import Stream, generator
from .cifar10 import load_cifar10
from .dataset import Dataset
from .digits import load_digits
from .folder import FolderIndex

#: The side of the images of each dataset in memory.
SIDES = {"digits": 8, "cifar10": 32}
DATASETS = tuple(SIDES)
SPLITS = ("train", "test")

D = TypeVar("D", Dataset, FolderIndex)


def load_dataset(name: str, split: Literal["train", "test"], data_dir: Path | None = None) -> Dataset:
    """Return one split of a dataset.

    Args:
        name: one of DATASETS.
        split: the official one; see ``split_validation`` for one to choose by.
        data_dir: where the dataset lies, or is downloaded to; None for the folder ``data``. The digits
            need none.

    Raises:
        InputError: for an unknown name or split, and for files that are missing, wrong or unreachable.
    """
    if split not in SPLITS:
        raise InputError(f"there is no split {split!r} of a dataset{nearest(split, SPLITS)}")
    if name == "digits":
        return load_digits(split)
    if name == "cifar10":
        return load_cifar10(split, data_dir)
    raise InputError(f"there is no dataset {name!r}{nearest(name, DATASETS)}")


def check_data_dir(name: str, data_dir: Path | None) -> None:
    """Raise an InputError where images are looked for in a folder and the dataset is the digits."""
    if name == "digits" and data_dir is not None:
        raise InputError(
            "the digits come with scikit-learn, so nothing would be read from --data-dir; leave it out, or "
            "name another dataset"
        )


def split_validation(dataset: D, held_out: int | float, seed: int) -> tuple[D, D]:
    """Return what remains for training, and random images for validation (45k/5k in Section 4.2).

    A pure function of the images and the seed; both splits keep the images' order and their ids.

    Args:
        held_out: a number of images, of all alike; or a share below 1, of each class alike: at least one of
            its images is held out, and at least one stays.

    Raises:
        InputError: unless both have an image, of each class where a share is held out.
    """
    total = len(dataset)
    if isinstance(held_out, float):
        chosen = _share_of_classes(dataset, held_out, seed)
    elif 0 < held_out < total:
        chosen = torch.randperm(total, generator=generator(seed, Stream.SPLIT))[:held_out]
    else:
        raise InputError(
            f"cannot hold {held_out:,} of the {total:,} images of {dataset.name} out for validation; "
            f"hold out 1 to {total - 1:,}"
        )
    held = torch.zeros(total, dtype=torch.bool)
    held[chosen] = True
    return (
        dataset.subset((~held).nonzero()[:, 0], f"{dataset.name} ({total - len(chosen)})"),
        dataset.subset(held.nonzero()[:, 0], f"{dataset.name} ({len(chosen)} for validation)"),
    )


def _share_of_classes(dataset: D, share: float, seed: int) -> Tensor:
    """Return the positions of a random share of each class's images, int64 (M,)."""
    chosen = []
    for target, name in enumerate(dataset.classes):
        positions = (dataset.targets == target).nonzero()[:, 0]
        count = len(positions)
        if count < 2:
            raise InputError(
                f"the class {name!r} of {dataset.name} has {count} image{'' if count else 's'}, too few to "
                "hold one out and to train on another; add images of it, or remove the class"
            )
        order = torch.randperm(count, generator=generator(seed, Stream.SPLIT, target))
        chosen.append(positions[order[: min(max(1, round(share * count)), count - 1)]])
    return torch.cat(chosen)
