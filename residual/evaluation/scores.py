"""Softmax scores of a set of images: their errors, and a file that keeps them for an ensemble."""

import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..class_names import first_twice
from ..errors import InputError
from ..files import check_new, damaged, first_line, parse_json, strict_json, written_whole
from ..tensors import pack, unpack
from .classes import match_classes
from .metrics import Metrics, Tally

FORMAT = "residual scores"
VERSION = 1
SUFFIX = ".safetensors"
#: What to do about a damaged file.
ANEW = "save the scores anew"


@dataclass(frozen=True)
class Scores:
    """What a network, or several together, say about a set of images.

    Attributes:
        ids: a name for each of the N images, which is the same whichever network looks at it.
        classes: the names of the K classes.
        probabilities: float32 (N, K), rows that sum to 1.
        targets: int64 (N,), the right class of each image.
        about: where the scores come from, as plain data.
    """

    ids: tuple[str, ...]
    classes: tuple[str, ...]
    probabilities: Tensor
    targets: Tensor
    about: dict[str, Any]

    def __len__(self) -> int:
        return len(self.ids)

    @functools.cached_property
    def seen(self) -> Tensor:
        """The likeliest class of each image, int64 (N,)."""
        return self.probabilities.argmax(dim=1)

    @property
    def finite(self) -> bool:
        """Whether all are numbers: those of a network that has diverged are not, and no file keeps them."""
        return bool(self.probabilities.isfinite().all())

    def metrics(self) -> Metrics:
        tally = Tally()
        tally.add(self.probabilities, self.targets)
        return tally.metrics()

    def in_order_of(self, classes: tuple[str, ...], source: str) -> "Scores":
        """Return the same scores with the same classes in another order, and by the names that are given.

        Args:
            source: of these scores, for messages.

        Raises:
            InputError: when the classes are others.
        """
        order = match_classes(classes, self.classes, source)
        return replace(
            self,
            classes=classes,
            probabilities=self.probabilities[:, order],
            targets=order.argsort()[self.targets],
        )


def save_scores(scores: Scores, file: Path) -> None:
    """Write scores as a .safetensors file: ``probabilities``, ``targets``, and the names as metadata.

    Raises:
        InputError: when the file exists, has another suffix or cannot be written, and for scores that are
            no numbers.
    """
    check_new(file, "scores", SUFFIX)
    if not scores.finite:
        raise InputError(f"{file} was not written: there are scores that are no numbers (NaN) or infinite")
    metadata = {
        "format": FORMAT,
        "version": str(VERSION),
        "ids": strict_json(scores.ids),
        "classes": strict_json(scores.classes),
        "about": strict_json(scores.about),
    }
    tensors = {"probabilities": scores.probabilities.contiguous(), "targets": scores.targets.contiguous()}
    with written_whole(file) as temporary:
        # save_file would make the file readable to its owner alone.
        temporary.write_bytes(pack(tensors, metadata))


def load_scores(file: Path) -> Scores:
    """Read what ``save_scores`` wrote.

    Raises:
        InputError: when there is no such file, or it is damaged or of another kind.
    """
    tensors, metadata = unpack(file, ANEW, "scores")
    if metadata.get("format") != FORMAT:
        raise InputError(f"{file} holds no scores; save them with residual evaluate --save-scores")
    try:
        if int(metadata["version"]) > VERSION:
            raise InputError(f"{file} is of a newer residual; update this one")
        scores = Scores(
            ids=_names(metadata["ids"]),
            classes=_names(metadata["classes"]),
            probabilities=tensors["probabilities"],
            targets=tensors["targets"],
            about=parse_json(metadata["about"], dict, ValueError),
        )
    except (ValueError, KeyError) as error:
        raise damaged(file, first_line(error), ANEW, "scores") from None
    _check(scores, file)
    return scores


def _names(text: str) -> tuple[str, ...]:
    return tuple(parse_json(text, list[str], ValueError))


def _check(scores: Scores, file: Path) -> None:
    shape = (len(scores.ids), len(scores.classes))
    if scores.probabilities.shape != shape or scores.targets.shape != shape[:1]:
        reason = f"{tuple(scores.probabilities.shape)} scores for {shape[0]} ids, {shape[1]} classes"
        raise damaged(file, reason, ANEW, "scores")
    kinds = (scores.probabilities.dtype, scores.targets.dtype)
    if kinds != (torch.float32, torch.int64):
        raise damaged(file, f"scores and targets of {kinds[0]} and {kinds[1]}", ANEW, "scores")
    if not scores.finite:
        raise damaged(file, "scores that are no numbers (NaN) or infinite", ANEW, "scores")
    for what, names in (("id", scores.ids), ("class", scores.classes)):
        if twice := first_twice(names):
            raise damaged(file, f"the {what} {twice!r} is there twice", ANEW, "scores")
    if len(scores) and not 0 <= int(scores.targets.min()) <= int(scores.targets.max()) < shape[1]:
        raise damaged(file, "a target that is no class", ANEW, "scores")
