"""A trained localizer ready to be used: images in, boxes of their likeliest classes out."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import distributed
from ..data.boxes import BoxDataset
from ..data.images import ImageLike, as_pixels
from ..data.located import load_located
from ..device import full_float32, open_device
from ..errors import InputError
from ..evaluation.classes import match_classes
from ..evaluation.inputs import views_for
from ..evaluation.views import ViewsName
from ..localization.error import GUESSES, LocalizationErrors
from ..localization.rcnn import AnyLocalizer
from ..localization.testing import (
    Located,
    View,
    errors_of,
    guessed_classes,
    locate,
    locate_images,
    middle_boxes,
    true_classes,
)
from ..localization.weights import LocalizerWeightsConfig, read_localizer
from ..models.inference import fold_batchnorm
from ..models.weights import Weights, load_weights
from ..training.folder import find_data_dir
from .classifier import Network, load


@dataclass(frozen=True)
class ClassAndPlace:
    """One guess of an image.

    Attributes:
        name: of the class.
        probability: that a classifier gives it, in [0, 1].
        box: x1, y1, x2, y2 in the image's pixels.
        score: how sure the localizer is of the place, in [0, 1].
    """

    name: str
    probability: float
    box: tuple[float, float, float, float]
    score: float


class LoadedLocalizer:
    """A localizer, and the classifier that says what is on an image.

    Args:
        model: in evaluation mode, on its device.
        config: what it is.
        classifier: the path of the classifier, None where there is none.
    """

    def __init__(self, model: AnyLocalizer, config: LocalizerWeightsConfig, classifier: str | None) -> None:
        self.model = model
        self.config = config
        self.classifier = classifier
        self._network: Network | None = None
        self._numbers: dict[str, int] = {}

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the K classes."""
        return tuple(self.config.classes)

    def view(self, dense: bool) -> View:
        """Return what it sees of an image: all of it, or the centre square."""
        return View(self.config.size, dense)

    def stored_classifier(self) -> Weights:
        """Return the classifier's weights.

        Raises:
            InputError: where there is none.
        """
        if self.classifier is None:
            raise InputError(
                "the localizer does not say which classifier it goes with; name one with --classifier"
            )
        try:
            return load_weights(Path(self.classifier))
        except InputError as error:
            raise InputError(
                f"what is on an image is said by a classifier: {error}; name one with --classifier"
            ) from None

    @torch.inference_mode()
    def predict(self, image: ImageLike, count: int = GUESSES) -> list[ClassAndPlace]:
        """Return the likeliest classes of an image and where each of them is, the likeliest first.

        Args:
            image: as of a detector's ``predict``.
            count: of classes.

        Raises:
            InputError: when the image cannot be read or is too long, or the classifier is missing or of other
                classes.
        """
        if self._network is None:
            stored = self.stored_classifier()
            numbers = match_classes(stored.classes, self.classes, str(self.classifier))
            self._numbers = dict(zip(stored.classes, numbers.tolist(), strict=True))
            assert self.classifier is not None
            self._network = load(self.classifier, str(self.model.device))
        pixels = as_pixels(image)
        seen, place = self.view(dense=True).of(pixels)
        [guesses] = self._network.predict(pixels, top=count)
        labels = torch.tensor([[self._numbers[guess.name] for guess in guesses]])
        with full_float32(self.model.device):
            boxes, scores = locate(self.model, seen[None], [place], labels, [pixels])
        return [
            ClassAndPlace(guess.name, guess.probability, (box[0], box[1], box[2], box[3]), score)
            for guess, box, score in zip(guesses, boxes[0].tolist(), scores[0].tolist(), strict=True)
        ]


def load_localizer(
    folder: Path | str, *, classifier: Path | str | None = None, device: str = "auto"
) -> LoadedLocalizer:
    """Return a localizer that is ready to be used.

    Args:
        folder: a localizer's folder or a run folder.
        classifier: what says what is on an image; None for the one that the localizer was trained from.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".

    Raises:
        InputError: when the folder holds no localizer.
    """
    where = open_device(device)
    stored = read_localizer(Path(folder).expanduser())
    model = fold_batchnorm(stored.model.to(where)).to(memory_format=torch.channels_last)
    named = classifier or stored.config.localizer["backbone"].get("weights")
    path = None if named is None else str(Path(named).expanduser())
    return LoadedLocalizer(model, stored.config, path)


@dataclass(frozen=True)
class Protocol:
    """A way of testing, and what it found.

    Attributes:
        name: as "dense (shorter side 256)".
        classes: whose boxes were asked for, in words.
        errors: which images are right.
    """

    name: str
    classes: str
    errors: LocalizationErrors


@dataclass(frozen=True)
class LocalizerEvaluation:
    """What a test of a localizer found.

    Attributes:
        dataset: the images that it is of.
        protocols: by which they were tested, the trivial predictor's last.
        unusable: what is wrong with the images that could not be looked at, by their ids.
    """

    dataset: BoxDataset
    protocols: list[Protocol]
    unusable: dict[str, str]

    def summary(self) -> dict[str, Any]:
        """Return it as plain data, errors in percent."""
        return {
            "data": self.dataset.name,
            "protocols": [
                {
                    "testing": each.name,
                    "classes": each.classes,
                    "localization_error": each.errors.localization,
                    "classification_error": each.errors.classification,
                    "images": len(each.errors.right),
                }
                for each in self.protocols
            ],
            "left_out": list(self.dataset.notes),
            "unusable": self.unusable,
        }


def evaluate_localizer(
    localizer: LoadedLocalizer,
    path: Path,
    data_dir: Path | None = None,
    *,
    guesses: bool = True,
    views: ViewsName = "center",
    progress: Callable[[int, int], None] | None = None,
) -> LocalizerEvaluation:
    """Test a localizer by appendix C's protocols on a folder's ``val``, and a trivial predictor beside it.

    Started by torchrun, the ranks share the images, and all get the same outcome.

    Args:
        path: the folder that it is from, which may know where the data lay.
        guesses: whether to test with the classes that the classifier guesses as well.
        views: what of an image the classifier looks at.
        progress: called with the number of images of all protocols and the number done.

    Raises:
        InputError: when the data are missing or of other classes, or there is no classifier.
    """
    data_dir = find_data_dir(path, data_dir, "the folder that holds train/ and val/ and their boxes")
    classifier = localizer.stored_classifier() if guesses else None
    world = distributed.join(localizer.model.device)
    images = load_located(data_dir, "val", localizer.classes)
    dataset = replace(images.boxes, notes=(*images.index.notes, *images.boxes.notes))
    truth = true_classes(dataset)
    asked: list[tuple[bool, str, Tensor]] = [(False, "true", truth), (True, "true", truth)]
    if classifier:
        device = localizer.model.device
        seen = views_for(classifier, views)
        five = guessed_classes(classifier, images, seen, device, world)
        asked.append((True, f"{five.shape[1]} of {localizer.classifier}, {seen}", five))
    protocols: list[Protocol] = []
    unusable: dict[str, str] = {}
    for number, (dense, words, labels) in enumerate(asked):

        def tell(done: int, before: int = number * len(dataset)) -> None:
            if progress:
                progress(len(asked) * len(dataset), before + min(len(dataset), done * world.size))

        view = localizer.view(dense)
        found = locate_images(localizer.model, dataset, labels, view, world=world, progress=tell)
        unusable |= found.unusable
        protocols.append(Protocol(str(view), words, errors_of(dataset, labels, found)))
    width, height = localizer.config.mean_box
    trivial: Located = middle_boxes(dataset, (width, height), found.usable)
    protocols.append(Protocol("always the middle box", "true", errors_of(dataset, truth, trivial)))
    return LocalizerEvaluation(dataset, protocols, unusable)
