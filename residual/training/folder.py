"""The run folder: everything a run leaves behind, and the rule that nothing in it is overwritten.

recipe.yaml          what was asked for
environment.json     a list: command, commit, versions and hardware of each session of the run
split.csv            which images are held out, where the run has divided a folder of images
metrics.jsonl        one line an evaluation
checkpoint-*         the newest two
weights/             the final network (models/weights.py)
left-out.txt, unreadable.txt  what is wrong with annotations, and with images
tensorboard/         TensorBoard's events, where they were asked for
start.safetensors    the preprocessing of the weights that the run started from: resuming needs no other file
best/                the network of the lowest validation error, where there is such a split: not the result
scores.safetensors   what a classifier saw in each held-out image (evaluation/scores.py), or
detections.safetensors  what a detector found on it: the page is made of it
proposals.safetensors  where a localizer proposes objects in each training image, for an R-CNN
results.json         the final numbers; where it is, the run is complete
report.html          the run's page, which can be made again (run/page.py)
"""

import contextlib
import csv
import functools
import io
import json
import os
import shlex
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field

from ..class_names import class_name
from ..data.folder import FolderIndex, index_folder, parts_of
from ..errors import InputError, on_a_line
from ..files import (
    as_json,
    as_json_line,
    checksum,
    csv_line,
    damaged,
    first_line,
    half_written,
    parse_json,
    read_content,
    read_json,
    read_text,
    read_yaml,
    remove_half_written,
    replace_file,
    without_home,
)
from ..models.layout import CONFIG_FILE, RECIPE_FILE, held_in
from ..models.preprocessing import Preprocessing
from ..recipes import DetectionRecipe, LocalizationRecipe, TrainingRecipe, differences, read
from ..tensors import pack, unpack
from .checkpoint import iteration_of, list_checkpoints


class Kept(BaseModel):
    """What a file of a run has in it: other keys are others' affair, and numbers are numbers."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)


#: None where it was not finite; earlier versions wrote what it was.
Loss = Annotated[float, Field(allow_inf_nan=True)] | None


class TrainingLoss(Kept):
    """What a line of metrics.jsonl says of training, of any run."""

    loss: Loss


class Errors(TrainingLoss):
    """... and of a classifier on a split."""

    top1_error: float


class SplitErrors(Errors):
    """What results.json says of it."""

    images: int


class AnyResults(Kept):
    """What results.json has in it of any run."""

    recipe: str
    iterations: int
    seconds: float
    parameters: int


class ClassifierResults(AnyResults):
    """... and of a classifier's."""

    train: SplitErrors | None
    validation: SplitErrors | None
    test: SplitErrors | None


class Precision50(Kept):
    """... and of a detector's test, VOC's average precisions in percent."""

    ap50: float | None
    images: int
    classes: dict[str, float | None] = {}


class DetectorResults(AnyResults):
    """... and of a detector's; earlier ones held nothing out."""

    classes: dict[str, int]
    validation: Precision50 | None = None
    test: Precision50 | None


class LocalizationError(Kept):
    """... and of a localizer's test, in percent."""

    localization_error: float
    images: int


class LocalizerResults(AnyResults):
    """... and of a localizer's: centre crop, whole image, guessed classes, and a trivial predictor."""

    classes: int
    test: LocalizationError
    dense: LocalizationError
    guessed: LocalizationError | None
    middle_box: LocalizationError


class AnyLine(Kept):
    """What a line of metrics.jsonl has in it of any run."""

    iteration: int = Field(ge=0)
    learning_rate: float
    seconds: float
    train: TrainingLoss


class ClassifierLine(AnyLine):
    """... and of a classifier's: one of the two splits."""

    train: Errors
    validation: Errors | None = None
    test: Errors | None = None


class DetectorLine(AnyLine):
    """... and of a detector's: one of the two splits."""

    validation: Precision50 | None = None
    test: Precision50 | None = None


class LocalizerLine(AnyLine):
    """... and of a localizer's."""

    test: LocalizationError


class Session(Kept):
    """What environment.json has in it of each session; older ones lack what is not always there."""

    data: dict[str, Any] | None = None
    data_dir: str | None = None
    settings: str | None = None
    started_from: str | None = None
    instructions: str | None = None
    launcher: str | None = None
    started: str
    iteration: int
    command: str
    commit: str | None
    device: str
    ranks: int
    threads: int
    python: str
    platform: str
    versions: dict[str, str]
    departures: list[str]


#: What environment.json holds: one session at least.
Sessions = Annotated[list[Session], Field(min_length=1)]

#: What to do about a damaged file of a run.
GONE = "it is not made again by itself: start another run with --out"


class RunFolder:
    """A run's files: ``check`` that the folder is right for a run, ``open`` it, write, ``close``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recipe_file = path / RECIPE_FILE
        self.environment_file = path / "environment.json"
        self.split_file = path / "split.csv"
        self.metrics_file = path / "metrics.jsonl"
        self.start_file = path / "start.safetensors"
        self.results_file = path / "results.json"
        self.weights = path / "weights"
        self.best = path / "best"
        self.scores_file = path / "scores.safetensors"
        self.detections_file = path / "detections.safetensors"
        self.proposals_file = path / "proposals.safetensors"
        self.page = path / "report.html"
        self._new = path / ".new-weights"
        self._lock = FileLock(path / ".lock", timeout=0)

    @staticmethod
    def check(path: Path, recipe: TrainingRecipe | None, resume: bool) -> TrainingRecipe:
        """Return the recipe of the run that the folder is for, without touching the folder.

        Args:
            recipe: what is asked for now; None, when resuming, for the folder's own.
            resume: whether the folder is to hold a run (else it must be new or empty).

        Raises:
            InputError: when the folder holds a run or other files already, or no run, or another recipe's.
        """
        file = path / RECIPE_FILE
        if resume:
            if not file.is_file():
                raise InputError(f"{path} holds no run to resume (there is no {file})")
            RunFolder(path).check_recipe()
            stored: TrainingRecipe = read(file, of_run=True)
            if recipe and (changes := differences(stored, recipe)):
                raise InputError(
                    f"{path}: the run's recipe differs from the one asked for ({'; '.join(changes)}); "
                    "resume it as it was, or start another run with --out; once it is complete, another run "
                    f"goes on from what it has learned: --weights {path} --out FOLDER"
                )
            return stored
        if recipe is None:
            raise InputError("name a recipe to train, or a run with --resume --out FOLDER")
        if file.exists():
            raise InputError(
                f"{path} holds a run already; continue it with --resume, or name another folder with --out"
            )
        halves = half_written(path)  # of a process that was killed before there was a run
        if path.exists() and (
            not path.is_dir() or any(p.name != ".lock" and p not in halves for p in path.iterdir())
        ):
            raise InputError(f"{path} is not an empty folder; name another one with --out")
        return recipe

    def recipe(self) -> TrainingRecipe:
        """Return the recipe of the run that is here.

        Raises:
            InputError: when there is none.
        """
        if not self.recipe_file.is_file():
            if (self.path / CONFIG_FILE).is_file():
                run = run_of(self.path)
                theirs = run.path if run else "the folder of the run that they are of"
                raise InputError(f"{self.path} holds weights and no run; name {theirs}")
            held = held_in(self.path, RECIPE_FILE)
            raise InputError(f"{self.path} holds no run (there is no {self.recipe_file}){held}")
        recipe: TrainingRecipe = read(self.recipe_file, of_run=True)
        return recipe

    def open(self, recipe: TrainingRecipe, resume: bool) -> None:
        """Make the folder a run's, if it is not yet, and keep other processes out until ``close``.

        Raises:
            InputError: when it cannot be written, another process works in it, or one has worked in it since
                ``check``.
        """
        with contextlib.ExitStack() as undone:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                self._lock.acquire()
                undone.callback(self.close)
                # Reading the data takes a while, in which another process may have begun or ended a run here.
                self.check(self.path, recipe, resume)
                if self.results_file.exists():
                    raise InputError(f"{self.path}: another process has completed this run meanwhile")
                self._remove_half_written()
                if not self.recipe_file.exists():
                    replace_file(self.recipe_file, recipe.to_yaml())
            except Timeout:
                raise InputError(f"{self.path}: another process is working on this run") from None
            except OSError as error:
                raise InputError(f"{self.path}: cannot write the run folder: {error.strerror}") from None
            undone.pop_all()

    def close(self) -> None:
        self._lock.release()

    def sweep(self) -> None:
        """Remove what a process was writing when it was killed, unless another one works in the folder."""
        with contextlib.suppress(Timeout, OSError), self._lock:
            self._remove_half_written()

    def _remove_half_written(self) -> None:
        # Earlier versions wrote the best weights beside themselves by that name.
        for folder in (self._new, self.path / ".best"):
            shutil.rmtree(folder, ignore_errors=True)
        remove_half_written(self.path, self.weights.name, self._new.name, ".best")

    def recipe_checksum(self) -> str:
        """Return what tells the recipe from any other; comments and the description decide nothing."""
        value = read_yaml(self.recipe_file)
        value = (
            {key: value[key] for key in value if key != "description"} if isinstance(value, dict) else value
        )
        return checksum(json.dumps(value, sort_keys=True, default=str))

    def check_recipe(self) -> None:
        """Raise an InputError where the recipe is not what the run was begun with."""
        begun = next((session["settings"] for session in self.sessions() if session.get("settings")), None)
        if begun and begun != self.recipe_checksum():
            raise InputError(
                f"a value in {self.recipe_file} was changed after the run was begun; put it back as it was, "
                "or start another run with --out"
            )

    def write_split(self, splits: Mapping[str, Iterable[tuple[str, str]]]) -> None:
        """Write which split each image is in: a line of its path, its class and "train" or "validation".

        Args:
            splits: of each the images' paths and classes.
        """
        lines = [csv_line(("image", "class", "split"))]
        for split, images in splits.items():
            lines += [csv_line((file, name, split)) for file, name in images]
        replace_file(self.split_file, os.fsencode("".join(lines)))

    def held_out(self) -> tuple[str, ...] | None:
        """Return the validation images that ``write_split`` noted, None where it noted nothing.

        Raises:
            InputError: when the file is damaged.
        """
        return self._divided("validation")

    def learned(self) -> tuple[str, ...] | None:
        """Return the training images that ``write_split`` noted, as ``held_out``."""
        return self._divided("train")

    def _divided(self, split: Literal["train", "validation"]) -> tuple[str, ...] | None:
        if not self.split_file.is_file():
            return None
        if images := tuple(image for image, _, part in _split_rows(self.split_file) if part == split):
            return images
        raise damaged(self.split_file, f"it names no image for {split}", GONE)

    def write_start(self, preprocessing: Preprocessing) -> None:
        """Keep what a run has of the weights that it started from and its checkpoints have not."""
        replace_file(self.start_file, pack(preprocessing.state_dict()))

    def read_start(self) -> Preprocessing | None:
        """Return what ``write_start`` wrote; None where it is not there.

        Raises:
            InputError: when it is damaged.
        """
        if not self.start_file.is_file():
            return None
        tensors, _ = unpack(self.start_file, remedy=GONE)
        if not tensors.keys() >= {"mean", "std"}:
            raise damaged(self.start_file, "it has no mean or no deviation", GONE)
        return Preprocessing(tensors["mean"], tensors["std"].flatten())

    def started_from(self) -> str | None:
        """Return what the run's first session said that it started from."""
        sessions = self.sessions()
        return sessions[0].get("started_from") if sessions else None

    def checkpoints(self) -> list[Path]:
        return list_checkpoints(self.path)

    def add_session(self, environment: dict[str, Any]) -> None:
        """Note a session; paths in it begin with ~ where they lie in the user's home."""
        told = {
            key: without_home(value) if isinstance(value, str) else value
            for key, value in environment.items()
        }
        replace_file(self.environment_file, as_json([*self.sessions(), told]))

    def sessions(self) -> list[dict[str, Any]]:
        """Return what is known of the run's sessions, none where it has not begun.

        Raises:
            InputError: when the file is damaged.
        """
        file = self.environment_file
        return read_json(file, Sessions, GONE) if file.exists() else []

    def results(self, recipe: TrainingRecipe) -> dict[str, Any]:
        """Return the numbers of a complete run; errors as of ``sessions``."""
        shapes = {DetectionRecipe: DetectorResults, LocalizationRecipe: LocalizerResults}
        return read_json(self.results_file, shapes.get(type(recipe), ClassifierResults), GONE)

    def metrics(self) -> list[dict[str, Any]]:
        """Return the log's lines; errors as of ``recipe`` and ``lines_of``."""
        shapes: dict[type[TrainingRecipe], type[AnyLine]] = {
            DetectionRecipe: DetectorLine,
            LocalizationRecipe: LocalizerLine,
        }
        return lines_of(self.metrics_file, shapes.get(type(self.recipe()), ClassifierLine))

    def begun_by(self, launchers: Collection[str | None]) -> bool:
        """Whether the newest session of the run is of a job, or the run was begun and has none yet.

        Args:
            launchers: of the job, one a machine.
        """
        if not self.recipe_file.is_file():
            return False
        sessions = self.sessions()
        return not sessions or sessions[-1].get("launcher") in launchers

    def cut_metrics(self, iteration: int) -> None:
        """Drop the lines after ``iteration``, and a half-written last one: the run will write them again."""
        lines = [line for line in self.metrics() if line["iteration"] <= iteration]
        replace_file(self.metrics_file, "".join(map(as_json_line, lines)))

    def add_metrics(self, line: dict[str, Any]) -> None:
        with self.metrics_file.open("a", encoding="utf-8") as file:
            file.write(as_json_line(line))
            file.flush()
            # A checkpoint that comes after it is not to outlive it where the power fails.
            os.fsync(file.fileno())

    def remove_unfinished_weights(self) -> None:
        """Remove the weights of a session that was killed before it could finish the run."""
        if self.weights.exists() and not self.results_file.exists():
            shutil.rmtree(self.weights)

    def replace_best(self, save: Callable[[Path], None]) -> None:
        """Have weights written in place of the best ones before them.

        Args:
            save: writes a folder that is not there yet.
        """
        self._replace(self.best, save)

    def replace_weights(self, save: Callable[[Path], None]) -> None:
        """Have weights of a run that is not complete written in place of those of an earlier iteration."""
        self._replace(self.weights, save)

    def _replace(self, folder: Path, save: Callable[[Path], None]) -> None:
        shutil.rmtree(self._new, ignore_errors=True)
        save(self._new)
        shutil.rmtree(folder, ignore_errors=True)
        self._new.rename(folder)

    def finish(self, results: dict[str, Any]) -> None:
        replace_file(self.results_file, as_json(results))


def lines_of(path: Path, shape: type[AnyLine]) -> list[dict[str, Any]]:
    """Return the whole lines of a metrics.jsonl; a run that was killed may have left half of one.

    Args:
        shape: of a line.

    Raises:
        InputError: naming a line that is damaged, or is about another split than the first.
    """
    if not path.exists():
        return []
    *lines, _ = read_text(path, GONE).split("\n")
    found: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        fault = functools.partial(_damaged_line, path, number)
        found.append(parse_json(line, shape, fault))
        if not found[-1].get(split := split_of(found)):
            raise fault(f"{split}: Field required")
    return found


def split_of(lines: Sequence[dict[str, Any]]) -> Literal["validation", "test"]:
    """Return the split that a run's log, of one line at least, is about."""
    return "validation" if lines[0].get("validation") else "test"


def departed(sessions: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return what a run's sessions did not as its recipe says, each once."""
    return list(dict.fromkeys(told for one in sessions for told in one.get("departures") or ()))


def _damaged_line(path: Path, number: int, reason: str) -> InputError:
    return damaged(path, f"line {number}: {reason}", GONE)


def _split_rows(file: Path) -> list[tuple[str, str, str]]:
    """Return the path, the class and the split of each line of what ``write_split`` wrote."""
    try:
        _, *rows = csv.reader(io.StringIO(os.fsdecode(read_content(file, GONE))))
    except (csv.Error, ValueError) as error:
        raise damaged(file, first_line(error), GONE) from None
    for number, row in enumerate(rows, start=2):
        if len(row) != 3 or row[2] not in ("train", "validation"):
            raise damaged(file, f"line {number} names no image, class and split", GONE)
    return [(image, name, split) for image, name, split in rows]


def run_of(path: Path) -> RunFolder | None:
    """Return the run that trained weights are of, None where they lie alone, or beside files of others.

    Args:
        path: the run folder, or a weights folder in it.
    """
    run = RunFolder(path)
    if run.recipe_file.is_file():
        return run
    around = RunFolder((path if path.name else path.absolute()).parent)
    ours = path.absolute().name in (around.weights.name, around.best.name)
    return around if ours and around.recipe_file.is_file() else None


def unfinished(path: Path, results: Mapping[str, Any] | None) -> list[str]:
    """Return a sentence on weights of a run that was stopped early, none on others.

    Args:
        path: as of ``run_of``.
        results: what the weights say of themselves.
    """
    if results is None or results.get("complete") is not False:
        return []
    done, length = results["iterations"], results["of_iterations"]
    said = f"{path} has the weights of iteration {done:,} of {length:,}: the run is not complete"
    run = run_of(path)
    # Those of a run that has gone on since.
    if run and (checkpoints := run.checkpoints()) and (newest := iteration_of(checkpoints[-1])) > done:
        said += (
            f"; its newest checkpoint is of iteration {newest:,}: residual finish "
            f"{shlex.quote(str(run.path))} takes it"
        )
    return [said]


def remembered_data_dir(path: Path) -> Path | None:
    """Return where the data of a run lay in its last session, None where none is known or it is gone.

    Args:
        path: the run folder, or the weights folder in it.

    Raises:
        InputError: when what is known of the sessions is damaged.
    """
    stored = _noted_data_dir(path)
    return stored if stored and stored.exists() else None


def is_data_of(path: Path, data_dir: Path) -> bool:
    """Whether data are where those of a run lay in its last session; arguments as of ``find_data_dir``."""
    own = remembered_data_dir(path)
    return own is not None and own.resolve() == data_dir.resolve()


def _noted_data_dir(path: Path) -> Path | None:
    run = run_of(path)
    sessions = run.sessions() if run else []
    stored = os.path.expanduser(sessions[-1].get("data_dir") or "") if sessions else ""
    return Path(stored) if stored else None


def find_data_dir(path: Path, given: Path | None, what: str) -> Path:
    """Return where the data of a run, or of its weights, lie: where it is said, or where they lay.

    Args:
        path: as of ``remembered_data_dir``.
        given: what the command was given, if anything.
        what: they are, for the sentence, as "the folder of the annotated images".

    Raises:
        InputError: where nobody knows, or they are gone.
    """
    found = given or remembered_data_dir(path)
    if found is None:
        refuse_lost_data(path, what)
        raise InputError(f"name {what} with --data-dir")
    return found


def refuse_lost_data(path: Path, what: str = "the folder of the images") -> None:
    """Raise an InputError where it is known where the data of a run lay, and they are gone.

    Args:
        path, what: as of ``find_data_dir``.
    """
    if (lost := _noted_data_dir(path)) and not lost.exists():
        raise InputError(f"{lost}, where the images of {path} lay, is not there; name {what} with --data-dir")


def recorded_split(path: Path, data_dir: Path, split: Literal["train", "validation"]) -> FolderIndex | None:
    """Return a split that a run has made of a folder of images, None where this run or this folder has none.

    Args:
        path: the run folder, or a weights folder in it.
        data_dir: where the images lie now; of a folder that lacks some of the run's images "validation" is
            all of them, noted where there are others of the run's among them.

    Raises:
        InputError: when the run was trained on this folder and an image is gone.
    """
    run = run_of(path)
    if run is None or not run.split_file.is_file() or "val" in parts_of(data_dir):
        return None
    file = run.split_file
    rows = _split_rows(file)
    index = index_folder(data_dir, "all")
    there = {name: position for position, name in enumerate(index.files)}
    if gone := next((name for name, _, _ in rows if name not in there), None):
        if is_data_of(path, data_dir):
            raise InputError(
                f"{file} says that {path} was trained on {gone}, which {data_dir} has no longer; put it back"
            )
        learned = sum(name in there for name, _, part in rows if part == "train")
        if split == "train" or not learned:
            return None
        note = (
            f"{data_dir} is not what {path} was trained on, of which {gone} is not there, so all its images "
            f"are tested on; {learned:,} of them have the names of images that were learned"
        )
        return replace(index, notes=(*index.notes, on_a_line(note)))
    chosen = [there[name] for name, _, part in rows if part == split]
    if not chosen:
        raise damaged(file, f"it names no image for {split}", GONE)
    # Without classes that have come in since.
    return index.subset(torch.tensor(chosen), f"{data_dir} ({len(chosen)} for {split})").with_classes_of(
        {class_name(name) for _, name, _ in rows}
    )
