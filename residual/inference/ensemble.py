"""Several classifiers tested together: the mean of their softmax scores (Table 5)."""

from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path

from ..errors import InputError
from ..evaluation.ensemble import average
from ..evaluation.metrics import Metrics
from ..evaluation.scores import Scores, load_scores
from ..models.names import is_name
from ..models.weights import load_weights
from .evaluation import EvaluationOptions, evaluate

#: The last word of a dataset's name where it is a part of one.
SPLITS = ("train", "val", "test")


def evaluate_ensemble(
    members: Sequence[Path],
    options: EvaluationOptions,
    *,
    device: str = "auto",
    tell: Callable[[str], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[tuple[str, Metrics]], Scores]:
    """Test several networks and the mean of their softmax scores.

    Args:
        members: files of saved scores, and weights folders, run folders or names, which are tested by the
            options.
        device, tell, progress: as of ``evaluate``, over all that are tested.

    Returns:
        Each member's name and metrics, and the ensemble's scores.

    Raises:
        InputError: when a member is wrong, the members are not of the same images and classes, or there are
            options and all members are files.
    """
    # All are read before any is tested, which may take hours.
    saved = {path: load_scores(path) for path in members if not (is_name(path) or path.is_dir())}
    for path in members:
        if path not in saved:
            load_weights(path)
    found = []
    tested = [path for path in members if path not in saved]
    before = 0

    def show(images: int, done: int) -> None:
        if progress:
            progress(len(tested) * images, before * images + done)

    for path in members:
        if path not in saved:
            scores = evaluate(path, options, device=device, keep_scores=True, tell=tell, progress=show).scores
            before += 1
            assert scores is not None
        else:
            scores = saved[path]
        found.append((str(path), scores))
    if not tested:
        for option in fields(options):
            if getattr(options, option.name) != option.default:
                raise InputError(
                    "the members are files of saved scores, which are not tested again; leave "
                    f"--{option.name.replace('_', '-')} out, or name a network"
                )
    _check_data(found, tell)
    together = average(found)
    return [(name, scores.metrics()) for name, scores in found], together


def _check_data(found: Sequence[tuple[str, Scores]], tell: Callable[[str], None] | None) -> None:
    """Say when members were tested on data of other names; the images of two splits are never the same.

    Raises:
        InputError: for the scores of training and of validation images, whose file names may be the same.
    """
    (first_name, first), *others = found
    ours = str(first.about.get("data", ""))
    for name, scores in others:
        theirs = str(scores.about.get("data", ""))
        if not ours or not theirs or ours == theirs:
            continue
        both = f"{first_name} is of {ours} and {name} of {theirs}"
        splits = [[word for word in data.split() if word in SPLITS][-1:] for data in (ours, theirs)]
        if all(splits) and splits[0] != splits[1]:
            raise InputError(f"{both}: these are other images; test all members on one split")
        if tell:
            tell(f"{both}; they are averaged as the same images, since they have the same names")
