"""The mean of softmax scores, matched by image and class."""

import itertools
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from conftest import shuffled, some_scores

from residual import InputError
from residual.evaluation.ensemble import average


def test_an_ensemble_is_the_mean_of_softmax_scores_matched_by_image_and_class() -> None:
    members = [some_scores(0), some_scores(1), some_scores(2)]
    expected = sum(m.probabilities.double() for m in members) / 3
    mixed = [("a", members[0]), ("b", shuffled(members[1])), ("c", shuffled(members[2], 5))]
    for order in itertools.permutations(mixed):
        found = average(order)
        place = [found.ids.index(name) for name in members[0].ids]
        columns = [found.classes.index(name) for name in members[0].classes]
        torch.testing.assert_close(found.probabilities[place][:, columns], expected.float())
        assert found.metrics().loss == pytest.approx(
            F.nll_loss(expected.log(), members[0].targets).item(), rel=1e-5
        )
        assert found.about == {"ensemble": [name for name, _ in order]}


def test_an_ensemble_of_one_is_itself() -> None:
    assert torch.equal(average([("a", some_scores())]).probabilities, some_scores().probabilities)


def test_members_that_do_not_fit() -> None:
    given = some_scores()
    fewer = replace(
        given, ids=given.ids[:-2], probabilities=given.probabilities[:-2], targets=given.targets[:-2]
    )
    with pytest.raises(InputError, match=r"b lacks the image 'val/38.jpg' and 1 more, which a has"):
        average([("a", given), ("b", fewer)])
    with pytest.raises(InputError, match=r"a lacks the image 'val/38.jpg'"):
        average([("a", fewer), ("b", given)])
    renamed = replace(given, classes=("zebra", *given.classes[1:]))
    with pytest.raises(InputError, match="a with b: the class 'class 0' is not one of the network's 8"):
        average([("a", given), ("b", renamed)])
    other = replace(given, targets=(given.targets + 1) % 8)
    with pytest.raises(
        InputError, match=r"'val/0.jpg' is of class 'class 0' in a and of class 'class 1' in b"
    ):
        average([("a", given), ("b", other)])
    with pytest.raises(InputError, match="an ensemble has members"):
        average([])
