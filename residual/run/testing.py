"""Trained networks on data sets that fit in memory: errors, layer responses, signals."""

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch

from ..analysis.layer_figures import Named
from ..analysis.layers import Response, Signal, responses, signals
from ..data import load_dataset
from ..data.dataset import Dataset
from ..data.resident import ResidentBatches
from ..errors import InputError
from ..evaluation.metrics import BATCH, Metrics, evaluate
from ..memory import keep_freed_memory
from ..models import build_model
from ..models.weights import Weights, load_weights
from ..randomness import Stream, mix
from ..recipes.schema import Batch, parse
from .checks import check_pictures, remembered_data_dir
from .devices import pick_device


def evaluate_weights(
    path: Path,
    dataset: str | None,
    split: Literal["train", "test"],
    data_dir: Path | None,
    device: str = "auto",
) -> tuple[Dataset, Metrics]:
    """Test a weights folder (or a run folder's) on a data set: the single view of each picture.

    Args:
        dataset: its name; None for the one that the network was trained on.
        split: "train" or "test".

    Raises:
        InputError: when the weights or the data are wrong, or do not fit each other.
    """
    weights, pictures = _weights_and_pictures(path, dataset, split, data_dir, pick_device(device))
    return pictures, evaluate(weights.model, weights.preprocessing, pictures.images, pictures.targets)


def layer_responses(
    path: Path,
    dataset: str | None,
    data_dir: Path | None,
    images: int,
    device: str = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Response], int]:
    """Return the layer responses of a weights folder on training pictures (Figure 7), and their number.

    Args:
        path, dataset, data_dir, device: as in ``evaluate_weights``.
        images: how many, from the beginning of the training part; all where there are fewer.
        progress: called with the number of pictures in all and the number done.

    Raises:
        InputError: as ``evaluate_weights``, and for a network without 3x3 layers.
    """
    weights, pictures = _weights_and_pictures(path, dataset, "train", data_dir, pick_device(device))
    chosen = pictures.images[:images]
    batches = (weights.preprocessing(part) for part in chosen.split(BATCH[chosen.device.type]))
    tell = functools.partial(progress, len(chosen)) if progress else None
    return responses(weights.model, batches, tell), len(chosen)


def layer_signals(
    path: Path,
    dataset: str | None,
    data_dir: Path | None,
    groups: int,
    device: str = "auto",
) -> dict[str, list[Signal]]:
    """Return a network's signals "at initialisation" and "after training" (Section 4.1).

    Args:
        path, dataset, data_dir, device: as in ``evaluate_weights``.
        groups: BN groups of training pictures, the first of the recipe's data order, augmented.

    Raises:
        InputError: as ``evaluate_weights``, and for a network without 3x3 layers.
    """
    weights, pictures = _weights_and_pictures(path, dataset, "train", data_dir, pick_device(device))
    stored = weights.config.get("recipe")
    recipe = parse(stored, str(path)) if stored else None
    batches = ResidentBatches(
        pictures,
        weights.preprocessing,
        min(recipe.batch.bn_group if recipe else Batch().bn_group, len(pictures)),
        recipe.data.pad if recipe else 0,
        recipe.data.flip if recipe else False,
        recipe.seed if recipe else 0,
        pictures.images.device,
    )
    model = weights.config["model"]
    torch.manual_seed(mix(recipe.seed if recipe else 0, Stream.WEIGHTS))
    fresh = build_model(model["name"], classes=model["classes"], **model["options"])
    fresh = fresh.to(pictures.images.device).to(memory_format=torch.channels_last)
    return {
        moment: signals(network, (batches(group) for group in range(groups)))
        for moment, network in (("at initialisation", fresh), ("after training", weights.model))
    }


def named(path: Path) -> Named:
    """Return what a figure calls the network of a weights folder."""
    name = load_weights(path).config["model"]["name"]
    depth = re.sub(r"\D", "", name)
    return Named(f"{path.name} ({name})", int(depth or 0), "plain" in name)


def _weights_and_pictures(
    path: Path,
    dataset: str | None,
    split: Literal["train", "test"],
    data_dir: Path | None,
    device: torch.device,
) -> tuple[Weights, Dataset]:
    """Return a weights folder's content and pictures that fit it, both on a device."""
    keep_freed_memory()
    weights = load_weights(path)
    data_dir = data_dir or remembered_data_dir(path)
    dataset = dataset or ((weights.config.get("recipe") or {}).get("data") or {}).get("dataset")
    if dataset is None:
        raise InputError(f"{path} does not say what it was trained on; name the data with --dataset")
    if dataset == "folder":
        raise InputError(
            f"{path} was trained on a folder of pictures, and here the pictures are those of a data set in "
            "memory; name one of the network's size with --dataset (cifar10, digits)"
        )
    pictures = load_dataset(dataset, split, data_dir)
    if weights.model.classes != len(pictures.classes):
        raise InputError(
            f"{path} has {weights.model.classes} classes and {dataset} has {len(pictures.classes)}; "
            "test it on a data set of its own classes"
        )
    if weights.model.in_channels != pictures.images.shape[1]:
        raise InputError(
            f"{path} takes pictures of {weights.model.in_channels} channels and those of {dataset} have "
            f"{pictures.images.shape[1]}"
        )
    mean = weights.preprocessing.mean
    if weights.preprocessing.per_pixel and mean.shape[1:] != pictures.images.shape[2:]:
        raise InputError(
            f"{path} subtracts a mean picture of {tuple(mean.shape[1:])} pixels; the pictures of {dataset} "
            f"have {tuple(pictures.images.shape[2:])}"
        )
    check_pictures(weights.model, str(path), tuple(pictures.images.shape[1:]))
    weights.model.to(device).to(memory_format=torch.channels_last)
    weights.preprocessing.to(device)
    return weights, pictures.to(device)
