"""From a detection recipe to a complete run folder; from a detector's folder to precisions and detections."""

import functools
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .. import distributed
from ..data.boxes import BoxDataset
from ..data.photos import PhotoBatches
from ..detection.alternating import AlternatingRCNN
from ..detection.backbones import cut, fix_batch_norm, folded, measure_batch_norm
from ..detection.evaluation import Found, find_all
from ..detection.faster_rcnn import FasterRCNN
from ..detection.precision import (
    mean_precision,
    voc_precision,
)
from ..detection.testing import Options, input_size
from ..detection.training import work
from ..detection.weights import (
    build_detector,
    is_detector,
    read_detector,
    save_detector,
    take_over,
)
from ..distributed import World
from ..errors import InputError
from ..gpu import set_arithmetic
from ..memory import keep_freed_memory
from ..models import build_model
from ..models.classifier import Classifier
from ..models.preprocessing import Preprocessing
from ..models.weights import load_weights
from ..randomness import Stream, mix
from ..recipes import DetectionRecipe
from ..recipes.detection import Boxes, Detector
from ..recipes.schema import Model
from ..training.folder import RunFolder, read_json
from ..training.loop import Run
from .boxes import load_boxes, tell_notes
from .checks import remembered_data_dir
from .devices import pick_device
from .session import (
    check_same_data,
    continue_run,
    everywhere,
    in_iterations,
    tell_unreadable,
    tensorboard_log,
    troubles,
)

#: Pictures over which BN statistics are averaged for a network that starts from scratch.
MEASURED = 64
#: The mean of ImageNet's channels, in units of [0, 1]: a network from scratch has no mean of its own.
MEAN = (0.485, 0.456, 0.406)


def train_detector(
    recipe: DetectionRecipe | None,
    out: Path,
    *,
    data_dir: Path | None = None,
    device: str = "auto",
    resume: bool = False,
    tensorboard: bool = False,
) -> dict[str, Any]:
    """Train a recipe's detector in the run folder ``out``, and return the final numbers (results.json).

    Args, Raises: as ``run.train``.
    """
    where = pick_device(device)
    world = distributed.join(where)
    folder = RunFolder(out)
    recipe = RunFolder.check(out, recipe, resume, DetectionRecipe)
    data_dir = data_dir or remembered_data_dir(out)
    if recipe.batch.size % world.size:
        raise InputError(
            f"batch.size {recipe.batch.size} cannot be shared by {world.size} processes; start a number of "
            "processes that divides it"
        )
    if folder.results_file.exists():
        return read_json(folder.results_file)
    if data_dir is None:
        raise InputError("name the folder of the annotated pictures with --data-dir")
    data = recipe.data
    train = load_boxes(data_dir, data, data.train, data.classes or None)
    test = load_boxes(data_dir, data, data.test, train.classes) if data.test else None
    check_same_data(folder, train.identity(), resume)
    begin = _start(recipe, train, world)
    detector, note = begin.model, begin.note
    batches = _batches(recipe, train, begin.model, world)
    schedule = in_iterations(recipe, len(train))
    log = tensorboard_log(out / "tensorboard") if tensorboard and world.is_main else None
    again = shlex.join(
        ["residual", "detect", "train", "--resume", "--out", str(out), "--data-dir", str(data_dir)]
    )
    world.barrier()
    if world.is_main:
        folder.open(recipe, resume)
    world.barrier()
    with troubles(recipe.name, folder, where, again):
        keep_freed_memory()
        # RoI pooling has no kernel on a GPU that gives the same bits each time.
        set_arithmetic(where, recipe.precision, deterministic=False, one_size=False)
        detector = detector.to(where).to(memory_format=torch.channels_last)
        model = AlternatingRCNN(detector) if recipe.training == "alternating" else detector
        skipped: dict[str, str] = {}

        def measure() -> dict[str, Any]:
            if test is None:
                return {"ap50": None, "pictures": 0}
            how = Options(data.shorter_side, data.longer_side, precision=recipe.precision)
            fast = folded(detector)
            assert isinstance(fast, FasterRCNN)
            found = find_all([fast], test, how, world, damaged=data.damaged)
            skipped.update(found.unusable)
            return _line(test, found, data)

        lasting = recipe.model_copy(update={"schedule": schedule})
        run = Run(
            lasting,
            model,
            batches,
            measure,
            "test",
            folder,
            world,
            again,
            log=log,
            work=work(model, batches, lasting, world, where),
        )
        if world.is_main:
            tell_notes([*train.notes, *(test.notes if test else ())], out / "left-out.txt")
        continue_run(run, where, data_dir, resume, note, [], train.identity())
        run.train()
        batches.close()
        unreadable = everywhere(world, batches.unreadable | skipped)
        results: dict[str, Any] = {
            "recipe": recipe.name,
            "iterations": run.progress.iteration,
            "seconds": run.progress.seconds,
            "parameters": sum(p.numel() for p in detector.parameters()),
            "classes": dict(zip(train.classes, train.counts(), strict=True)),
            "train_pictures": len(train),
            "test": run.last,
            "left_out": len(train.notes) + (len(test.notes) if test else 0),
            "unreadable_pictures": len(unreadable),
        }
        if world.is_main:
            folder.remove_unfinished_weights()
            save_detector(
                folder.weights,
                detector,
                numbers=begin.numbers,
                options=begin.options,
                classes=train.classes,
                categories=train.categories,
                sides=(data.shorter_side, data.longer_side),
                recipe=recipe.model_dump(mode="json"),
                results=results,
            )
            folder.finish(results)
            tell_unreadable(unreadable, out)
        world.barrier()
        return results


@dataclass(frozen=True)
class _Start:
    """A detector to be trained, on the CPU.

    Attributes:
        numbers, options: what builds it, the network's name and options included.
        note: what it starts from, None for scratch.
    """

    model: FasterRCNN
    numbers: Detector
    options: dict[str, Any]
    note: str | None


def _start(recipe: DetectionRecipe, train: BoxDataset, world: World) -> _Start:
    torch.manual_seed(mix(recipe.seed, Stream.WEIGHTS))
    numbers = recipe.detector
    wanted = numbers.backbone
    if wanted.name == "weights":
        raise InputError(f"{recipe.name} starts from trained weights; name them with --weights")
    if wanted.weights and is_detector(Path(wanted.weights)):
        stored = read_detector(Path(wanted.weights))
        backbone = stored.model.backbone
        detector = build_detector(numbers, backbone, len(train.classes), stored.model.preprocessing)
        same = stored.classes == train.classes
        take_over(detector, stored.model.state_dict(), same)
        but = "" if same else f" but its last layers, which start anew for {len(train.classes)} classes"
        return _Start(detector, numbers, stored.config.options, f"the detector {wanted.weights}{but}")
    network, preprocessing, options, note = _classifier(recipe, train)
    backbone = cut(network)
    fix_batch_norm(backbone)
    detector = build_detector(numbers, backbone, len(train.classes), preprocessing)
    return _Start(detector, numbers, options, note)


def _classifier(
    recipe: DetectionRecipe, train: BoxDataset
) -> tuple[Classifier, Preprocessing, dict[str, Any], str | None]:
    """Return the network that a detector is made from, its preprocessing, options, and what it is."""
    wanted = recipe.detector.backbone
    if wanted.weights is None:
        options: dict[str, Any] = wanted.options()
        network = build_model(wanted.name, **options)
        preprocessing = Preprocessing(torch.tensor(MEAN))
        # All ranks measure the same pictures, so that they start from the same network.
        batches = _batches(recipe, train, None, World())
        count = -(-min(MEASURED, len(train)) // recipe.batch.size)
        pictures = (picture.image for number in range(count) for picture in batches(number))
        measure_batch_norm(network, (preprocessing(image[None]) for image in pictures))
        batches.close()
        return network, preprocessing, options, None
    stored = load_weights(Path(wanted.weights))
    name = stored.config["model"]["name"]
    if name != wanted.name:
        raise InputError(
            f"{wanted.weights} is a {name} and the recipe is for a {wanted.name}; leave the network to "
            "--weights"
        )
    if stored.model.in_channels != 3:
        raise InputError(f"{wanted.weights} takes pictures of {stored.model.in_channels} channels, not of 3")
    mean = stored.preprocessing.mean
    # A mean picture fits one size only; its channels' means fit all.
    preprocessing = Preprocessing(mean.mean(dim=(1, 2)), stored.preprocessing.std.flatten())
    options = stored.config["model"]["options"]
    return stored.model, preprocessing, options, f"the classifier {wanted.weights}"


def take_backbone(recipe: DetectionRecipe, weights: Path) -> DetectionRecipe:
    """Return a recipe that starts from a folder with a classifier or a detector, with its network.

    A detector brings what its layers and its pictures are made for: anchors, pooling, proposals at test time.
    How it is to learn stays the recipe's.

    Raises:
        InputError: when there are no weights, or the recipe has global context and the detector has none.
    """
    if is_detector(weights):
        numbers = Detector.model_validate(read_detector(weights).config.detector)
        wanted = recipe.detector
        if wanted.global_context and not numbers.global_context:
            raise InputError(
                f"{recipe.name} has global context and {weights} was trained without; start it from a "
                "classifier"
            )
        kept = numbers.model_copy(
            update={
                "backbone": numbers.backbone.model_copy(update={"weights": str(weights)}),
                **{key: getattr(wanted, key) for key in ("freeze", "regions", "train_proposals")},
            }
        )
        return recipe.model_copy(update={"detector": kept})
    network = load_weights(weights).config["model"]
    backbone = Model(
        name=network["name"],
        weights=str(weights),
        shortcut=network["options"].get("shortcut"),
        variant=network["options"].get("variant"),
    )
    return recipe.model_copy(update={"detector": recipe.detector.model_copy(update={"backbone": backbone})})


def _batches(
    recipe: DetectionRecipe, train: BoxDataset, detector: FasterRCNN | None, world: World
) -> PhotoBatches:
    data = recipe.data
    stride = detector.backbone.stride if detector else 1
    size = functools.partial(input_size, shorter=data.shorter_side, longer=data.longer_side, stride=stride)
    return PhotoBatches(
        train, size, recipe.batch.size, data.flip, recipe.seed, world.rank, world.size, data.damaged
    )


def _line(test: BoxDataset, found: Found, data: Boxes) -> dict[str, Any]:
    """Return what a log line says of an evaluation: VOC's mean precision, in percent."""
    classes = voc_precision(test, found.detections, data.precision)
    return {
        "ap50": 100 * mean_precision(classes) if any(c.objects for c in classes) else None,
        "classes": {c.name: 100 * c.average_precision if c.objects else None for c in classes},
        "pictures": len(test),
        "images_per_second": found.images_per_second,
    }
