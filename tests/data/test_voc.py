"""Annotations in VOC's layout, and a sentence for each thing that can be wrong with them."""

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import sentence_of
from PIL import Image, ImageOps
from shapes import write_shapes

from residual.data.boxes import BoxDataset, divide, misspelt
from residual.data.images import stored_size, upright_box, upright_size
from residual.data.masks import box_around
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


def test_accents_apart_make_no_second_class_and_no_other_image(tmp_path: Path) -> None:
    """macOS writes a letter and its accent as two, which look the same."""
    one, apart = "caf\u00e9", "cafe\u0301"
    folder = voc(tmp_path, {one: annotation(item(apart, 1, 1, 9, 9), item(one, 9, 9, 20, 20))})
    (folder / "ImageSets" / "Main" / "train.txt").write_text(f"{apart}\n")
    for asked in (None, [one], [apart]):
        data = load_voc(folder, ["train"], asked)
        assert (data.classes, data.counts(), data.notes) == ((one,), [2], ())


def test_a_list_has_what_other_lines_end_in_inside_of_names(tmp_path: Path) -> None:
    data = load_voc(voc(tmp_path, {"a\u2028b": annotation(item("dog", 1, 1, 9, 9))}), ["train"])
    assert [annotated.id for annotated in data.images] == ["a\u2028b"]


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
        (["train"], ["cat"], ["train: no object is of the classes cat", "the annotations name dog"]),
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


def six(folder: Path, *objects: str) -> Path:
    """Write six images of two objects each, the split train."""
    text = annotation(*(objects or (item("dog", 1, 1, 9, 9), item("cat", 11, 5, 30, 20))))
    return voc(folder, dict.fromkeys("abcdef", text))


def assert_six(folder: Path, classes: tuple[str, ...] = ("cat", "dog")) -> BoxDataset:
    """Check that all of ``six`` is read, without a note."""
    data = load_voc(folder, ["train"])
    assert data.notes == ()
    assert [annotated.path.stem for annotated in data.images] == list("abcdef")
    assert (sum(len(annotated.boxes) for annotated in data.images), data.classes) == (12, classes)
    return data


def xml_beside_images(folder: Path) -> None:
    for file in (folder / "Annotations").iterdir():
        file.rename(folder / "JPEGImages" / file.name)
    (folder / "JPEGImages" / "a.txt").write_text("0 0.5 0.5 0.1 0.1")


def copies_beside_images(folder: Path) -> None:
    for file in (folder / "Annotations").iterdir():
        (folder / "JPEGImages" / file.name).write_bytes(file.read_bytes())
        (folder / "JPEGImages" / f"{file.stem}.txt").write_text("0 0.5 0.5 0.1 0.1")


def masks(folder: Path) -> None:
    for file in (folder / "Annotations").iterdir():
        Image.new("L", (40, 30)).save(folder / "JPEGImages" / f"{file.stem}.png")
        named = f"<filename>{file.stem}.jpg</filename>"
        file.write_text(file.read_text().replace("<size>", f"{named}<size>", 1))


def nested(folder: Path) -> None:
    for name in ("JPEGImages", "Annotations"):
        (folder / name).rename(folder / "cam1")
        (folder / name).mkdir()
        (folder / "cam1").rename(folder / name / "cam1")


def nested_and_listed(folder: Path) -> None:
    nested(folder)
    listed("cam1/{}")(folder)


def listed(form: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        text = "".join(form.format(name) + "\n" for name in "abcdef")
        (folder / "ImageSets/Main/train.txt").write_bytes(text.encode())

    return write


def byte_order_mark(folder: Path) -> None:
    file = folder / "ImageSets/Main/train.txt"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())


def upper_case(folder: Path) -> None:
    for name, suffix in (("Annotations", ".XML"), ("JPEGImages", ".JPG")):
        for file in list((folder / name).iterdir()):
            file.rename(file.with_suffix(suffix))
    listed("{}.jpg")(folder)


def other_case(folder: Path) -> None:
    for file in list((folder / "Annotations").iterdir()):
        file.rename(file.with_name(file.name.upper()))


def system_files(folder: Path) -> None:
    for name in ("JPEGImages/@eaDir", "JPEGImages/.thumbnails", "Annotations/__MACOSX"):
        (folder / name).mkdir()
    image(folder / "JPEGImages/@eaDir/a.jpg")
    image(folder / "JPEGImages/.thumbnails/a.jpg")
    (folder / "Annotations/._a.xml").write_bytes(b"\x00\x05\x16\x07")
    (folder / "JPEGImages/Thumbs.db").write_bytes(b"x")


def edited(old: str, new: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        for file in (folder / "Annotations").iterdir():
            assert old in file.read_text()
            file.write_text(file.read_text().replace(old, new))

    return write


@pytest.mark.parametrize(
    "change",
    [
        xml_beside_images,
        copies_beside_images,
        masks,
        nested,
        nested_and_listed,
        upper_case,
        other_case,
        system_files,
        listed("{}.jpg"),
        listed("{}  1"),
        listed("{} -1"),
        listed("{}\t0"),
        listed("{}.jpg 1"),
        listed("{}\r"),
        byte_order_mark,
        listed("./{}"),
        listed("JPEGImages/{}.jpg"),
        listed("/home/somebody/VOC/JPEGImages/{}.jpg"),
        listed("data\\JPEGImages\\{}.jpg"),
        listed("{}\n"),
        edited("<object>", "<object><difficult>False</difficult><pose>Unspecified</pose>"),
        edited("<name>dog</name>", "<name>\n\tdog\n</name>"),
        edited("<width>40</width>", "<width>0</width>"),
        edited("<size>", "<filename>renamed since.png</filename><size>"),
    ],
)
def test_what_other_tools_make_of_the_layout(tmp_path: Path, change: Callable[[Path], None]) -> None:
    folder = six(tmp_path)
    change(folder)
    data = assert_six(folder)
    for annotated in data.images:
        assert annotated.boxes.tolist() == [[0, 0, 9, 9], [10, 4, 30, 20]]
        assert annotated.path.suffix.lower() == ".jpg"
        assert annotated.size == (40, 30)


def test_names_with_spaces_and_names_that_end_in_a_number(tmp_path: Path) -> None:
    folder = voc(tmp_path, dict.fromkeys(["a b", "a 1", "c"], annotation(item("dog", 1, 1, 9, 9))))
    (folder / "ImageSets/Main/train.txt").write_text("a b\na 1\nc 1\n")
    data = load_voc(folder, ["train"])
    assert ([annotated.id for annotated in data.images], data.notes) == (["a b", "a 1", "c"], ())


def test_several_boxes_of_one_object_are_as_many_objects(tmp_path: Path) -> None:
    corners = [item("dog", *box).partition("<bndbox>")[2] for box in ((1, 1, 9, 9), (11, 5, 30, 20))]
    one, two = (text.replace("</object>", "") for text in corners)
    folder = six(tmp_path, f"<object><name>dog</name><bndbox>{one}<bndbox>{two}</object>")
    assert_six(folder, ("dog",))


@pytest.mark.parametrize(
    "shape",
    [
        "<polygon><x1>11</x1><y1>5</y1><x2>30</x2><y2>6</y2><x3>20</x3><y3>20</y3></polygon>",
        "<polygon><pt><x>11</x><y>5</y></pt><pt><x>30</x><y>6</y></pt><pt><x>20</x><y>20</y></pt></polygon>",
        # A rotated box of 15 x 19, turned by a quarter.
        "<robndbox><cx>20.5</cx><cy>12.5</cy><w>15</w><h>19</h><angle>1.5707963</angle></robndbox>",
        "<bndbox><cx>20.5</cx><cy>12.5</cy><w>19</w><h>15</h><angle>0</angle></bndbox>",
    ],
)
def test_the_hull_of_a_polygon_or_a_rotated_box_is_its_box(tmp_path: Path, shape: str) -> None:
    other = f"<object><name>cat</name>{shape}</object>"
    data = assert_six(six(tmp_path, item("dog", 1, 1, 9, 9), other))
    for annotated in data.images:
        assert annotated.boxes.flatten().tolist() == pytest.approx([0, 0, 9, 9, 10, 4, 30, 20], abs=1e-4)
        assert annotated.labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ("<object><name>cat</name><polygon><x1>1</x1></polygon></object>", "polygon of a cat is not three"),
        ("<object><name>cat</name></object>", "a cat has neither bndbox nor polygon"),
        (item("cat", 1, "", 3, 4), "box of a cat is not four numbers (xmin '1', ymin ''"),
        (item("cat", 11, 5, 30, 20, more="<difficult>maybe</difficult>"), "difficult of a cat is 'maybe'"),
        (
            item("cat", 11, 5, 30, 20, more="<attribute><name>rotation</name><value>x</value></attribute>"),
            "the rotation of a cat is no number ('x')",
        ),
        (item("cat", 0.1, 0.2, 0.5, 0.6), "look like fractions of the image's sides; write pixels"),
    ],
)
def test_an_object_that_cannot_be_read_does_not_cost_its_image(
    tmp_path: Path, other: str, words: str
) -> None:
    data = load_voc(six(tmp_path, item("dog", 1, 1, 9, 9), other), ["train"])
    assert (len(data), sum(data.counts()), len(data.notes)) == (6, 6, 6)
    assert all(words in note and "left out" in note for note in data.notes), data.notes[0]


@pytest.mark.parametrize(("said", "difficult"), [("True", True), ("1.0", True), ("1", True), ("0.0", False)])
def test_difficult_however_it_is_written(tmp_path: Path, said: str, difficult: bool) -> None:
    more = f"<difficult>{said}</difficult>"
    data = assert_six(six(tmp_path, item("dog", 1, 1, 9, 9, more=more), item("cat", 11, 5, 30, 20)))
    assert all(annotated.difficult.tolist() == [difficult, False] for annotated in data.images)


@pytest.mark.parametrize(
    ("degrees", "box"),
    [("0.0", [10, 10, 22, 16]), ("30.0", [9.3038, 7.4019, 22.6962, 18.5981]), ("-90", [13, 7, 19, 19])],
)
def test_a_box_that_cvat_says_is_turned(tmp_path: Path, degrees: str, box: list[float]) -> None:
    """12 x 6 about (16, 13), in degrees; CVAT writes the corners from before it was turned."""
    attributes = "<attributes><attribute><name>{}</name><value>{}</value></attribute></attributes>"
    more = attributes.format("colour", "red") + attributes.format("rotation", degrees)
    turned = item("cat", 11, 11, 22, 16).replace("</object>", f"{more}</object>")
    data = assert_six(six(tmp_path, item("dog", 1, 1, 9, 9), turned))
    assert data.images[0].boxes[1].tolist() == pytest.approx(box, abs=1e-4)


def test_masks_that_no_annotation_tells_apart_are_noted_once(tmp_path: Path) -> None:
    folder = six(tmp_path)
    for name in "abcdef":
        Image.new("L", (40, 30)).save(folder / "JPEGImages" / f"{name}.png")
    data = load_voc(folder, ["train"])
    assert [annotated.path.name for annotated in data.images] == [f"{name}.jpg" for name in "abcdef"]
    (note,) = data.notes
    assert "6 names have more than one image" in note
    assert "a.jpg and a.png, a.jpg is taken" in note
    # A list that names the files tells them apart.
    listed("{}.jpg")(folder)
    assert_six(folder)
    # Without a JPEG nothing does.
    listed("{}")(folder)
    for name in "abcdef":
        (folder / "JPEGImages" / f"{name}.jpg").rename(folder / "JPEGImages" / f"{name}.bmp")
    with pytest.raises(InputError, match=r"no image that can be used.*a\.bmp and a\.png, it is left out"):
        load_voc(folder, ["train"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: (folder / "Annotations").rename(folder / "labels"), ["a.xml is missing"]),
        (listed("cam7/{}x"), ["holds no image that can be used", "there is no image cam7/ax"]),
        (edited("<bndbox>", "<box>x</box><bndbo>"), ["a.xml is damaged"]),
        (edited("bndbox>", "box>"), ["name no object at all", "a dog has neither bndbox nor polygon"]),
    ],
)
def test_where_nothing_is_left_the_first_fault_is_told(
    tmp_path: Path, change: Callable[[Path], None], words: list[str]
) -> None:
    folder = six(tmp_path)
    change(folder)
    with pytest.raises(InputError) as error:
        load_voc(folder, ["train"])
    assert all(word in str(error.value) for word in words), error.value


def test_fractions_all_over_are_a_sentence(tmp_path: Path) -> None:
    folder = six(tmp_path, item("dog", 0.1, 0.1, 0.4, 0.5), item("cat", 0.5, 0.5, 0.9, 1))
    with pytest.raises(InputError, match="look like fractions of the image's sides; write pixels"):
        load_voc(folder, ["train"])


def test_images_are_looked_at_in_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PNG is decoded for its orientation: here each waits until another one is under way."""
    six(tmp_path)
    two = threading.Barrier(2, timeout=20)

    def waiting(path: Path) -> tuple[tuple[int, int], int]:
        two.wait()
        return stored_size(path)

    monkeypatch.setattr("residual.data.threads.cores", lambda: 2)
    monkeypatch.setattr("residual.data.boxes.stored_size", waiting)
    assert_six(tmp_path)


def turn(folder: Path, orientation: int, size: tuple[int, int] = (96, 72)) -> None:
    """Give the images another size as stored, and an EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name in "abcdef":
        Image.new("RGB", size).save(folder / "JPEGImages" / f"{name}.jpg", exif=exif)


@pytest.mark.parametrize(
    ("annotated_as", "box"), [((96, 72), [42, 5, 67, 30]), ((72, 96), [5, 5, 30, 30]), (None, [5, 5, 30, 30])]
)
def test_boxes_of_images_that_exif_turns(
    tmp_path: Path, annotated_as: tuple[int, int] | None, box: list[float]
) -> None:
    """Orientation 6 on 96 x 72: the size tells whether boxes are of the stored image or of the shown one."""
    text = "" if annotated_as is None else "<size><width>{}</width><height>{}</height></size>"
    objects = item("dog", 6, 6, 30, 30), item("cat", 11, 5, 30, 20)
    folder = voc(
        tmp_path, dict.fromkeys("abcdef", annotation(*objects, size=text.format(*annotated_as or ())))
    )
    turn(folder, 6)
    data = load_voc(folder, ["train"])
    assert all(annotated.size == (72, 96) for annotated in data.images)
    assert all(annotated.boxes[0].tolist() == box for annotated in data.images)
    # Without a size nothing tells, which is said.
    assert len(data.notes) == (annotated_as is None)
    assert all("6 images are turned by their EXIF orientation" in note for note in data.notes)


def test_images_turned_about_are_taken_as_the_others_of_their_dataset(tmp_path: Path) -> None:
    size = "<size><width>96</width><height>72</height></size>"
    folder = voc(tmp_path, dict.fromkeys("abcdef", annotation(item("dog", 6, 6, 30, 30), size=size)))
    turn(folder, 3)
    (note,) = load_voc(folder, ["train"]).notes
    assert "nothing tells" in note
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.new("RGB", (96, 72)).save(folder / "JPEGImages/f.jpg", exif=exif)
    data = load_voc(folder, ["train"])
    assert data.notes == ()
    assert data.images[0].boxes.tolist() == [[66, 42, 91, 67]]
    assert data.images[5].boxes.tolist() == [[5, 66, 30, 91]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_box_is_turned_as_its_image_is(orientation: int) -> None:
    stored = Image.new("L", (20, 12))
    stored.paste(255, (2, 3, 9, 7))
    stored.getexif()[0x0112] = orientation
    shown = ImageOps.exif_transpose(stored)
    assert upright_size((20, 12), orientation) == shown.size
    assert upright_box((2, 3, 9, 7), (20, 12), orientation) == shown.getbbox()


def test_classes_that_are_not_asked_for_are_left_out_and_told(tmp_path: Path) -> None:
    data = load_voc(six(tmp_path), ["train"], ["dog", "cut"])
    assert (data.classes, data.counts()) == (("dog", "cut"), [6, 0])
    (note,) = data.notes
    assert "6 objects of the class 'cat' left out, which is none of dog, cut; did you mean cut?" in note


def test_a_misspelt_class_is_noticed(tmp_path: Path) -> None:
    names = ["platelet"] * 30 + ["platlet", "disc 1", "disc 2"] + ["disc 2"] * 30 + ["Cell"] + ["cell"] * 20
    # As many of both, but one name: and two, of which OCR knows that they are two.
    names += ["red-cell"] * 9 + ["Red cell"] * 9 + ["a", "A"]
    text = annotation(*(item(name, 1, 1, 9, 9) for name in names))
    data = load_voc(voc(tmp_path, {"a": text}), ["train"])
    assert misspelt(data) == [
        "the class 'Cell' has 1 object and 'cell' has 20; mend the annotations if it is misspelt",
        "the class 'Red cell' has 9 objects and 'red-cell' has 9; mend the annotations if it is misspelt",
        "the class 'platlet' has 1 object and 'platelet' has 30; mend the annotations if it is misspelt",
    ]


def test_lists_of_single_classes_are_named_where_there_are_no_others(tmp_path: Path) -> None:
    folder = six(tmp_path)
    (folder / "ImageSets/Main/train.txt").rename(folder / "ImageSets/Main/dog_train.txt")
    with pytest.raises(InputError, match=r"there is no split .*; there are dog_train; name them"):
        load_voc(folder, ["train"])
    (folder / "ImageSets/Main/dog_train.txt").unlink()
    shutil.rmtree(folder / "Annotations")
    with pytest.raises(InputError, match="of tables make one of these first"):
        load_voc(folder, ["train"])


def test_areas_are_of_the_boxes(tmp_path: Path) -> None:
    (first, *_) = load_voc(six(tmp_path), ["train"]).images
    assert torch.equal(first.areas, torch.tensor([81.0, 320.0]))


def test_masks(tmp_path: Path) -> None:
    """Pixels of an annotation's k-th object have the number k; lists are those of Segmentation."""
    folder = write_shapes(tmp_path / "voc", train=4, test=2, masks=True)
    data = load_voc(folder, ["train"], masks=True)
    assert data.notes == ()
    assert sum(len(annotated.masks) for annotated in data.images) == sum(data.counts())
    for annotated in data.images:
        for mask, box in zip(annotated.masks, annotated.boxes.tolist(), strict=True):
            assert mask is not None
            assert mask.size == (48, 48)
            assert list(box_around(mask)) == pytest.approx(box, abs=1)
    assert not load_voc(folder, ["train"]).has_masks
    (folder / "ImageSets/Segmentation").mkdir()
    (folder / "ImageSets/Segmentation/train.txt").write_text("train000\n")
    assert (len(load_voc(folder, ["train"], masks=True)), len(load_voc(folder, ["train"]))) == (1, 4)


def test_masks_that_do_not_fit_are_noted(tmp_path: Path) -> None:
    folder = write_shapes(tmp_path / "voc", train=4, test=2, masks=True)
    first, second, third, fourth = (folder / f"SegmentationObject/train00{number}.png" for number in range(4))
    first.unlink()
    with Image.open(second) as image:
        moved = np.asarray(image).copy()
    moved[moved == 1] = 9
    Image.fromarray(moved).save(second)
    with Image.open(third) as image:
        Image.fromarray(np.flipud(np.fliplr(np.asarray(image))).copy()).save(third)
    Image.new("RGB", (48, 48)).save(fourth)
    data = load_voc(folder, ["train"], masks=True)
    # Without an image of instances there are boxes, and nothing is wrong.
    assert data.images[0].masks == ()
    assert data.images[1].masks[:1] in ((), (None,))
    assert data.images[3].masks == ()
    notes = "\n".join(data.notes)
    assert f"{second} has pixels of the number 9" in notes
    assert "does not lie in the object's box; its box alone is used" in notes
    assert f"{fourth} is a PNG of mode RGB, and its pixels are to be numbers" in notes


def test_a_size_that_no_image_has_is_not_one(tmp_path: Path) -> None:
    size = "<size><width>1e30</width><height>1e30</height></size>"
    data = load_voc(voc(tmp_path, {"one": annotation(item("dog", 1, 1, 10, 20), size=size)}), ["train"])
    assert data.images[0].size == (40, 30)
    assert data.content()


def names_of(data: BoxDataset) -> list[str]:
    return [annotated.id for annotated in data.images]


@pytest.mark.parametrize(
    ("images", "annotations"),
    [
        ("", ""),
        ("JPEGImages", "Annotations"),
        ("images", "annotations"),
        ("images", ""),
        ("", "xml"),
        ("first/images", "first/xml"),
        ("JPEGImages", "JPEGImages"),
    ],
)
def test_without_lists_all_annotated_images_are_trainval(
    tmp_path: Path, images: str, annotations: str
) -> None:
    for number in range(4):
        for name in (f"{number}", f"deep/{number}"):
            image(tmp_path / images / f"{name}.jpg")
            if number < 3:
                file = tmp_path / annotations / f"{name}.xml"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(annotation(item("dog", 1, 1, 9 + number, 9)))
    data = load_voc(tmp_path, ["trainval"])
    assert sorted(names_of(data)) == ["0", "1", "2", "deep/0", "deep/1", "deep/2"]
    for annotated in data.images:
        assert annotated.boxes.tolist() == [[0, 0, 9 + int(annotated.id[-1]), 9]]
    assert len(data.notes) == 1
    assert "2 of 8 images have no annotation and are left out" in data.notes[0]
    said = sentence_of(lambda: load_voc(tmp_path, ["test"]))
    assert "all annotated images are trainval; to train, hold a share of them out: --set " in said


def pair(folder: Path, images: str, annotations: str, name: str = "0", wide: int = 9) -> None:
    """Write an image and its annotation, either of them "" for not at all."""
    if images:
        image(folder / images / f"{name}.jpg")
    if annotations:
        file = folder / annotations / f"{name}.xml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(annotation(item("dog", 1, 1, wide, 9)))


def test_annotations_without_lists_are_of_the_images_beside_them(tmp_path: Path) -> None:
    """Cameras give images of one name; one that nobody has annotated yet takes nothing of another's."""
    pair(tmp_path, "a", "a", wide=9)
    pair(tmp_path, "b", "b", wide=19)
    pair(tmp_path, "c", "")
    pair(tmp_path, "", "a", name="gone")
    pair(tmp_path, "c", "", name="gone")
    data = load_voc(tmp_path, ["trainval"])
    assert [(annotated.id, annotated.boxes.tolist()[0][2]) for annotated in data.images] == [
        ("a/0", 9),
        ("b/0", 19),
    ]
    assert any("gone.xml has no image" in note for note in data.notes)
    assert any("2 of 4 images have no annotation" in note for note in data.notes)


def test_pairs_of_folders_without_lists(tmp_path: Path) -> None:
    for camera, wide in (("c1", 9), ("c2", 19)):
        pair(tmp_path, f"{camera}/images", f"{camera}/xml", wide=wide)
    data = load_voc(tmp_path, ["trainval"])
    assert [(annotated.id, annotated.boxes.tolist()[0][2]) for annotated in data.images] == [
        ("c1/images/0", 9),
        ("c2/images/0", 19),
    ]


def test_an_annotation_that_may_be_of_several_images_is_left_out(tmp_path: Path) -> None:
    pair(tmp_path, "a", "xml")
    pair(tmp_path, "b", "")
    pair(tmp_path, "a", "xml", name="1")
    data = load_voc(tmp_path, ["trainval"])
    assert names_of(data) == ["a/1"]
    assert any("0.xml may be of" in note for note in data.notes)


@pytest.mark.parametrize(
    ("below", "lists"), [("VOC2007", "Main"), ("kit/VOC2007", "Main"), ("", "Segmentation"), ("", "Main")]
)
def test_a_folder_above_lists_is_not_without_them(tmp_path: Path, below: str, lists: str) -> None:
    """It would be learned whole, with what is to be tested on."""
    folder = voc(tmp_path / below, {"a": annotation(item("dog", 1, 1, 9, 9))}, split="test")
    if lists != "Main":
        (folder / "ImageSets" / "Main").rename(folder / "ImageSets" / lists)
    said = sentence_of(lambda: load_voc(tmp_path, ["trainval"]))
    assert "there is no split" in said
    assert "data.validation" not in said


def test_folders_without_lists_are_splits_and_not_thrown_together(tmp_path: Path) -> None:
    """As Roboflow exports VOC's XML."""
    pair(tmp_path, "train", "train")
    pair(tmp_path, "valid", "valid", name="1")
    said = sentence_of(lambda: load_voc(tmp_path, ["trainval"]))
    named = "train and valid are splits by the folder's name: --set data.train=train --set data.test=valid"
    assert named in said
    assert names_of(load_voc(tmp_path, ["train"])) == ["0"]
    assert names_of(load_voc(tmp_path, ["valid"])) == ["1"]
    assert names_of(load_voc(tmp_path, ["train", "valid"])) == ["0", "1"]
    assert named in sentence_of(lambda: load_voc(tmp_path, ["test"]))


def test_the_only_list_can_be_divided(tmp_path: Path) -> None:
    """As CVAT exports a task that nobody has divided."""
    voc(tmp_path, {"a": annotation(item("dog", 1, 1, 9, 9))}, split="default")
    said = sentence_of(lambda: load_voc(tmp_path, ["trainval"]))
    assert "there is default alone; to train, hold a share of them out: --set data.train=default" in said


def test_a_year_without_its_lists_is_not_whole(tmp_path: Path) -> None:
    voc(tmp_path / "VOC2007", {"a": annotation(item("dog", 1, 1, 9, 9))})
    (tmp_path / "VOC2007" / "ImageSets" / "Main" / "train.txt").unlink()
    assert "there is no split" in sentence_of(lambda: load_voc(tmp_path, ["2007/trainval"]))


def boxes_of(tmp_path: Path, *shown: str) -> BoxDataset:
    """A dataset of an image for each word, whose letters are the classes that it shows."""
    named = {
        f"{number:03d}": annotation(*(item(name, 1, 1, 9, 9) for name in word))
        for number, word in enumerate(shown)
    }
    return load_voc(voc(tmp_path, {**named}), ["train"])


def test_a_share_is_held_out_of_every_class(tmp_path: Path) -> None:
    data = boxes_of(tmp_path, *["a"] * 50, *["ab"] * 20, *["c"] * 10, *[""] * 20)
    train, held = divide(data, 0.2, seed=3)
    assert len(train) == 80
    assert len(held) == 20
    assert sorted(names_of(train) + names_of(held)) == names_of(data)
    assert names_of(held) == sorted(names_of(held))
    assert held.counts() == [14, 4, 2]
    assert sum(not len(annotated.boxes) for annotated in held.images) == 4
    assert held.name == "voc train (20 for validation)"
    same, other = divide(data, 0.2, seed=3)[1], divide(data, 0.2, seed=4)[1]
    assert names_of(same) == names_of(held) != names_of(other)


@pytest.mark.parametrize("seed", range(5))
def test_the_only_image_of_a_class_is_learned(tmp_path: Path, seed: int) -> None:
    data = boxes_of(tmp_path, "a", "b", "c", "dd", "ef", "g", *["h"] * 6)
    train, held = divide(data, 0.5, seed)
    assert min(train.counts()) > 0
    assert held.counts()[-1] > 0


@pytest.mark.parametrize(("images", "share"), [(1, 0.2), (2, 0.2), (3, 0.01)])
def test_both_parts_need_an_image(tmp_path: Path, images: int, share: float) -> None:
    data = boxes_of(tmp_path, *["a"] * images)
    said = sentence_of(lambda: divide(data, share, 0))
    assert f"data.validation={share:g} holds" in said
