"""A detector that is used from Python."""

import numpy as np
import pytest
import torch
from detectors import Scripted
from torch import Tensor

from residual import InputError
from residual.detection.weights import DetectorWeightsConfig
from residual.inference.detector import Improvements, LoadedDetector


def loaded(*looks: tuple[Tensor, Tensor, Tensor], proposals: Tensor) -> LoadedDetector:
    config = DetectorWeightsConfig(
        options={},
        detector={},
        classes=["cat", "dog"],
        categories=[1, 2],
        shorter_side=40,
        longer_side=40,
    )
    return LoadedDetector([Scripted(proposals, *looks)], [config], Improvements(), "float32")


def test_what_is_found_may_be_written_to() -> None:
    box = torch.tensor([[8.0, 8, 24, 24]])
    detector = loaded((torch.tensor([[0.1, 0.8, 0.1]]), box, box), proposals=box)
    found = detector.predict(np.zeros((40, 40, 3), np.uint8), score_threshold=0.5)
    found.boxes[:, 2:] -= found.boxes[:, :2]
    torch.testing.assert_close(found.boxes, torch.tensor([[8.0, 8, 16, 16]]))
    assert not any(each.is_inference() for each in (found.scores, found.labels))


@pytest.mark.parametrize("wrong", [50, -0.1, float("nan")])
def test_scores_are_no_percent(wrong: float) -> None:
    detector = loaded(proposals=torch.empty(0, 4))
    with pytest.raises(InputError, match=f"^a score threshold is a number from 0 to 1, not {wrong}$"):
        detector.predict(np.zeros((40, 40, 3), np.uint8), wrong)
