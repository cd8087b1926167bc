"""What a run of a localizer has of its own; that of a second stage has more (rcnn.py)."""

import sys
from pathlib import Path
from typing import Any

import torch

from ..class_names import Form
from ..data.box_batches import AnnotatedBatches, CropBatches
from ..data.crops import ScaleCrop
from ..data.located import load_located
from ..detection.average_precision import Detections
from ..detection.testing import load_detections, save_detections
from ..device import open_device
from ..distributed import World
from ..errors import InputError, plural
from ..evaluation.inputs import usual_size
from ..evaluation.views import make_views
from ..localization.model import PerClassRegression, head_memory
from ..localization.rcnn import AnyLocalizer
from ..localization.testing import (
    View,
    errors_of,
    guessed_classes,
    locate_images,
    mean_box,
    middle_boxes,
    true_classes,
)
from ..localization.training import localization_work
from ..localization.weights import (
    build_localizer,
    is_localizer,
    outline_localizer,
    read_localizer,
    save_localizer,
)
from ..models.classifier import Classifier
from ..models.inference import fold_batchnorm
from ..models.layout import MODEL_FILE
from ..models.preprocessing import Preprocessing
from ..models.weights import load_weights
from ..randomness import Stream, mix
from ..recipes import LocalizationRecipe
from ..recipes.schema import Schedule
from ..terminal import note
from ..training.folder import RunFolder
from ..training.loop import Run, Work
from .box_findings import localizer_findings
from .start import trained_network
from .task import Task, check_classes, check_shared, identities


class LocalizationTask(Task):
    """A recipe's localizer on its data, by per-class regression; see ``Task``."""

    recipe: LocalizationRecipe
    command = ("residual", "locate", "train")
    one_size = True
    #: A folder's ``val``; as for detectors nothing is chosen by it.
    split = "test"

    def __init__(self, recipe: LocalizationRecipe, data_dir: Path | None, world: World) -> None:
        check_shared(recipe.batch.size, world)
        if data_dir is None:
            raise InputError("name the folder that holds train/ and val/ and their boxes with --data-dir")
        self.recipe = recipe
        self.check_start()
        self.world = world
        self.train = load_located(data_dir, "train")
        self.test = load_located(data_dir, "val", self.train.index.classes)
        self.images = len(self.train)
        self.mends = recipe.data.damaged == "fatal"
        self.notes = [*self.train.boxes.notes, *self.test.boxes.notes]
        self.departures: list[str] = []
        self._skipped: dict[str, str] = {}

    def check_start(self) -> None:
        """Raise an InputError where the recipe does not say what the run starts from."""
        if self.recipe.localizer.backbone.weights is None:
            raise InputError(f"{self.recipe.name} starts from a trained classifier; name it with --weights")

    def fingerprint(self, form: Form = "NFC") -> dict[str, Any]:
        return self.train.boxes.fingerprint() | identities([self.train.boxes, self.test.boxes], form)

    def start(self, begun: RunFolder | None = None) -> None:
        recipe = self.recipe
        if self.world.is_main:
            # Of folders; what is wrong with boxes is listed in the run folder.
            note(*dict.fromkeys([*self.train.index.notes, *self.test.index.notes]))
        self.localizer: AnyLocalizer
        # Those of the recipe, with which the classifier's agree: a resumed run has no others.
        self.options = recipe.localizer.backbone.options()
        if begun:
            # The checkpoint has every number, those of the preprocessing too.
            classes, size = len(self.train.index.classes), recipe.data.size
            self.localizer = outline_localizer(recipe.localizer, recipe.rcnn, self.options, classes, size)
            self.started_from = begun.started_from()
        else:
            self.localizer, self.started_from = self.begin()
        self.model = self.localizer
        if self.world.is_main and isinstance(self.localizer, PerClassRegression):
            at_once = min(recipe.batch.at_once, recipe.batch.size)
            note(head_memory(self.localizer, at_once, recipe.data.size))

    def begin(self) -> tuple[AnyLocalizer, str]:
        """Return the localizer that a fresh run starts with, and what that is made from."""
        network, preprocessing = self.classifier()
        torch.manual_seed(mix(self.recipe.seed, Stream.WEIGHTS))
        classes = len(self.train.index.classes)
        localizer = build_localizer(self.recipe.localizer, network, classes, preprocessing)
        return localizer, f"the classifier {self.recipe.localizer.backbone.weights}"

    def classifier(self) -> tuple[Classifier, Preprocessing]:
        """Return the classifier that the run starts from, and how images of any size are prepared for it."""
        stored = trained_network(self.recipe.localizer.backbone, channels=3)
        # A mean image fits one size only; its channels' means fit all.
        mean = stored.preprocessing.mean.mean(dim=(1, 2))
        return stored.model, Preprocessing(mean, stored.preprocessing.std.flatten())

    def record(self, folder: RunFolder) -> None:
        """Which images are in which split is said by the folder."""

    def place(self, device: torch.device, schedule: Schedule, eager: bool) -> Work:
        self.device = device
        self.localizer = self.localizer.to(device).to(memory_format=torch.channels_last)
        self.model = self.localizer
        self.batches = self.make_batches()
        lasting = self.recipe.model_copy(update={"schedule": schedule})
        return localization_work(self.localizer, self.batches, lasting, self.world, device)

    def make_batches(self) -> AnnotatedBatches:
        """Return this rank's training batches."""
        recipe, data = self.recipe, self.recipe.data
        return CropBatches(
            self.train.boxes,
            ScaleCrop(data.size, *data.sides),
            recipe.batch.size,
            data.flip,
            recipe.seed,
            self.world.rank,
            self.world.size,
            data.damaged,
        )

    def evaluate(self) -> dict[str, Any]:
        """Return what a log line says of an evaluation: errors in percent, centre crop and true class."""
        return self._located(dense=False)

    def _located(self, dense: bool, labels: torch.Tensor | None = None) -> dict[str, Any]:
        """Return the error of a protocol on the held-out images.

        Args:
            labels: the classes that are asked for, int64 (N, T); None for the true one.
        """
        dataset, data = self.test.boxes, self.recipe.data
        asked = true_classes(dataset) if labels is None else labels
        view = View(data.size, dense)
        if self.world.is_main:
            print(f"{self.recipe.name}: testing on {plural(len(dataset), 'image')}, {view}", file=sys.stderr)
        with self.showing("images", len(dataset)) as show:
            model = fold_batchnorm(self.localizer)
            found = locate_images(
                model, dataset, asked, view, self.world, damaged=data.damaged, progress=show
            )
        self._skipped |= found.unusable
        if dense and labels is None:
            #: Which images could be looked at.
            self._usable = found.usable
            #: For the page: a box of each of these, and none of the others.
            self._found = [
                Detections(box, score, label)[usable]
                for box, score, label, usable in zip(
                    found.boxes, found.scores, asked, found.usable[:, None], strict=True
                )
            ]
        errors = errors_of(dataset, asked, found)
        return {
            "localization_error": errors.localization,
            "classification_error": errors.classification,
            "images": len(errors.right),
            "images_per_second": found.images_per_second,
        }

    def results(self, run: Run) -> dict[str, Any]:
        dataset = self.test.boxes
        dense = self._located(dense=True)
        trivial = middle_boxes(dataset, mean_box(self.train.boxes), self._usable)
        middle = errors_of(dataset, true_classes(dataset), trivial)
        return {
            "parameters": sum(p.numel() for p in self.localizer.parameters()),
            "classes": len(self.train.index.classes),
            "train_images": len(self.train),
            "test": run.last,
            "dense": dense,
            "guessed": self._guessed(),
            "middle_box": {"localization_error": middle.localization, "images": len(middle.right)},
            "left_out": len(self.notes),
        }

    def _guessed(self) -> dict[str, Any] | None:
        """Return the error with the classes that the classifier guesses from which the run started.

        None where it is not there any more, or tells other classes apart.
        """
        weights = self.recipe.localizer.backbone.weights
        assert weights is not None
        try:
            stored = load_weights(Path(weights))
            views = make_views("center", *usual_size(stored))
            labels = guessed_classes(stored, self.test, views, self.device, self.world)
        except InputError as error:
            if self.world.is_main:
                note(f"no classes were guessed ({error}); residual locate evaluate --classifier does")
            return None
        return self._located(dense=True, labels=labels) | {"classifier": weights, "views": str(views)}

    def unreadable(self) -> dict[str, str]:
        return {
            f"{split}/{id}": reason
            for split, found in (("train", self.batches.unreadable), ("val", self._skipped))
            for id, reason in found.items()
        }

    def keep(self, folder: RunFolder) -> None:
        save_detections(folder.detections_file, self.test.boxes, self._found)

    def findings(self, folder: RunFolder, device: str) -> dict[str, Any] | None:
        complete = folder.results_file.exists()
        if complete and folder.detections_file.exists():
            kept = load_detections(folder.detections_file, self.test.boxes)
            return localizer_findings(self.test.boxes, kept)
        if not is_localizer(folder.weights) or not (folder.weights / MODEL_FILE).exists():
            return None
        stored = read_localizer(folder.weights)
        check_classes(stored.config.classes, self.train.index.classes, folder.path, self.test.boxes.name)
        self.localizer = stored.model.to(open_device(device)).to(memory_format=torch.channels_last)
        self._located(dense=True)
        if complete:
            self.keep(folder)
        return localizer_findings(self.test.boxes, self._found)

    def save(self, folder: Path, results: dict[str, Any]) -> None:
        save_localizer(
            folder,
            self.localizer,
            localizer=self.recipe.localizer,
            rcnn=self.recipe.rcnn,
            options=self.options,
            classes=self.train.index.classes,
            size=self.recipe.data.size,
            mean_box=mean_box(self.train.boxes),
            recipe=self.recipe.model_dump(mode="json"),
            results=results,
        )
