"""Inside a trained network: layer responses (Figure 7) and signals (Section 4.1) on its training images."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ..analysis.layer_figures import Named
from ..analysis.layers import Response, Signal, responses, signals
from ..data.crops import Crop, ResizedCrop, ScaleCrop
from ..data.dataset import Dataset
from ..data.folder import FolderIndex
from ..data.resident import ResidentBatches
from ..data.stream import StreamBatches
from ..device import full_float32, open_device
from ..distributed import World
from ..errors import InputError
from ..evaluation.classes import match_classes
from ..evaluation.inputs import usual_size
from ..evaluation.labelled import BATCH_IN_MEMORY, ImagesInFiles
from ..evaluation.views import make_views
from ..models import build_model
from ..models.own import without_place
from ..models.weights import Weights, load_weights
from ..randomness import Stream, mix
from ..recipes import Recipe
from ..recipes.schema import Batch, parse
from ..training.folder import find_data_dir, unfinished
from .evaluation import dataset_of, in_memory, part_of


def layer_responses(
    path: Path,
    dataset: str | None,
    data_dir: Path | None,
    images: int,
    device: str = "auto",
    progress: Callable[[int, int], None] | None = None,
    tell: Callable[[str], None] | None = None,
) -> tuple[list[Response], int]:
    """Return the layer responses of a weights folder on training images (Figure 7), and their number.

    Args:
        path: a weights folder, or a run folder.
        dataset: its name, "folder" for images in folders; None for what the network was trained on.
        data_dir: where it lies; None for where it lay in the run's last session.
        images: how many, from the beginning of the training split, of folders from all over it (the centre of
            each); all where there are fewer.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        progress: called with the number of images in all and the number done.
        tell: is given a sentence about unfinished weights.

    Raises:
        InputError: when the weights or the data are wrong, or for a network without 3x3 layers.
    """
    weights, data, where = _open(path, dataset, data_dir, device, tell)
    number = min(images, len(data))
    done = 0

    def show(measured: int) -> None:
        nonlocal done
        done = measured
        if progress:
            progress(number, measured)

    with full_float32(where):
        found = responses(weights.model, _inputs(weights, data, number, where), show)
    return found, done


def layer_signals(
    path: Path,
    dataset: str | None,
    data_dir: Path | None,
    groups: int,
    device: str = "auto",
    tell: Callable[[str], None] | None = None,
) -> dict[str, list[Signal]]:
    """Return a network's signals "at initialisation" and "after training" (Section 4.1).

    Args:
        path, dataset, data_dir, device, tell: as of ``layer_responses``.
        groups: BN groups of training images, the first of the recipe's data order, augmented.

    Raises:
        InputError: as ``layer_responses``.
    """
    weights, data, where = _open(path, dataset, data_dir, device, tell)
    data = _of_its_classes(data, weights)
    recipe = _recipe(path, weights)
    batches = _groups(weights, data, recipe, where)
    model = weights.config["model"]
    # Weights are drawn on the CPU; whoever draws numbers there afterwards finds the generator as it was.
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(mix(recipe.seed if recipe else 0, Stream.WEIGHTS))
        fresh = build_model(model["name"], classes=model["classes"], **model["options"])
    fresh = fresh.to(where).to(memory_format=fresh.memory_format)
    try:
        with full_float32(where):
            return {
                moment: signals(network, (batches(group) for group in range(groups)))
                for moment, network in (("at initialisation", fresh), ("after training", weights.model))
            }
    finally:
        batches.close()


def named(path: Path) -> Named:
    """Return what a figure calls the network of a weights folder."""
    weights = load_weights(path)
    name = without_place(weights.config["model"]["name"])
    return Named(f"{path.name} ({name})", weights.model.depth, weights.model.plain)


def _open(
    path: Path,
    name: str | None,
    data_dir: Path | None,
    device: str,
    tell: Callable[[str], None] | None,
) -> tuple[Weights, Dataset | FolderIndex, torch.device]:
    """Return a weights folder's content, on a device, and training images that fit it, or their files."""
    where = open_device(device)
    weights = load_weights(path)
    if tell:
        for sentence in unfinished(path, weights.config.get("results")):
            tell(sentence)
    name = dataset_of(path, weights, name)
    data: Dataset | FolderIndex
    if name == "folder":
        data = _folder(path, weights, data_dir)
    else:
        data = in_memory(path, weights, name, "train", data_dir).to(where)
    weights.model.to(where).to(memory_format=weights.model.memory_format)
    weights.preprocessing.to(where)
    return weights, data, where


def _recipe(path: Path, weights: Weights) -> Recipe | None:
    """Return the recipe that a network was trained by, None where nobody knows."""
    stored = weights.config.get("recipe")
    return parse(stored, str(path), Recipe) if stored else None


def _folder(path: Path, weights: Weights, data_dir: Path | None) -> FolderIndex:
    """Return the training part of a folder of images."""
    data_dir = find_data_dir(path, data_dir, "the folder that holds the training images")
    if weights.model.in_channels != 3:
        raise InputError(f"{path} takes images of {weights.model.in_channels} channels and files have 3")
    return part_of(path, data_dir, "train")


def _of_its_classes(data: Dataset | FolderIndex, weights: Weights) -> Dataset | FolderIndex:
    """Return images whose targets are the network's classes."""
    matched = match_classes(data.classes, weights.classes, data.name).to(data.targets.device)
    return replace(data, classes=weights.classes, targets=matched[data.targets])


def _inputs(
    weights: Weights, data: Dataset | FolderIndex, number: int, where: torch.device
) -> Iterator[Tensor]:
    """Yield prepared images, one view of each."""
    if isinstance(data, Dataset):
        for part in data.images[:number].split(BATCH_IN_MEMORY[where.type]):
            yield weights.preprocessing(part)
        return
    # A folder is sorted by class: images from all over it.
    chosen = data.subset(torch.linspace(0, len(data) - 1, number).round().long(), data.name)
    damaged: list[str] = []
    batches = ImagesInFiles(chosen).batches(
        make_views("center", *usual_size(weights)), 3, World(), lambda _, error: damaged.append(str(error))
    )
    for (views,), _ in batches:
        yield weights.preprocessing(views[:, 0].to(where))
    if len(damaged) == number:
        raise InputError(f"none of the {number} images can be read; {damaged[0]}")


def _groups(
    weights: Weights, data: Dataset | FolderIndex, recipe: Recipe | None, where: torch.device
) -> ResidentBatches | StreamBatches:
    """Return BN groups as training saw them, but for the colour noise of images in files."""
    batch = recipe.batch if recipe else Batch()
    size = min(batch.bn_group, batch.size, len(data))
    seed, flip = (recipe.seed, recipe.data.flip) if recipe else (0, False)
    balanced = bool(recipe and recipe.data.balanced)
    if isinstance(data, Dataset):
        pad = recipe.data.pad if recipe else 0
        return ResidentBatches(data, weights.preprocessing, size, pad, flip, seed, where, balanced=balanced)
    folder = recipe.data.folder if recipe else None
    crop: Crop = ResizedCrop(folder.size if folder else usual_size(weights)[0])
    if folder and folder.crop == "scale":
        crop = ScaleCrop(folder.size, *folder.shorter_side)
    return StreamBatches(data, crop, weights.preprocessing, size, flip, None, seed, where, balanced=balanced)
