"""Scores over an image."""

import numpy as np
import pytest
import torch

from residual.analysis.heat import SIDE, draw_beside, draw_heat


def test_it_is_brightest_where_the_score_is_highest() -> None:
    grey = torch.full((3, 32, 32), 128, dtype=torch.uint8)
    scores = torch.zeros(4, 4)
    scores[0, 3] = 5
    drawn = np.asarray(draw_heat(grey, scores)).astype(int)
    assert drawn.shape == (SIDE, SIDE, 3)
    brightness = drawn.sum(axis=2)
    top, left = np.unravel_index(brightness.argmax(), brightness.shape)
    assert top < SIDE // 4 <= 3 * SIDE // 4 < left
    # The same everywhere is drawn, too.
    for same in (torch.ones(2, 2), torch.full((1, 1), 12.345)):
        assert len(np.unique(np.asarray(draw_heat(grey[:1], same)).reshape(-1, 3), axis=0)) == 1


@pytest.mark.parametrize(
    "text", ["97.3 % cat", "97.3 % " + "W" * 40, "0.1 % " + "a name that is too long " * 9, "1.0 % 猫"]
)
def test_below_it_are_its_class_and_what_the_colours_stand_for(text: str) -> None:
    grey = torch.full((3, 32, 32), 128, dtype=torch.uint8)
    scores = torch.tensor([[-1.25, 0], [0, 12.5]])

    def below(text: str, scores: torch.Tensor) -> np.ndarray:
        sheet = draw_beside(grey, scores, text)
        assert np.array_equal(np.asarray(sheet)[:SIDE, -SIDE:], np.asarray(draw_heat(grey, scores)))
        return np.asarray(sheet)[SIDE:]

    strip = below(text, scores)
    assert strip[:, :SIDE].min() < 128
    # No letter runs out of its half, and other scores have other numbers beside the same bar.
    assert (strip[:, SIDE - 4 : SIDE + 4] == 255).all()
    other = below(text, scores + 1)
    assert np.array_equal(other[:, :SIDE], strip[:, :SIDE])
    assert not np.array_equal(other, strip)
