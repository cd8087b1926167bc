"""Annotations in VOC's layout, and a sentence for each thing that can be wrong with them."""

from pathlib import Path

import pytest
from PIL import Image

from residual.data.voc import load_voc
from residual.errors import InputError


def image(path: Path, size: tuple[int, int] = (40, 30)) -> None:
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
        image(folder / "JPEGImages" / f"{name}.jpg")
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
    one, none = data.images
    # Pixels 1 to 10 reach from 0 to 10; the last pixel, 40, ends at the image's edge.
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
    assert [annotated.id for annotated in data.images] == ["000001", "2008_000001"]
    assert data.classes == ("cat", "dog")
    assert [annotated.labels.tolist() for annotated in data.images] == [[1], [0]]


def test_a_part_without_annotations(tmp_path: Path) -> None:
    folder = voc(tmp_path, {"a": None}, "test")
    data = load_voc(folder, ["test"], ("cat",), boxes=False)
    assert [annotated.size for annotated in data.images] == [(40, 30)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, ["bad.xml is missing", "without objects"]),
        ("<annotation><object>", ["bad.xml is damaged", "left out"]),
        (annotation(item("dog", 1, 2, "x", 4)), ["box of a dog is not four numbers", "xmax 'x'"]),
        (annotation(item("", 1, 2, 3, 4)), ["an object has no name"]),
        (annotation(item("dog", 5, 5, 5, 5)), ["box of a dog (5, 5, 5, 5) has no area"]),
        (annotation(item("dog", 20, 5, 10, 9)), ["box of a dog (19, 4, 10, 9) has its corners swapped"]),
        (annotation(item("dog", 50, 5, 60, 9)), ["is outside the image of 40 x 30"]),
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
    assert data.images[0].boxes.tolist() == [[0, 0, 9, 9]]


def test_a_listed_image_that_is_not_there_is_noted(tmp_path: Path) -> None:
    folder = voc(tmp_path, {"good": annotation(item("dog", 1, 1, 9, 9))})
    listing = folder / "ImageSets/Main/train.txt"
    listing.write_text("good\ngone\ngood\n")
    data = load_voc(folder, ["train"])
    assert len(data) == 1
    assert "there is no image gone" in data.notes[0]
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


@pytest.mark.parametrize("encoding", ["foo", "utf-8"])
def test_an_xml_of_a_strange_encoding_or_size_is_noted(tmp_path: Path, encoding: str) -> None:
    size = "<size><width>inf</width><height>30</height></size>"
    text = annotation(size=size).replace(
        "<annotation>", f'<?xml version="1.0" encoding="{encoding}"?><annotation>'
    )
    folder = voc(tmp_path, {"a": text, "b": annotation()})
    data = load_voc(folder, ["train"], ["dog"])
    # A size that is none is taken from the image.
    assert len(data) == (1 if encoding == "foo" else 2)
