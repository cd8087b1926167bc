"""Annotations in COCO's layout, and a sentence for each thing that can be wrong with them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from residual.data.coco import load_coco
from residual.data.voc import load_voc
from residual.errors import InputError


def image(path: Path, size: tuple[int, int] = (40, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)


COCO: dict[str, Any] = {
    "images": [
        {"id": 7, "file_name": "a.jpg", "width": 40, "height": 30},
        {"id": 9, "file_name": "b.jpg", "width": 40, "height": 30},
    ],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 18, "bbox": [1, 2, 10, 20], "area": 150.5, "iscrowd": 0},
        {"id": 2, "image_id": 7, "category_id": 3, "bbox": [0, 0, 40, 30], "iscrowd": 1},
    ],
    "categories": [{"id": 18, "name": "dog"}, {"id": 3, "name": "car"}],
}


def coco(folder: Path, change: Callable[[dict[str, Any]], object] = lambda content: None) -> Path:
    content = json.loads(json.dumps(COCO))
    change(content)
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    (folder / "annotations" / "instances_train.json").write_text(json.dumps(content))
    for name in ("a.jpg", "b.jpg"):
        image(folder / "train" / name)
    return folder


def test_coco(tmp_path: Path) -> None:
    data = load_coco(coco(tmp_path), ["train"])
    assert data.classes == ("car", "dog")
    assert data.categories == (3, 18)
    assert data.notes == ()
    first, second = data.images
    assert (first.id, second.id) == ("7", "9")
    assert first.boxes.tolist() == [[1, 2, 11, 22], [0, 0, 40, 30]]
    assert first.labels.tolist() == [1, 0]
    assert first.crowd.tolist() == [False, True]
    assert first.areas.tolist() == [150.5, 1200]
    assert data.counts() == [0, 1]
    assert len(second.boxes) == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c["annotations"].append(c["annotations"][0]), ["two of its annotations have the id 1"]),
        (lambda c: c["images"].append(c["images"][0]), ["two of its images have the id 7"]),
        (
            lambda c: c["annotations"][0].update(category_id=5),
            ["annotation 1 is of category 5", "not listed"],
        ),
        (lambda c: c["annotations"][0].pop("bbox"), ["annotation 1 lacks"]),
        (lambda c: c.pop("images"), ["has no list of images"]),
        (lambda c: c["images"][0].pop("width"), ["image 7 lacks"]),
        (lambda c: c["categories"][0].update(name="car"), ["two categories have one name"]),
        (lambda c: c["images"].clear(), ["holds no image that can be used"]),
        (lambda c: c["categories"][0].pop("id"), ["one of its categories has no whole number as id"]),
    ],
)
def test_a_json_that_cannot_be_used(change: Any, words: list[str], tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        load_coco(coco(tmp_path, change), ["train"])
    assert all(word in str(error.value) for word in words)
    assert "instances_train.json" in str(error.value) or "train" in str(error.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c["images"][1].update(file_name="gone.jpg"), ["no file of image 9, gone.jpg"]),
        (lambda c: c["images"].pop(), ["1 images beside it are not listed", "b.jpg"]),
        (lambda c: c["annotations"][0].update(image_id=8), ["annotation 1 is of image 8"]),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, 0, 5]), ["box of a dog", "has no area"]),
        (lambda c: c["annotations"][0].update(bbox=[9, 2, -3, 5]), ["box of a dog", "corners swapped"]),
    ],
)
def test_a_json_with_faults_that_are_noted(change: Any, words: list[str], tmp_path: Path) -> None:
    data = load_coco(coco(tmp_path, change), ["train"])
    assert all(word in data.notes[0] for word in words)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no folder .*nowhere"):
        load_coco(tmp_path / "nowhere", ["train"])
    coco(tmp_path)
    with pytest.raises(InputError, match=r"instances_val\.json; there are instances_train\.json"):
        load_coco(tmp_path, ["val"])
    (tmp_path / "annotations/instances_train.json").write_text("{")
    with pytest.raises(InputError, match="is damaged or no JSON"):
        load_coco(tmp_path, ["train"])
    (tmp_path / "ImageSets/Main").mkdir(parents=True)
    (tmp_path / "ImageSets/Main/train.txt").write_text("a")
    with pytest.raises(InputError, match=r"there is no folder .*JPEGImages"):
        load_voc(tmp_path, ["train"])


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["annotations"][0].update(area="much"),
        lambda c: c["annotations"][0].update(category_id=[3]),
        lambda c: c["annotations"][0].update(image_id=[7]),
    ],
)
def test_a_json_whose_values_are_of_another_kind(
    tmp_path: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    with pytest.raises(InputError, match="annotation 1 lacks"):
        load_coco(coco(tmp_path, change), ["train"])


def test_numbers_that_are_none(tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["annotations"][0].update(area=None, iscrowd="0", bbox=[float("nan"), 1, 2, 3])
        content["images"][1].update(width=0)

    data = load_coco(coco(tmp_path, change), ["train"])
    assert len(data) == 1
    assert any("not of four finite numbers" in note for note in data.notes)
    assert any("has a size of 0 x" in note for note in data.notes)


def test_cocos_test_dev_has_no_annotations_and_lies_among_the_test_images(tmp_path: Path) -> None:
    folder = coco(tmp_path)
    content = {key: value for key, value in COCO.items() if key != "annotations"}
    (folder / "annotations" / "image_info_test-dev2015.json").write_text(json.dumps(content))
    (folder / "train").rename(folder / "test2015")
    data = load_coco(folder, ["test-dev2015"], boxes=False)
    assert [len(annotated.boxes) for annotated in data.images] == [0, 0]
    with pytest.raises(InputError, match="has no list of annotations"):
        load_coco(folder, ["test-dev2015"])
