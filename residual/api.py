"""From Python as from the command line: what ``residual`` itself offers, beside loading a network.

>>> recipe = residual.recipe("finetune", epochs=5)                 # doctest: +SKIP
>>> run = residual.train(recipe, "flowers", "weights/resnet50")    # doctest: +SKIP
>>> run.results["validation"]["top1_error"]                        # doctest: +SKIP
>>> run.load().predict("tulip.jpg")                                # doctest: +SKIP
"""

import json
import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .detection.weights import is_detector
from .errors import InputError
from .evaluation.views import ViewsName
from .inference.classifier import Network, load
from .inference.detector import DetectorEvaluation, LoadedDetector, evaluate_detector, load_detector
from .inference.evaluation import ClassifierEvaluation, EvaluationOptions
from .inference.evaluation import evaluate as evaluate_classifier
from .inference.localizer import (
    LoadedLocalizer,
    LocalizerEvaluation,
    evaluate_localizer,
    load_localizer,
)
from .localization.weights import is_localizer
from .models.inference import Precision
from .models.weights import load_weights
from .randomness import generators_kept
from .recipes import KINDS, DetectionRecipe, LocalizationRecipe, Recipe, TrainingRecipe, find, override, read
from .recipes.schema import OTHERWISE, SHORT_FORMS, settings_of
from .run import report as write_report
from .run import start_from
from .run import train as train_run
from .run.page import network_of
from .training.folder import RunFolder

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class FinishedRun:
    """A complete run.

    Attributes:
        path: its folder, which any command takes.
        results: the final numbers, as in results.json.
    """

    path: Path
    results: dict[str, Any]

    @property
    def curve(self) -> list[dict[str, Any]]:
        """The evaluations on the way, as in metrics.jsonl: iteration, training loss and error, test's."""
        return RunFolder(self.path).metrics()

    def report(self, device: str = "auto") -> Path:
        """Write the run's page, one HTML file with everything in it, and return its path."""
        return write_report(self.path, device=device)

    def load(
        self, device: str = "auto", precision: Precision = "float32"
    ) -> Network | LoadedDetector | LoadedLocalizer:
        """Return the trained network, ready to ``predict``: a classifier, a detector or a localizer.

        Args:
            device: as of ``train``.
            precision: "bfloat16" is faster and a little less exact; of a classifier or a detector.

        Raises:
            InputError: for another precision of a localizer, and as ``residual.load``.
        """
        if is_detector(self.path):
            return load_detector(self.path, device=device, precision=precision)
        if is_localizer(self.path):
            _only_float32(self.path, precision)
            return load_localizer(self.path, device=device)
        return load(self.path, device, precision)


def recipe(
    name: PathLike,
    settings: Mapping[str, Any] | None = None,
    *,
    epochs: int | None = None,
    lr: float | None = None,
    batch: int | None = None,
) -> Recipe | DetectionRecipe | LocalizationRecipe:
    """Return a recipe, a classifier's, a detector's or a localizer's, with values of it changed.

    Args:
        name: of a built-in recipe, or a YAML file.
        settings: values by their key, as {"data.validation": 0.2}; None leaves a part out.
        epochs, lr, batch: short for "schedule.epochs", "schedule.learning_rate" and "batch.size".

    Raises:
        InputError: for a name, a key or a value that there is not.
    """
    said = _settings(settings, {"epochs": epochs, "lr": lr, "batch": batch})
    made = override(_find(name), said)
    if said:
        # By identity: two recipes that say the same are equal, whoever has said it.
        _SAID[id(made)] = said
        weakref.finalize(made, _SAID.pop, id(made), None)
    return made


#: What was asked of recipes that ``recipe`` has made, by their ids, as long as they live.
_SAID: dict[int, list[str]] = {}


def _started(recipe: TrainingRecipe, weights: Path) -> TrainingRecipe:
    """Return a recipe that starts from weights; what was asked of it holds after that as well.

    So does what the command is given with --set: a detector that goes on brings anchors, sides and more. It
    is what ``recipe`` was told, and what differs from the built-in one of the recipe's name.
    """
    started, said = start_from(recipe, weights), _SAID.get(id(recipe), [])
    builtin = KINDS[type(recipe)][0].get(recipe.name)
    lost: list[str] = []
    if builtin is not None and not _has_start(recipe):
        own, now, before = map(settings_of, (recipe, started, builtin))
        lost = [key for key, value in own.items() if value != before.get(key) and value != now.get(key)]
        lost = [f"{key}={json.dumps(own[key])}" for key in lost]
    return override(started, [*lost, *said])


def _has_start(recipe: TrainingRecipe) -> bool:
    """Whether a recipe names weights already, as a run's does: its network is theirs, and not a change."""
    second = isinstance(recipe, LocalizationRecipe) and recipe.rcnn
    return bool(network_of(recipe).weights or (second and second.localizer))


def train(
    recipe: TrainingRecipe | PathLike | None,
    data: PathLike | None = None,
    weights: PathLike | None = None,
    *,
    out: PathLike | None = None,
    device: str = "auto",
    resume: bool = False,
    tensorboard: bool = False,
    eager: bool = False,
    deterministic: bool = False,
) -> FinishedRun:
    """Train a network by a recipe, and return the complete run; progress is shown on stderr.

    Args:
        recipe: of ``recipe``, or its name; None to resume the run in ``out``.
        data: where the data lie, as --data-dir: a folder or a CSV file.
        weights: to start from: a weights folder, a run folder, or a name as "torchvision:resnet18". What was
            changed of a built-in recipe holds over what a detector's weights bring.
        out: the run folder; None for ``runs/`` and the recipe's name.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        resume: continue at the newest checkpoint; a complete run just gives its results again.
        tensorboard, eager, deterministic: as of ``residual.run.train``.

    Raises:
        InputError: for anything wrong with the recipe, the data or the folder.
        Interrupted: after a signal, Jupyter's stop button among them; a checkpoint has been written.
    """
    chosen = recipe if recipe is None or isinstance(recipe, TrainingRecipe) else _find(recipe)
    if chosen is None and (out is None or not resume):
        raise InputError("name a recipe to train, or a run to go on with: out=FOLDER, resume=True")
    if weights is not None:
        if chosen is None:
            raise InputError("a run is resumed from its own weights; leave weights out")
        # A recipe in a file is one's own: the weights bring what theirs is, as by the command.
        start = _started if isinstance(recipe, TrainingRecipe) else start_from
        chosen = start(chosen, _path(weights))
    if out is None:
        assert chosen is not None
        out = Path("runs") / chosen.name
    folder = _path(out)
    with generators_kept():
        results = train_run(
            chosen,
            folder,
            data_dir=None if data is None else _path(data),
            device=device,
            resume=resume,
            tensorboard=tensorboard,
            eager=eager,
            deterministic=deterministic,
        )
    return FinishedRun(folder, results)


def evaluate(
    weights: PathLike,
    data: PathLike | None = None,
    *,
    dataset: str | None = None,
    split: str | None = None,
    views: ViewsName | None = None,
    size: int | None = None,
    crop: int | None = None,
    scales: Sequence[int] | None = None,
    precision: Precision = "float32",
    device: str = "auto",
    classifier: PathLike | None = None,
    tell: Callable[[str], None] | None = None,
) -> ClassifierEvaluation | DetectorEvaluation | LocalizerEvaluation:
    """Test a trained classifier, detector or localizer, by the paper's protocols.

    Args:
        weights: a weights folder, a run folder, or a name as "torchvision:resnet18".
        data: where the data lie; None for where they lay in a run's last session.
        split: of a classifier "train" or "test"; of a detector a part of the data by its name; None for what
            is tested by default, as ``data.test`` of a detector's recipe.
        dataset, views, size, crop, scales: of a classifier, as of ``EvaluationOptions``. What has no dataset
            of its own is tested on a folder.
        precision: "bfloat16" is faster and a little less exact; of a classifier or a detector.
        classifier: of a localizer, whose five likeliest classes are located; None for the one that it was
            trained from.
        tell: is given a sentence about each image that is skipped, and what else should be known.

    Under torchrun all processes are to call it: they share the images.

    Returns:
        Of a classifier ``metrics`` with ``top1_error``, ``top5_error`` and ``loss``; of a detector
        ``mean_ap``, ``classes`` and COCO's numbers; of a localizer ``protocols`` with their ``errors``.

    Raises:
        InputError: when the weights or the data are wrong or do not fit.
    """
    path = _path(weights)
    data_dir = None if data is None else _path(data)
    detector = is_detector(path)
    if classifier is not None and not is_localizer(path):
        raise InputError(f"{path} is no localizer, and classifier is for those; leave it out")
    if detector or is_localizer(path):
        what = "detector" if detector else "localizer"
        others = {"dataset": dataset, "views": views, "size": size, "crop": crop, "scales": scales}
        if named := [name for name, value in others.items() if value is not None]:
            raise InputError(f"{path} is a {what}, and {named[0]} is for classifiers; leave it out")
        if split not in (None, "test") and not detector:
            raise InputError(f"{path} is a {what}, which is tested on its test images alone; leave split out")
        found: DetectorEvaluation | LocalizerEvaluation
        if detector:
            loaded = load_detector(path, device=device, precision=precision)
            splits = (split,) if split else ()
            found = evaluate_detector(loaded, path, data_dir, splits=splits, tell=tell)
        else:
            _only_float32(path, precision)
            guessing = None if classifier is None else _path(classifier)
            found = evaluate_localizer(
                load_localizer(path, classifier=guessing, device=device), path, data_dir
            )
        for sentence in (*found.dataset.notes, *found.unusable.values()):
            if tell:
                tell(sentence)
        return found
    if dataset is None and data is not None and not load_weights(path).config.get("recipe"):
        dataset = "folder"
    options = EvaluationOptions(
        dataset,
        # Which names a wrong one, and what it may mean.
        split or "test",  # type: ignore[arg-type]
        data_dir,
        views,
        size=size,
        crop=crop,
        scales=scales,
        precision=precision,
    )
    return evaluate_classifier(path, options, device=device, tell=tell)


def reproduce(
    experiment: str,
    *,
    data: PathLike | None = None,
    out: PathLike | None = None,
    settings: Mapping[str, Any] | None = None,
    depths: Sequence[int] | None = None,
    networks: Sequence[str] | None = None,
    **options: Any,
) -> Path:
    """Do one of the paper's experiments as ``residual reproduce`` does, and return its folder.

    Args:
        experiment: "degradation", "table6", "figure1", ...
        data: where the data lie.
        out: folder of its runs, tables, figures and page; None for the command's own.
        settings: changes to all recipes, by key.
        depths, networks: only these.
        options: others of the command, as ``seeds=5``, ``device="cpu"`` or ``no_train=True``.

    Raises:
        InputError: for an experiment, an option or a value that there is not, and as the command.
    """
    from .cli.reproduce import find

    asked = {"data_dir": data, "out": out, "settings": _settings(settings, {}) or None}
    return find(str(experiment).replace("_", "-")).from_python(
        {**asked, "depths": depths, "networks": networks, **options}
    )


def _only_float32(path: Path, precision: str) -> None:
    if precision != "float32":
        raise InputError(f"{path} is a localizer, which computes in float32; leave precision out")


def _find(name: PathLike) -> Any:
    """Return a built-in recipe of any kind, or else, as the command does, that in a file."""
    name = os.fspath(name)
    kind: Any = next((kind for kind in KINDS if name in KINDS[kind][0]), None)
    if kind is None and (name.endswith((".yaml", ".yml")) or _path(name).is_file()):
        return read(_path(name))
    return find(name, kind or Recipe)


def _settings(settings: Mapping[str, Any] | None, short: Mapping[str, Any]) -> list[str]:
    """Return values by key as --set has them: YAML reads JSON."""
    if settings is not None and not isinstance(settings, Mapping):
        raise InputError(f'settings are values by key, as {{"batch.size": 32}}, not {settings!r}')
    given = dict(settings or {})
    for name, value in short.items():
        if value is not None:
            if same := next((key for key in (SHORT_FORMS[name], OTHERWISE.get(name)) if key in given), None):
                raise InputError(f"{name} and {same!r} say the same; leave one of them out")
            given[SHORT_FORMS[name]] = value
    return [f"{key}={_json(key, value)}" for key, value in given.items()]


def _json(key: str, value: Any) -> str:
    try:
        # Letters as they are: YAML takes JSON's escapes of an emoji for two halves of letters. Halves, which
        # names that are no UTF-8 have, it takes as escapes alone.
        text = json.dumps(value, default=_plain, ensure_ascii=False)
        return text.encode("utf-8", "backslashreplace").decode()
    except (TypeError, ValueError):
        raise InputError(
            f"{key!r} has a {type(value).__name__}, which no recipe can hold: {value!r}"
        ) from None


def _plain(value: Any) -> Any:
    """Return what JSON does not know as what it does: a number of NumPy, a path."""
    return value.item() if isinstance(value, np.generic) else os.fspath(value)


def _path(given: PathLike) -> Path:
    if not isinstance(given, str | os.PathLike):
        raise InputError(
            f'a {type(given).__name__} is no path; name a folder, or weights as "torchvision:resnet18"'
        )
    return Path(given).expanduser()


__all__ = ["FinishedRun", "PathLike", "evaluate", "recipe", "reproduce", "train"]
