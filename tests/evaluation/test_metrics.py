"""Errors from softmax scores."""

import pytest
import torch
import torch.nn.functional as F
from conftest import shuffled, some_scores

from residual import InputError
from residual.evaluation.scores import Tally


def test_errors_from_probabilities() -> None:
    given = some_scores()
    found = given.metrics()
    places = given.probabilities.argsort(dim=1, descending=True)
    ranks = (places == given.targets[:, None]).nonzero()[:, 1]
    assert found.images == 40
    assert found.top1_error == pytest.approx(100 * (ranks > 0).float().mean().item())
    assert found.top5_error == pytest.approx(100 * (ranks > 4).float().mean().item())
    assert found.loss == pytest.approx(F.nll_loss(given.probabilities.log(), given.targets).item(), rel=1e-5)
    assert shuffled(given).metrics().top1_error == found.top1_error


def test_batches_add_up() -> None:
    given, tally = some_scores(), Tally()
    for part in (slice(0, 7), slice(7, 8), slice(8, 40)):
        tally.add(given.probabilities[part], given.targets[part])
    assert tally.metrics().top1_error == given.metrics().top1_error
    assert tally.metrics().loss == pytest.approx(given.metrics().loss)


def test_of_equal_scores_the_first_class_is_the_likeliest() -> None:
    """As by argmax: a network that tells nothing apart is right as often as chance."""
    tally = Tally()
    tally.add(torch.full((8, 8), 1 / 8), torch.arange(8))
    assert tally.metrics().top1_error == 100 * 7 / 8
    assert tally.metrics().top5_error == 100 * 3 / 8


def test_scores_that_are_no_numbers_are_wrong_answers() -> None:
    for classes in (3, 8):
        tally = Tally()
        tally.add(torch.full((2, classes), torch.nan), torch.tensor([0, 1]))
        assert tally.metrics().top1_error == 100
        assert tally.metrics().top5_error == 100


def test_a_right_class_of_probability_0_has_a_finite_loss() -> None:
    tally = Tally()
    tally.add(torch.tensor([[1.0, 0.0]]), torch.tensor([1]))
    assert 80 < tally.metrics().loss < 100


def test_no_image_at_all() -> None:
    with pytest.raises(InputError, match="no image"):
        Tally().metrics()
