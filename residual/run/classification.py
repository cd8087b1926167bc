"""What a run of a classifier has of its own."""

import sys
from pathlib import Path
from typing import Any

import torch

from ..class_names import Form
from ..device import open_device
from ..distributed import World
from ..errors import InputError, OtherData, plural
from ..evaluation.inputs import check_input
from ..evaluation.labelled import LabelledImages
from ..evaluation.recorded import RecordedTests
from ..evaluation.scores import Scores, load_scores, save_scores
from ..evaluation.testing import Evaluation
from ..evaluation.views import score
from ..models.classifier import Classifier
from ..models.inference import for_inference
from ..models.layout import MODEL_FILE
from ..models.own import OwnNetwork
from ..models.weights import load_weights, save_weights
from ..recipes import Recipe
from ..recipes.schema import Schedule
from ..terminal import note
from ..training.classification import COMPILED, classification_work
from ..training.folder import RunFolder
from ..training.loop import Run, Work
from .findings import classifier_findings
from .sources import Resident, open_source
from .start import start_classifier, teacher_of
from .task import Task, check_classes


class ClassificationTask(Task):
    """A recipe's network on its data; see ``Task``.

    Attributes:
        model: what is trained: the network, or its objective, with companions beside it.
        network: what is tested and saved.
        tests: of it while it learns, where they are recorded.
    """

    command = ("residual", "train")
    one_size = True
    recipe: Recipe
    network: Classifier
    notes = ()
    tests: RecordedTests | None = None

    def __init__(self, recipe: Recipe, data_dir: Path | None, world: World) -> None:
        _check_ranks(recipe, world)
        self.recipe = recipe
        self.world = world
        self.source = open_source(recipe, data_dir)
        if recipe.data.mean == "weights" and recipe.data.std:
            raise InputError("data.mean=weights brings the deviations of the weights; leave data.std out")
        if recipe.model.weights is None and "weights" in (recipe.model.name, recipe.data.mean):
            raise InputError(f"{recipe.name} starts from trained weights; name them with --weights")
        if recipe.schedule.plateau and "validation" not in self.source.images:
            raise InputError("schedule.plateau follows the validation error; set data.validation, as 5000")
        self.images = self.source.images["train"]
        self.mends = recipe.data.folder is not None and recipe.data.folder.damaged == "fatal"
        # Validation, where there is a split for it, is what the curve shows while choosing; the paper's
        # figures show the test error, which nothing here is chosen by.
        self.split = "validation" if "validation" in self.source.images else "test"
        self.departures = _departures(recipe, world)

    def fingerprint(self, form: Form = "NFC") -> dict[str, Any]:
        return self.source.fingerprint(form)

    def start(self, begun: RunFolder | None = None) -> None:
        kept = begun.read_start() if begun else None
        begin = start_classifier(self.recipe, self.source.classes, self.source.shape[0], kept)
        check_input(begin.model, self.recipe.model.name, self.source.shape)
        if self.world.is_main:
            note(*self.source.notes)
        self.network = begin.model
        teacher = teacher_of(self.recipe, self.source.classes, begin.model.in_channels, begun is not None)
        self.model = self.network.taught_by(teacher) if teacher else self.network.objective()
        self.options = begin.options
        self.started_from = begun.started_from() if begun and kept else begin.note
        self._stored = begin.preprocessing

    def record(self, folder: RunFolder) -> None:
        if self._stored:
            folder.write_start(self._stored)
        if splits := self.source.divided():
            folder.write_split({split: index.listed() for split, index in splits.items()})

    def place(self, device: torch.device, schedule: Schedule, eager: bool) -> Work:
        # One rank measures the training set and tells the others, whose cache folder may be another one.
        if self.world.is_main:
            self.source.preprocessing(self._stored)
            # Colour noise is along the set's own colours where the mean is that of the weights, too.
            self.source.colours()
        self.source.measured = self.world.gather(self.source.measured)[0]
        self.device = device
        self.preprocessing = self.source.preprocessing(self._stored).to(device)
        self.model = self.model.to(device).to(memory_format=self.network.memory_format)
        batches = self.source.batches(self.preprocessing, device, self.world)
        self.batches = batches
        recordable = self.world.size == 1 and isinstance(self.source, Resident)
        # What a user's own network keeps, and where, nobody knows.
        if recordable and device.type in COMPILED and not eager and not isinstance(self.network, OwnNetwork):
            self.tests = RecordedTests(self.network, device, self._not_recorded)
        lasting = self.recipe.model_copy(update={"schedule": schedule})
        return classification_work(self.model, batches, lasting, self.world, device, eager)

    def _not_recorded(self, reason: str) -> None:
        said = (
            f"{self.recipe.name}: recording the tests of the network failed, so they go on kernel by kernel"
        )
        note(f"{said}, slower, to the same numbers ({reason})")

    def evaluate(self) -> dict[str, Any]:
        return self._evaluate(self.split)

    def _evaluate(self, split: str, final: bool = False) -> dict[str, Any]:
        """Return the metrics on a split; the final ones come with the scores, which are kept."""
        if self.tests:
            model, scoring = self.tests.ready(), self.tests.score
        else:
            model, scoring = for_inference(self.network, self.device), score
        keep = final and split == self.split
        with self.showing(f"{split} images", self.source.images[split]) as show:
            found = self.source.evaluate(
                model, self.preprocessing, split, self.world, keep, scoring, progress=show
            )
        if keep:
            self._scores = self._scores_of(found)
        return found.metrics.plain()

    def _scores_of(self, found: Evaluation) -> Scores:
        images, views = self.source.labelled(self.split)
        about = {"run": self.recipe.name, "data": images.name, "split": self.split, "views": str(views)}
        about["content"] = images.content()
        scores = found.scores(images, self.source.classes, images.targets, about)
        assert scores is not None
        return scores

    def results(self, run: Run) -> dict[str, Any]:
        images = self.source.images
        # Reading a large training set once more, for its error without augmentation, would take an epoch.
        measured = [split for split in images if split != "train" or not self.recipe.data.folder]
        if self.world.is_main:
            count = sum(images[split] for split in measured)
            print(
                f"{self.recipe.name}: measuring the final weights on {plural(count, 'image')}",
                file=sys.stderr,
            )
        found = {split: self._evaluate(split, final=True) for split in measured}
        return {
            "parameters": sum(p.numel() for p in self.network.parameters()),
            "train": found.get("train"),
            "validation": found.get("validation"),
            "best_validation_top1_error": run.progress.best,
            "test": found.get("test"),
            "colours": self.source.colours(),
        }

    def unreadable(self) -> dict[str, str]:
        return {
            f"train/{id}": reason for id, reason in self.batches.unreadable.items()
        } | self.source.unreadable

    def keep(self, folder: RunFolder) -> None:
        # There from a session that was killed before it could finish the run.
        folder.scores_file.unlink(missing_ok=True)
        if self._scores.finite:
            save_scores(self._scores, folder.scores_file)

    def findings(self, folder: RunFolder, device: str) -> dict[str, Any] | None:
        images, _ = self.source.labelled(self.split)
        splits, held_out = self.source.divided(), folder.held_out()
        # Of a folder that has grown since others are held out now, and they were trained on.
        if splits and held_out not in (None, splits["validation"].files):
            raise OtherData(_others(folder.split_file, images))
        complete = folder.results_file.exists()
        if complete and folder.scores_file.exists():
            scores = load_scores(folder.scores_file)
            # Earlier versions did not note them.
            if scores.about.get("content") not in (None, images.content()):
                raise OtherData(_others(folder.scores_file, images))
            return classifier_findings(scores, images)
        if not (folder.weights / MODEL_FILE).exists():
            return None
        print(f"{folder.path}: testing on {plural(self.source.images[self.split], 'image')}", file=sys.stderr)
        where = open_device(device)
        stored = load_weights(folder.weights)
        check_classes(stored.classes, self.source.classes, folder.path, images.name)
        model, preprocessing = for_inference(stored.model, where), stored.preprocessing.to(where)
        self._scores = self._scores_of(
            self.source.evaluate(model, preprocessing, self.split, World(), keep_scores=True)
        )
        if complete:
            self.keep(folder)
        if not self._scores.finite:
            raise OtherData(f"the scores of {folder.weights} are no numbers (NaN): it has learned nothing")
        return classifier_findings(self._scores, images)

    def save(self, folder: Path, results: dict[str, Any]) -> None:
        save_weights(
            folder,
            self.network,
            name=self.recipe.model.name,
            options=self.options,
            preprocessing=self.preprocessing,
            classes=self.source.classes,
            recipe=self.recipe.model_dump(mode="json"),
            results=results,
        )


def _others(file: Path, images: LabelledImages) -> str:
    return f"{file} is of other images or classes than there are now in {images.name}; put them back"


def _check_ranks(recipe: Recipe, world: World) -> None:
    size = recipe.batch.size
    local = size // world.size
    if local < 2 or size % world.size or local % min(recipe.batch.bn_group, local):
        raise InputError(
            f"batch.size {size} cannot be shared by {world.size} processes in whole BN groups of "
            f"{recipe.batch.bn_group}; start a number of processes that divides it so"
        )


def _departures(recipe: Recipe, world: World) -> list[str]:
    """Return in which ways a run on these ranks differs from what the recipe says."""
    wanted = min(recipe.batch.bn_group, recipe.batch.size)
    group = min(wanted, recipe.batch.size // world.size)
    if group == wanted:
        return []
    return [f"BN statistics over {group} images on each of {world.size} ranks, not over {wanted}"]
