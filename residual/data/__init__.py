"""Datasets by name, and the split that holds some images out for choosing."""

from pathlib import Path
from typing import Literal

import torch

from ..errors import InputError, nearest
from ..randomness import Stream, generator
from .cifar10 import load_cifar10
from .dataset import Dataset
from .digits import load_digits

DATASETS = ("digits", "cifar10")
SPLITS = ("train", "test")


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


def split_validation(dataset: Dataset, count: int, seed: int) -> tuple[Dataset, Dataset]:
    """Return what remains for training and ``count`` random images for validation (45k/5k in Section 4.2).

    A pure function of the seed; both splits keep the images' order and their ids.

    Raises:
        InputError: unless both have an image.
    """
    total = len(dataset)
    if not 0 < count < total:
        raise InputError(
            f"cannot hold {count:,} of the {total:,} images of {dataset.name} out for validation; "
            f"hold out 1 to {total - 1:,}"
        )
    order = torch.randperm(total, generator=generator(seed, Stream.SPLIT))
    return (
        dataset.subset(order[count:].sort().values, f"{dataset.name} ({total - count})"),
        dataset.subset(order[:count].sort().values, f"{dataset.name} ({count} for validation)"),
    )
