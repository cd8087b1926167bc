"""Scores over an image."""

import numpy as np
import torch

from residual.analysis.heat import SIDE, draw_heat


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
