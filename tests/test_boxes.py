"""Annotations in VOC's and COCO's layouts, and a sentence for each thing that can be wrong with them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from residual.data.coco import load_coco
from residual.data.voc import load_voc
from residual.errors import InputError


def picture(path: Path, size: tuple[int, int] = (40, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)


def annotation(*objects: str, size: str = "<size><width>40</width><height>30</height></size>") -> str:
    return f"<annotation>{size}{''.join(objects)}</annotation>"


def item(name: str, *corners: object, more: str = "") -> str:
    sides = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    box = "".join(f"<{side}>{value}</{side}>" for side, value in sides)
    return f"<object><name>{name}</name>{more}<bndbox>{box}</bndbox></object>"


def voc(folder: Path, annotations: dict[str, str | None], split: str = "train") -> Path:
    """Write a folder in VOC's layout; None: no annotation."""
    for name, text in annotations.items():
        picture(folder / "JPEGImages" / f"{name}.jpg")
        if text is not None:
            (folder / "Annotations").mkdir(exist_ok=True)
            (folder / "Annotations" / f"{name}.xml").write_text(text)
    listing = folder / "ImageSets" / "Main" / f"{split}.txt"
    listing.parent.mkdir(parents=True, exist_ok=True)
    listing.write_text("".join(f"{name}\n" for name in annotations))
    return folder


def test_voc_in_our_coordinates(tmp_path: Path) -> None:
    part = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
    folder = voc(
        tmp_path,
        {
            "one": annotation(
                item("dog", 1, 1, 10, 20, more="<difficult>1</difficult>" + part), item("cat", 11, 5, 40, 30)
            ),
            "none": annotation(size=""),
        },
    )
    data = load_voc(folder, ["train"])
    assert data.classes == ("cat", "dog")
    assert data.notes == ()
    one, none = data.photos
    # Pixels 1 to 10 reach from 0 to 10; the last pixel, 40, ends at the picture's edge.
    assert one.boxes.tolist() == [[0, 0, 10, 20], [10, 4, 40, 30]]
    assert one.labels.tolist() == [1, 0]
    assert one.difficult.tolist() == [True, False]
    assert data.counts() == [1, 0]
    # Without objects and without a size: a negative, whose own size is read.
    assert none.size == (40, 30)
    assert none.boxes.shape == (0, 4)
    assert none.areas.shape == (0,)


def test_several_years_and_splits_of_a_devkit(tmp_path: Path) -> None:
    voc(tmp_path / "VOC2007", {"000001": annotation(item("dog", 1, 1, 9, 9))}, "trainval")
    voc(tmp_path / "VOC2012", {"2008_000001": annotation(item("cat", 1, 1, 9, 9))}, "trainval")
    data = load_voc(tmp_path, ["2007/trainval", "2012/trainval"])
    assert [photo.id for photo in data.photos] == ["000001", "2008_000001"]
    assert data.classes == ("cat", "dog")
    assert [photo.labels.tolist() for photo in data.photos] == [[1], [0]]


def test_a_part_without_annotations(tmp_path: Path) -> None:
    folder = voc(tmp_path, {"a": None}, "test")
    data = load_voc(folder, ["test"], ("cat",), boxes=False)
    assert [photo.size for photo in data.photos] == [(40, 30)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, ["bad.xml is missing", "without objects"]),
        ("<annotation><object>", ["bad.xml is damaged", "left out"]),
        (annotation(item("dog", 1, 2, "x", 4)), ["box of a dog is not four numbers", "xmax 'x'"]),
        (annotation(item("", 1, 2, 3, 4)), ["an object has no name"]),
        (annotation(item("dog", 5, 5, 5, 5)), ["box of a dog (5, 5, 5, 5) has no area"]),
        (annotation(item("dog", 20, 5, 10, 9)), ["box of a dog (19, 4, 10, 9) has its corners swapped"]),
        (annotation(item("dog", 50, 5, 60, 9)), ["is outside the picture of 40 x 30"]),
        (annotation(item("dog", 30, 5, 60, 9)), ["reaches over the edge", "was cut"]),
    ],
)
def test_a_faulty_annotation_is_noted_and_the_rest_is_used(
    text: str | None, words: list[str], tmp_path: Path
) -> None:
    folder = voc(tmp_path, {"good": annotation(item("dog", 1, 1, 9, 9)), "bad": text})
    data = load_voc(folder, ["train"])
    (note,) = data.notes
    assert all(word in note for word in words)
    assert str(folder) in note
    assert data.photos[0].boxes.tolist() == [[0, 0, 9, 9]]


def test_a_listed_picture_that_is_not_there_is_noted(tmp_path: Path) -> None:
    folder = voc(tmp_path, {"good": annotation(item("dog", 1, 1, 9, 9))})
    listing = folder / "ImageSets/Main/train.txt"
    listing.write_text("good\ngone\ngood\n")
    data = load_voc(folder, ["train"])
    assert len(data) == 1
    assert "there is no picture gone" in data.notes[0]
    assert "good is listed twice" in data.notes[1]


@pytest.mark.parametrize(
    ("splits", "classes", "words"),
    [
        (["val"], None, ["no split", "val.txt", "there are empty, train"]),
        (["empty"], None, ["empty.txt is empty"]),
        (["2007/train"], None, ["no folder", "VOC2007"]),
        (["train"], ["cat"], ["good.xml: there is no class 'dog' among cat"]),
    ],
)
def test_what_voc_cannot_do_without(
    splits: list[str], classes: list[str] | None, words: list[str], tmp_path: Path
) -> None:
    folder = voc(tmp_path, {"good": annotation(item("dog", 1, 1, 9, 9))})
    (folder / "ImageSets/Main/empty.txt").write_text("\n")
    with pytest.raises(InputError) as error:
        load_voc(folder, splits, classes)
    assert all(word in str(error.value) for word in words)


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
        picture(folder / "train" / name)
    return folder


def test_coco(tmp_path: Path) -> None:
    data = load_coco(coco(tmp_path), ["train"])
    assert data.classes == ("car", "dog")
    assert data.categories == (3, 18)
    assert data.notes == ()
    first, second = data.photos
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
        (lambda c: c["images"].clear(), ["holds no picture that can be used"]),
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
        (lambda c: c["images"].pop(), ["1 pictures beside it are not listed", "b.jpg"]),
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


def test_cocos_test_dev_has_no_annotations_and_lies_among_the_test_pictures(tmp_path: Path) -> None:
    folder = coco(tmp_path)
    content = {key: value for key, value in COCO.items() if key != "annotations"}
    (folder / "annotations" / "image_info_test-dev2015.json").write_text(json.dumps(content))
    (folder / "train").rename(folder / "test2015")
    data = load_coco(folder, ["test-dev2015"], boxes=False)
    assert [len(photo.boxes) for photo in data.photos] == [0, 0]
    with pytest.raises(InputError, match="has no list of annotations"):
        load_coco(folder, ["test-dev2015"])


@pytest.mark.parametrize("encoding", ["foo", "utf-8"])
def test_an_xml_of_a_strange_encoding_or_size_is_noted(tmp_path: Path, encoding: str) -> None:
    size = "<size><width>inf</width><height>30</height></size>"
    text = annotation(size=size).replace(
        "<annotation>", f'<?xml version="1.0" encoding="{encoding}"?><annotation>'
    )
    folder = voc(tmp_path, {"a": text, "b": annotation()})
    data = load_voc(folder, ["train"], ["dog"])
    # A size that is none is taken from the picture.
    assert len(data) == (1 if encoding == "foo" else 2)
