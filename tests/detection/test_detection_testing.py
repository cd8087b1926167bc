"""A detector on all images of a dataset: each rank its share, and training goes on as if nothing had been."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import pixels_of, sentence_of, smooth_image
from detectors import small_detector
from PIL import Image

from residual.data.boxes import AnnotatedImage, BoxDataset
from residual.detection.average_precision import Detections
from residual.detection.inference import DetectionOptions, detect
from residual.detection.testing import detect_dataset, load_detections, save_detections
from residual.distributed import World

HOW = DetectionOptions(40, 64, score_threshold=0.2)


class SecondOfTwo(World):
    """The second of two ranks, that hears nothing of the first."""

    def gather(self, value: Any) -> list[Any]:
        return [value]


@pytest.fixture
def dataset(tmp_path: Path) -> BoxDataset:
    """Return four images of several sizes; the third is damaged."""
    none, images = torch.empty(0), []
    for number, size in enumerate([(60, 40), (50, 52), (44, 44), (48, 61)]):
        path = tmp_path / f"{number}.png"
        smooth_image(*size, seed=number).save(path)
        flags = none.bool()
        images.append(
            AnnotatedImage(f"i{number}", path, size, none.view(0, 4), none.long(), flags, flags, none)
        )
    images[2].path.write_bytes(b"nothing")
    return BoxDataset("voc", ("test",), ("a", "b", "c"), tuple(images), (), (1, 2, 3))


def test_each_image_has_what_is_found_on_it(dataset: BoxDataset) -> None:
    model, done = small_detector(proposals=(60, 10)).train(), list[int]()
    found = detect_dataset([model], dataset, HOW, progress=done.append)
    assert model.training, "its next iteration would be one of another network"
    assert done == [1, 2, 3, 4]
    assert list(found.unusable) == ["i2"]
    for annotated, each in zip(dataset.images, found.detections, strict=True):
        if annotated.id in found.unusable:
            assert len(each) == 0
        else:
            (alone,) = detect([model.eval()], [pixels_of(Image.open(annotated.path))], HOW)
            assert len(each) == len(alone) > 0
            assert torch.equal(each.boxes, alone.boxes)
    half = detect_dataset([model], dataset, HOW, SecondOfTwo(1, 2))
    assert not model.training
    assert [len(each) for each in half.detections] == [
        0,
        len(found.detections[1]),
        0,
        len(found.detections[3]),
    ]
    said = sentence_of(lambda: detect_dataset([model], dataset, HOW, damaged="fatal"))
    assert "2.png" in said
    assert "data.damaged=skip" in said


def test_what_was_found_of_names_with_accents_apart_is_read(
    dataset: BoxDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Earlier versions told images from others by names of classes as macOS had written them."""
    none = Detections(torch.empty(0, 4), torch.empty(0), torch.empty(0, dtype=torch.int64))
    with monkeypatch.context() as earlier:
        earlier.setattr("residual.data.boxes.in_form", lambda names, form: names)
        apart = replace(dataset, classes=("a", "cafe\u0301", "d"))
        save_detections(tmp_path / "found.safetensors", apart, [none] * 4)
    named = replace(dataset, classes=("a", "caf\u00e9", "d"))
    assert len(load_detections(tmp_path / "found.safetensors", named)) == 4
    other = replace(dataset, classes=("a", "cafe", "d"))
    said = sentence_of(lambda: load_detections(tmp_path / "found.safetensors", other))
    assert "is of other images, classes or boxes than" in said
