"""Inside a trained network: layer responses (Figure 7) and signals (Section 4.1) on its training images."""

import functools
from collections.abc import Callable
from pathlib import Path

import torch

from ..analysis.layer_figures import Named
from ..analysis.layers import Response, Signal, responses, signals
from ..data.dataset import Dataset
from ..data.resident import ResidentBatches
from ..device import full_float32, open_device
from ..errors import InputError
from ..evaluation.labelled import BATCH_IN_MEMORY
from ..models import build_model
from ..models.weights import Weights, load_weights
from ..randomness import Stream, mix
from ..recipes import Recipe
from ..recipes.schema import Batch, parse
from .evaluation import dataset_of, in_memory


def layer_responses(
    path: Path,
    dataset: str | None,
    data_dir: Path | None,
    images: int,
    device: str = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Response], int]:
    """Return the layer responses of a weights folder on training images (Figure 7), and their number.

    Args:
        path: a weights folder, or a run folder.
        dataset: its name; None for the one that the network was trained on.
        data_dir: where it lies; None for where it lay in the run's last session.
        images: how many, from the beginning of the training split; all where there are fewer.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        progress: called with the number of images in all and the number done.

    Raises:
        InputError: when the weights or the data are wrong, or for a network without 3x3 layers.
    """
    weights, data = _open(path, dataset, data_dir, device)
    chosen = data.images[:images]
    batches = (weights.preprocessing(part) for part in chosen.split(BATCH_IN_MEMORY[chosen.device.type]))
    tell = functools.partial(progress, len(chosen)) if progress else None
    with full_float32(chosen.device):
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
        path, dataset, data_dir, device: as of ``layer_responses``.
        groups: BN groups of training images, the first of the recipe's data order, augmented.

    Raises:
        InputError: as ``layer_responses``.
    """
    weights, data = _open(path, dataset, data_dir, device)
    stored = weights.config.get("recipe")
    recipe = parse(stored, str(path), Recipe) if stored else None
    batches = ResidentBatches(
        data,
        weights.preprocessing,
        min(recipe.batch.bn_group if recipe else Batch().bn_group, len(data)),
        recipe.data.pad if recipe else 0,
        recipe.data.flip if recipe else False,
        recipe.seed if recipe else 0,
        data.images.device,
    )
    model = weights.config["model"]
    torch.manual_seed(mix(recipe.seed if recipe else 0, Stream.WEIGHTS))
    fresh = build_model(model["name"], classes=model["classes"], **model["options"])
    fresh = fresh.to(data.images.device).to(memory_format=torch.channels_last)
    with full_float32(data.images.device):
        return {
            moment: signals(network, (batches(group) for group in range(groups)))
            for moment, network in (("at initialisation", fresh), ("after training", weights.model))
        }


def named(path: Path) -> Named:
    """Return what a figure calls the network of a weights folder."""
    weights = load_weights(path)
    name = weights.config["model"]["name"]
    return Named(f"{path.name} ({name})", weights.model.depth, weights.model.plain)


def _open(path: Path, name: str | None, data_dir: Path | None, device: str) -> tuple[Weights, Dataset]:
    """Return a weights folder's content and training images that fit it, both on a device."""
    where = open_device(device)
    weights = load_weights(path)
    name = dataset_of(path, weights, name)
    if name == "folder":
        raise InputError(
            f"{path} was trained on a folder of images, and here the images are those of a dataset in "
            "memory; name one of the network's size with --dataset (cifar10, digits)"
        )
    dataset = in_memory(path, weights, name, "train", data_dir)
    weights.model.to(where).to(memory_format=torch.channels_last)
    weights.preprocessing.to(where)
    return weights, dataset.to(where)
