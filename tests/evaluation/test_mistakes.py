"""What a network takes for what."""

import numpy as np
import pytest
import torch
from conftest import some_scores

from residual.evaluation.mistakes import (
    Confusion,
    confusion_matrix,
    counts_by_class,
    most_confused,
    worst_mistakes,
)
from residual.evaluation.scores import Scores

#: What is seen in six images of three classes, and how surely.
SURE = torch.tensor(
    [[0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0.05, 0.9, 0.05], [0.2, 0.7, 0.1], [0.1, 0.5, 0.4], [0.3, 0.3, 0.4]]
)
SIX = Scores(tuple("abcdef"), ("x", "y", "z"), SURE, torch.tensor([0, 0, 0, 1, 2, 2]), {})


def test_confusions_are_counted_by_what_they_are_and_what_was_seen() -> None:
    assert confusion_matrix(SIX).tolist() == [[1, 2, 0], [0, 1, 0], [0, 1, 1]]
    assert most_confused(SIX, 5) == [Confusion(0, 1, 2), Confusion(2, 1, 1)]
    assert most_confused(SIX, 1) == [Confusion(0, 1, 2)]
    assert [counts.tolist() for counts in counts_by_class(SIX)] == [[3, 1, 2], [1, 1, 1]]


def test_of_many_classes_no_matrix_is_made() -> None:
    """Of a million it would be eight million million bytes."""
    many = 1_000_000
    classes = tuple(map(str, range(many)))
    scores = torch.zeros(2, many)
    scores[:, 3] = 1
    found = Scores(("a", "b"), classes, scores, torch.tensor([many - 1, 3]), {})
    assert most_confused(found, 5) == [Confusion(many - 1, 3, 1)]
    counts, right = counts_by_class(found)
    assert counts.nonzero().flatten().tolist() == [3, many - 1]
    assert right.nonzero().flatten().tolist() == [3]


def test_the_worst_mistakes_are_those_that_were_surest() -> None:
    found = worst_mistakes(SIX, 2)
    assert [(m.id, m.target, m.seen) for m in found] == [("c", 0, 1), ("b", 0, 1)]
    np.testing.assert_allclose(
        [(m.probability, m.right) for m in found], [(0.9, 0.05), (0.6, 0.3)], rtol=1e-6
    )
    assert [m.id for m in worst_mistakes(SIX, 24)] == ["c", "b", "e"]


def test_a_class_without_images_has_its_row_and_errors_are_those_of_the_scores() -> None:
    scores = some_scores(count=5, classes=8)
    matrix = confusion_matrix(scores)
    assert matrix.shape == (8, 8)
    wrong = matrix.sum() - matrix.trace()
    assert 100 * wrong / 5 == scores.metrics().top1_error
    counts, right = counts_by_class(scores)
    assert counts.equal(matrix.sum(dim=1))
    assert right.equal(matrix.diagonal())


@pytest.mark.filterwarnings("error")
def test_a_single_class_is_counted_without_a_warning() -> None:
    scores = Scores(("a", "b"), ("x",), torch.ones(2, 1), torch.zeros(2, dtype=torch.int64), {})
    assert confusion_matrix(scores).tolist() == [[2]]
