"""The only place where names become objects: recipes become runs, folders become networks."""

import functools
import re
import shlex
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from . import distributed
from .analysis.layer_figures import Named
from .analysis.layers import Response, Signal, responses, signals
from .data import load_dataset, split_validation
from .data.dataset import Dataset
from .data.resident import ResidentBatches
from .distributed import World
from .environment import describe
from .errors import InputError, Interrupted
from .evaluation.metrics import BATCH, Metrics, evaluate
from .gpu import memory_ran_out, set_arithmetic
from .memory import keep_freed_memory
from .models import build_model
from .models.classifier import Classifier
from .models.preprocessing import Preprocessing
from .models.weights import Weights, load_weights, save_weights
from .randomness import Stream, mix
from .recipes import Recipe
from .recipes.schema import Batch, parse
from .training.folder import RunFolder, read_json
from .training.loop import Run


def train(
    recipe: Recipe | None,
    out: Path,
    *,
    data_dir: Path | None = None,
    device: str = "auto",
    resume: bool = False,
    tensorboard: bool = False,
    eager: bool = False,
    deterministic: bool = False,
) -> dict[str, Any]:
    """Train a recipe's network in the run folder ``out``, and return the final numbers (results.json).

    Args:
        recipe: what to train; None, when resuming, for the folder's own.
        out: the run folder, which must be new or, with ``resume``, hold a run of the same recipe.
        data_dir: where the data set lies, or is downloaded to; None, when resuming, for where it lay before.
        device: "auto", "cpu", "cuda" or "cuda:N".
        resume: continue at the newest checkpoint; a complete run just gives its results again.
        tensorboard: also write TensorBoard's events to ``out/tensorboard``.
        eager: on a GPU, run the network kernel by kernel, without compiling and recording iterations.
        deterministic: on a GPU, take only kernels that give the same bits each time (a CPU's always do).

    Raises:
        InputError: for anything wrong with the recipe, the data or the folder.
        Interrupted: after SIGINT or SIGTERM; a checkpoint has been written.
    """
    where = pick_device(device)
    world = distributed.join(where)
    folder = RunFolder(out)
    recipe = RunFolder.check(out, recipe, resume)
    data_dir = data_dir or remembered_data_dir(out)
    _check_ranks(recipe, world)
    if folder.results_file.exists():
        return read_json(folder.results_file)
    # Everything that can be wrong with the input is found before the folder is made.
    train_part, held_out, test = _parts(recipe, data_dir)
    torch.manual_seed(mix(recipe.seed, Stream.WEIGHTS))
    options = recipe.model.options() | {"in_channels": test.images.shape[1]}
    model = build_model(recipe.model.name, classes=len(test.classes), **options)
    _check_pictures(model, recipe.model.name, test.images)
    log = _tensorboard(out / "tensorboard") if tensorboard and world.is_main else None
    again = shlex.join(
        ["residual", "train", "--resume", "--out", str(out)]
        + (["--data-dir", str(data_dir)] if data_dir else [])
    )
    world.barrier()
    if world.is_main:
        folder.open(recipe)
    world.barrier()
    try:
        keep_freed_memory()
        set_arithmetic(where, recipe.precision, deterministic)
        train_part, test = train_part.to(where), test.to(where)
        held_out = held_out.to(where) if held_out else None
        preprocessing = Preprocessing(_mean(train_part.images, recipe.data.mean)).to(where)
        model = model.to(where).to(memory_format=torch.channels_last)
        batches = ResidentBatches(
            train_part,
            preprocessing,
            recipe.batch.size,
            recipe.data.pad,
            recipe.data.flip,
            recipe.seed,
            where,
            world.rank,
            world.size,
        )

        def measure(part: Dataset) -> dict[str, Any]:
            return asdict(evaluate(model, preprocessing, part.images, part.targets, world))

        # Validation, where there is a part for it, is what the curve shows while choosing; the paper's
        # figures show the test error, which nothing here is chosen by.
        curve, part = (held_out, "validation") if held_out else (test, "test")
        run = Run(recipe, model, batches, lambda: measure(curve), part, folder, world, again, eager, log)
        _continue(run, where, data_dir, resume)
        run.train()
        if world.is_main:
            count = sum(len(part) for part in (train_part, held_out, test) if part)
            print(f"{recipe.name}: measuring the final weights on {count:,} pictures", file=sys.stderr)
        results: dict[str, Any] = {
            "recipe": recipe.name,
            "iterations": run.progress.iteration,
            "seconds": run.progress.seconds,
            "parameters": sum(p.numel() for p in model.parameters()),
            "train": measure(train_part),
            "validation": measure(held_out) if held_out else None,
            "best_validation_top1_error": run.progress.best,
            "test": measure(test),
        }
        if world.is_main:
            folder.remove_unfinished_weights()
            save_weights(
                folder.weights,
                model,
                name=recipe.model.name,
                options=options,
                preprocessing=preprocessing,
                classes=test.classes,
                recipe=recipe.model_dump(mode="json"),
                results=results,
            )
            folder.finish(results)
        world.barrier()
        return results
    except KeyboardInterrupt:
        raise Interrupted(
            f"stopped; all iterations are done and kept, continue with: {again}", signal.SIGINT
        ) from None
    except torch.OutOfMemoryError:
        raise InputError(f"{recipe.name}: {memory_ran_out(where)}") from None
    except OSError as error:
        raise InputError(
            f"{out}: cannot write: {error.strerror}; what was there is untouched, continue with: {again}"
        ) from None
    finally:
        folder.close()


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
    _check_pictures(weights.model, str(path), pictures.images)
    weights.model.to(device).to(memory_format=torch.channels_last)
    weights.preprocessing.to(device)
    return weights, pictures.to(device)


def pick_device(name: str) -> torch.device:
    """Return the device that a name stands for: "auto" is this process's GPU where there is one.

    Raises:
        InputError: when there is no such device.
    """
    available = torch.cuda.is_available()
    if name == "auto":
        name = "cuda" if available else "cpu"
    if name == "cuda":
        name = f"cuda:{distributed.local_rank()}"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise InputError(f"--device {name}: known are auto, cpu, cuda and cuda:N")
    if device.type == "cuda":
        if not available or (device.index or 0) >= torch.cuda.device_count():
            raise InputError(
                f"--device {name}: PyTorch sees {torch.cuda.device_count() if available else 0} GPUs here; "
                "use --device cpu, or torchrun with as many processes as there are GPUs"
            )
        torch.cuda.set_device(device)
    return device


def _check_ranks(recipe: Recipe, world: World) -> None:
    size = recipe.batch.size
    local = size // world.size
    if local < 2 or size % world.size or local % min(recipe.batch.bn_group, local):
        raise InputError(
            f"batch.size {size} cannot be shared by {world.size} processes in whole BN groups of "
            f"{recipe.batch.bn_group}; start a number of processes that divides it so"
        )


@torch.inference_mode()
def _check_pictures(model: Classifier, name: str, images: Tensor) -> None:
    """Raise an InputError when a network's last map would be empty: VGG halves pictures five times."""
    training = model.training
    try:
        model.eval()(torch.zeros(1, *images.shape[1:]))
    except RuntimeError:
        size = " x ".join(map(str, images.shape[2:]))
        raise InputError(f"{name} cannot take pictures of {size} pixels; they are too small for it") from None
    model.train(training)


def remembered_data_dir(path: Path) -> Path | None:
    """Return where the data of a run lay in its last session, None where none is known or it is gone.

    Args:
        path: the run folder, or the weights folder in it.
    """
    for folder in (path, path.parent):
        file = RunFolder(folder).environment_file
        if file.is_file() and (stored := read_json(file)[-1].get("data_dir")) and Path(stored).is_dir():
            return Path(stored)
    return None


def _continue(run: Run, device: torch.device, data_dir: Path | None, resume: bool) -> None:
    """Take up a run where its newest checkpoint left it, or at the start, and note the session."""
    checkpoints = run.folder.checkpoints()
    if checkpoints:
        run.restore(checkpoints[-1])
    # No rank writes before all have read.
    run.world.barrier()
    if run.world.is_main:
        departures = _departures(run.recipe, run.world)
        for departure in departures:
            print(f"note: this run departs from its recipe: {departure}", file=sys.stderr)
        if resume:
            at = f"continuing at iteration {run.progress.iteration:,}" if checkpoints else "starting anew"
            why = "" if checkpoints else ": no checkpoint was due before it stopped"
            print(f"{run.recipe.name}: {at}{why}", file=sys.stderr)
        session = {
            "iteration": run.progress.iteration,
            "departures": departures,
            "data_dir": str(data_dir.resolve()) if data_dir else None,
        }
        run.folder.add_session(describe(device, run.world.size) | session)
        run.folder.cut_metrics(run.progress.iteration)


def _parts(recipe: Recipe, data_dir: Path | None) -> tuple[Dataset, Dataset | None, Dataset]:
    """Return the training, validation (or None) and test parts."""
    train_part = load_dataset(recipe.data.dataset, "train", data_dir)
    test = load_dataset(recipe.data.dataset, "test", data_dir)
    if not recipe.data.validation:
        return train_part, None, test
    train_part, held_out = split_validation(train_part, recipe.data.validation, recipe.data.split_seed)
    return train_part, held_out, test


def _mean(images: Tensor, kind: str) -> Tensor:
    """Return the mean of uint8 (N, C, H, W) over the pictures, (C, H, W), or over the pixels too, (C,)."""
    # Whole numbers add up exactly, in any order; a thousand pictures at a time take little memory.
    total = torch.stack([part.sum(dim=0, dtype=torch.int64) for part in images.split(1000)]).sum(dim=0)
    mean = total.double() / (255 * len(images))
    return (mean if kind == "per-pixel" else mean.mean(dim=(1, 2))).float()


def _departures(recipe: Recipe, world: World) -> list[str]:
    """Return in which ways a run on these ranks differs from what the recipe says."""
    wanted = min(recipe.batch.bn_group, recipe.batch.size)
    group = min(wanted, recipe.batch.size // world.size)
    if group == wanted:
        return []
    return [f"BN statistics over {group} pictures on each of {world.size} ranks, not over {wanted}"]


def _tensorboard(folder: Path) -> Callable[[dict[str, Any]], None]:
    """Return what writes a line of metrics.jsonl as TensorBoard's events."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise InputError(
            "--tensorboard needs the package tensorboard: pip install 'residual[tensorboard]'"
        ) from None

    # Opened by the first line: until then the run folder may not be there.
    writer = functools.cache(lambda: SummaryWriter(str(folder)))

    def log(line: dict[str, Any]) -> None:
        for part in line.keys() & {"train", "validation", "test"}:
            for value in ("loss", "top1_error"):
                writer().add_scalar(f"{part}/{value}", line[part][value], line["iteration"])
        writer().add_scalar("learning_rate", line["learning_rate"], line["iteration"])
        writer().flush()

    return log
