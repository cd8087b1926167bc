"""The mean of the softmax scores of several networks (Table 5)."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from ..errors import InputError
from .scores import Scores


def average(members: Sequence[tuple[str, Scores]]) -> Scores:
    """Average the scores of networks on the same images, in the first member's order.

    Images are matched by id and classes by name (evaluation/classes.py), whatever their order.

    Args:
        members: what each is called in messages, and its scores.

    Raises:
        InputError: when there is no member, or the members differ in images, classes or right answers; it
            names the first difference.
    """
    if not members:
        raise InputError("an ensemble has members; name runs, weights folders or files of scores")
    first_name, first = members[0]
    total = first.probabilities.double()
    for name, scores in members[1:]:
        if len(scores.classes) != len(first.classes):
            raise InputError(
                f"{name} has {len(scores.classes):,} classes and {first_name} has {len(first.classes):,}; "
                "average scores of networks with the same classes"
            )
        scores = scores.in_order_of(first.classes, f"{first_name} with {name}")
        _same_images(first.ids, scores.ids, first_name, name)
        place = {image: n for n, image in enumerate(scores.ids)}
        order = torch.tensor([place[image] for image in first.ids], dtype=torch.int64)
        differ = (scores.targets[order] != first.targets).nonzero()
        if len(differ):
            n = int(differ[0])
            theirs = first.classes[int(scores.targets[order[n]])]
            raise InputError(
                f"the image {first.ids[n]!r} is of class {first.classes[int(first.targets[n])]!r} in "
                f"{first_name} and of class {theirs!r} in {name}; test both on the same data"
            )
        total += scores.probabilities[order]
    mean = (total / len(members)).float()
    return replace(first, probabilities=mean, about={"ensemble": [name for name, _ in members]})


def _same_images(ours: tuple[str, ...], theirs: tuple[str, ...], first_name: str, name: str) -> None:
    """Raise an InputError unless two members have the same images."""
    for some, other, holder, lacking in ((ours, theirs, first_name, name), (theirs, ours, name, first_name)):
        there = set(other)
        missing = [entry for entry in some if entry not in there]
        if missing:
            more = f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
            raise InputError(
                f"{lacking} lacks the image {missing[0]!r}{more}, which {holder} has; average scores of "
                "networks on the same images"
            )
