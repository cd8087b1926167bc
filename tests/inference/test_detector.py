"""A detector that is used from Python."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import sentence_of, smooth_image
from detectors import Scripted
from torch import Tensor

from residual import InputError
from residual.detection.weights import DetectorWeightsConfig
from residual.inference.detector import Improvements, LoadedDetector, load_detector


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


def test_threads_share_a_detector(begun_detector: Path) -> None:
    detector = load_detector(begun_detector, device="cpu")
    images = [np.asarray(smooth_image(60 + n, 70 - n, seed=n)) for n in range(12)]
    expected = [detector.predict(image, 0.05) for image in images]
    assert sum(map(len, expected)) > 0
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda image: detector.predict(image, 0.05), images))
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.boxes, other.boxes)
        assert torch.equal(one.scores, other.scores)


@pytest.mark.parametrize("sides", [(1200, 1000), (0, 40), (10**6, 10**6)])
def test_sides_that_no_training_gives_are_damage(
    sides: tuple[int, int], begun_detector: Path, tmp_path: Path
) -> None:
    weights = shutil.copytree(begun_detector / "weights", tmp_path / "weights")
    config = json.loads((weights / "config.json").read_text())
    changed = dict(zip(("shorter_side", "longer_side"), sides, strict=True))
    (weights / "config.json").write_text(json.dumps(config | changed))
    assert "config.json is damaged" in sentence_of(lambda: load_detector(weights, device="cpu"))
