"""Softmax scores of a set of pictures: their errors, and a file that keeps them for an ensemble."""

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..distributed import World
from ..errors import InputError
from ..models.statedict import first_line, refuse_existing, written_whole
from .metrics import Metrics, places

FORMAT = "residual scores"
VERSION = 1

#: The smallest score that the loss knows: an averaged softmax in float32 may be 0, its logarithm is not.
SMALLEST = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class Scores:
    """What a network, or several together, say about a set of pictures.

    Attributes:
        ids: a name for each of the N pictures, which is the same whichever network looks at it.
        classes: the names of the K classes.
        probabilities: float32 (N, K), rows that sum to 1.
        targets: int64 (N,), the right class of each picture.
        about: where the scores come from, as plain data.
    """

    ids: tuple[str, ...]
    classes: tuple[str, ...]
    probabilities: Tensor
    targets: Tensor
    about: dict[str, Any]

    def __len__(self) -> int:
        return len(self.ids)

    def metrics(self) -> Metrics:
        tally = Tally()
        tally.add(self.probabilities, self.targets)
        return tally.metrics()

    def in_order_of(self, classes: tuple[str, ...]) -> "Scores":
        """Return the same scores with the classes, which are the same ones, in another order."""
        place = {name: k for k, name in enumerate(self.classes)}
        order = torch.tensor([place[name] for name in classes])
        return replace(
            self,
            classes=classes,
            probabilities=self.probabilities[:, order],
            targets=order.argsort()[self.targets],
        )


class Tally:
    """Counts and sums of batches of scores, exact over any number of ranks.

    A loss from probabilities is -log(p) of the right class; top-5 counts a picture right when its class is
    among the five highest scores.
    """

    def __init__(self) -> None:
        self.sums = torch.zeros(4, dtype=torch.float64)
        self.start = time.perf_counter()

    def add(self, probabilities: Tensor, targets: Tensor) -> None:
        """Count n pictures: float32 (n, K) and int64 (n,)."""
        place = places(probabilities, targets)
        right = probabilities.gather(1, targets[:, None])
        loss = -right.double().clamp(min=SMALLEST).log().sum()
        count = torch.tensor(len(targets), dtype=torch.float64)
        self.sums += torch.stack([loss, (place > 0).sum().double(), (place > 4).sum().double(), count])

    def metrics(self, world: World | None = None, device: torch.device | None = None) -> Metrics:
        """Return the errors over the pictures of all ranks.

        Raises:
            InputError: when there is no picture.
        """
        sums = (world or World()).sum_(self.sums.to(device or "cpu", copy=True))
        loss, top1, top5, count = sums.tolist()
        if not count:
            raise InputError(
                "there is no picture to count the errors of; every one was skipped or none was there"
            )
        seconds = time.perf_counter() - self.start
        return Metrics(loss / count, 100 * top1 / count, 100 * top5 / count, int(count), count / seconds)


def save_scores(scores: Scores, file: Path) -> None:
    """Write scores as a .safetensors file: ``probabilities``, ``targets``, and the names as metadata.

    Raises:
        InputError: when the file exists, has another suffix or cannot be written.
    """
    check_new_file(file)
    metadata = {
        "format": FORMAT,
        "version": str(VERSION),
        "ids": json.dumps(scores.ids, ensure_ascii=False),
        "classes": json.dumps(scores.classes, ensure_ascii=False),
        "about": json.dumps(scores.about, ensure_ascii=False),
    }
    tensors = {"probabilities": scores.probabilities.contiguous(), "targets": scores.targets.contiguous()}
    with written_whole(file) as temporary:
        save_file(tensors, temporary, metadata)


def check_new_file(file: Path) -> None:
    """Raise an InputError unless scores can be saved to a file of this name."""
    if file.suffix != ".safetensors":
        raise InputError(f"{file}: scores are saved to a file that ends in .safetensors; name it so")
    refuse_existing(file)


def load_scores(file: Path) -> Scores:
    """Read what ``save_scores`` wrote.

    Raises:
        InputError: when there is no such file, or it is damaged or of another kind.
    """
    if not file.is_file():
        raise InputError(f"there is no file {file}")
    try:
        with safe_open(file, "pt") as content:
            metadata = content.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise InputError(f"{file} holds no scores; save them with residual evaluate --save-scores")
            if int(metadata["version"]) > VERSION:
                raise InputError(f"{file} is of a newer residual; update this one")
            scores = Scores(
                ids=_names(metadata["ids"]),
                classes=_names(metadata["classes"]),
                probabilities=content.get_tensor("probabilities"),
                targets=content.get_tensor("targets"),
                about=json.loads(metadata["about"]),
            )
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise _damaged(file, first_line(error)) from None
    _check(scores, file)
    return scores


def _names(text: str) -> tuple[str, ...]:
    names = json.loads(text)
    if not isinstance(names, list):
        raise ValueError("its names are no list")
    return tuple(map(str, names))


def _check(scores: Scores, file: Path) -> None:
    shape = (len(scores.ids), len(scores.classes))
    if scores.probabilities.shape != shape or scores.targets.shape != shape[:1]:
        raise _damaged(
            file, f"{tuple(scores.probabilities.shape)} scores for {shape[0]} ids, {shape[1]} classes"
        )
    for what, names in (("id", scores.ids), ("class", scores.classes)):
        if twice := first_twice(names):
            raise _damaged(file, f"the {what} {twice!r} is there twice")
    if len(scores) and not 0 <= int(scores.targets.min()) <= int(scores.targets.max()) < shape[1]:
        raise _damaged(file, "a target that is no class")


def first_twice(names: Iterable[str]) -> str | None:
    """Return the first name that was there before."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def _damaged(file: Path, reason: str) -> InputError:
    return InputError(f"{file} is damaged or no file of scores ({reason}); save the scores anew")
