"""Annotations in YOLO's layout, as the programs that write it leave them, and a sentence for each fault."""

from pathlib import Path

import pytest
from PIL import Image
from shapes import CLASSES, write_devkit, write_yolo

from residual.data.boxes import BoxDataset
from residual.data.images import ORIENTATION
from residual.data.masks import masks_as_pixels
from residual.data.voc import load_voc
from residual.data.yolo import load_yolo
from residual.errors import InputError

#: A dog from (10, 6) to (30, 18) on an image of 40 x 30, and a cat of 4 x 3 pixels at the lower right.
DOG, CAT = "1 0.5 0.4 0.5 0.4", "0 0.95 0.95 0.1 0.1"
DOG_BOX, CAT_BOX = [10, 6, 30, 18], [36, 27, 40, 30]
NAMES = "names: [cat, dog]\n"


def write(folder: Path, **files: str | None) -> Path:
    """Write files by their paths: texts, and images (None)."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            Image.new("RGB", (40, 30)).save(path)
        else:
            path.write_text(content)
    return folder


def boxes_of(data: BoxDataset) -> dict[str, list[tuple[str, list[float]]]]:
    """Return the classes and boxes of each image's objects by the image's name."""
    return {
        annotated.path.name: [
            (data.classes[label], [round(x, 3) for x in box])
            for box, label in zip(annotated.boxes.tolist(), annotated.labels.tolist(), strict=True)
        ]
        for annotated in data.images
    }


BOTH = {"a.jpg": [("dog", DOG_BOX), ("cat", CAT_BOX)], "b.jpg": []}
ULTRALYTICS = {
    "data.yaml": "path: /home/somebody/cells\ntrain: images/train\nval: images/val\n"
    "names:\n  0: cat\n  1: dog\n  2: cow\n",
    "images/train/a.jpg": None,
    "images/train/b.jpg": None,
    "images/val/c.jpg": None,
    "labels/train/a.txt": f"{DOG}\n{CAT}\n",
    "labels/train/b.txt": "",
    "labels/val/c.txt": f"{CAT}\n",
}
ROBOFLOW = {
    "data.yaml": f"train: ../train/images\nval: ../valid/images\nnc: 2\n{NAMES}",
    "train/images/a.jpg": None,
    "train/images/b.jpg": None,
    "train/labels/a.txt": f"{DOG}\n{CAT}",
    "train/labels/b.txt": "",
    "valid/images/c.jpg": None,
    "valid/labels/c.txt": CAT,
}
DARKNET = {
    "obj.names": "cat\ndog\n",
    "obj.data": "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\n",
    "train.txt": "data/obj_train_data/a.jpg\ndata/obj_train_data/b.jpg\n",
    "obj_train_data/a.jpg": None,
    "obj_train_data/a.txt": f"{DOG}\n{CAT}\n",
    "obj_train_data/b.jpg": None,
    "obj_train_data/b.txt": "",
}
#: A folder of images with their texts, and one of images beside one of texts.
LABELIMG = {
    "classes.txt": "cat\ndog\n",
    "a.jpg": None,
    "a.txt": f"{DOG}\n{CAT}\n",
    "b.jpg": None,
    "b.txt": "",
}
LABEL_STUDIO = {
    "classes.txt": "cat\ndog\n",
    "notes.json": "{}",
    "images/a.jpg": None,
    "images/b.jpg": None,
    "labels/a.txt": f"{DOG}\n{CAT}\n",
    "labels/b.txt": "",
}


@pytest.mark.parametrize(
    ("files", "split"),
    [
        (ULTRALYTICS, "train"),
        (ROBOFLOW, "train"),
        (DARKNET, "train"),
        (LABELIMG, "trainval"),
        (LABEL_STUDIO, "trainval"),
        # Without what says where the splits are, their folders do.
        (ULTRALYTICS | {"data.yaml": NAMES}, "train"),
        (ROBOFLOW | {"data.yaml": NAMES}, "train"),
    ],
)
def test_what_programs_write_is_read(files: dict[str, str | None], split: str, tmp_path: Path) -> None:
    data = load_yolo(write(tmp_path, **files), [split])
    assert boxes_of(data) == BOTH
    assert (data.layout, data.splits, data.classes, data.categories) == (
        "yolo",
        (split,),
        ("cat", "dog"),
        (0, 1),
    )
    assert data.notes == ()
    assert data.images[0].size == (40, 30)
    assert data.images[0].areas.tolist() == pytest.approx([240, 12])


def test_splits_have_their_own_names(tmp_path: Path) -> None:
    folder = write(tmp_path / "ultralytics", **ULTRALYTICS)
    assert boxes_of(load_yolo(folder, ["val"], ["dog", "cat"])) == {"c.jpg": [("cat", CAT_BOX)]}
    assert [one.id for one in load_yolo(folder, ["train", "val"]).images] == [
        "images/train/a",
        "images/train/b",
        "images/val/c",
    ]
    folder = write(tmp_path / "roboflow", **ROBOFLOW)
    assert boxes_of(load_yolo(folder, ["val"])) == boxes_of(load_yolo(folder, ["valid"]))


def test_an_image_in_two_splits_counts_once(tmp_path: Path) -> None:
    folder = write(tmp_path, **ULTRALYTICS | {"both.txt": "images/train/a.jpg\nimages/val/c.jpg\n"})
    data = load_yolo(folder, ["train", "both"])
    assert len(data) == 3
    assert data.notes == (f"{folder / 'images/train/a.jpg'} is in two splits; it counts once",)


def test_boxes_are_those_of_the_same_objects_in_vocs_layout(tmp_path: Path) -> None:
    devkit = write_devkit(tmp_path / "VOCdevkit")
    voc, yolo = (
        load_voc(devkit, ["2007/trainval"]),
        load_yolo(write_yolo(tmp_path / "yolo", devkit), ["train"]),
    )
    assert yolo.classes == CLASSES
    assert len(yolo) == len(voc) == 6
    for ours, theirs in zip(yolo.images, voc.images, strict=True):
        assert ours.path.name == theirs.path.name
        assert ours.boxes.flatten().tolist() == pytest.approx(theirs.boxes.flatten().tolist(), abs=1e-4)
        assert [yolo.classes[k] for k in ours.labels] == [voc.classes[k] for k in theirs.labels]


def test_polygons_are_boxes_and_masks(tmp_path: Path) -> None:
    corners = "1 0.25 0.2 0.75 0.2 0.75 0.6 0.25 0.6"
    folder = write(tmp_path, **LABELIMG | {"a.txt": f"{corners}\n{CAT}\n"})
    assert boxes_of(load_yolo(folder, ["trainval"])) == BOTH
    assert not load_yolo(folder, ["trainval"]).has_masks
    (first, second), *_ = (one.masks for one in load_yolo(folder, ["trainval"], masks=True).images)
    assert second is None
    pixels = masks_as_pixels([first], (30, 40))[0]
    assert pixels.sum() == pixels[6:18, 10:30].sum() == 240


def test_scores_and_key_points_are_not_read(tmp_path: Path) -> None:
    scored = write(tmp_path / "scored", **LABELIMG | {"a.txt": f"{DOG} 0.9\n{CAT} 0.8\n"})
    assert boxes_of(load_yolo(scored, ["trainval"])) == BOTH
    points = f"{DOG} 0.5 0.5 2 0.6 0.6 1\n{CAT} 0 0 0 0.9 0.9 2\n"
    files = ULTRALYTICS | {"data.yaml": f"kpt_shape: [2, 3]\n{NAMES}", "labels/train/a.txt": points}
    assert boxes_of(load_yolo(write(tmp_path / "points", **files), ["train"])) == BOTH


def test_boxes_are_of_the_image_as_it_is_shown(tmp_path: Path) -> None:
    folder = write(tmp_path, **LABELIMG | {"a.txt": "1 0.25 0.5 0.5 1\n"})
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    Image.new("RGB", (40, 30)).save(folder / "a.jpg", exif=exif)
    data = load_yolo(folder, ["trainval"])
    assert data.images[0].size == (30, 40)
    assert boxes_of(data)["a.jpg"] == [("dog", [0, 0, 15, 40])]
    assert data.notes == ()


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("1 0.5 0.5 0.5", "line 2 is neither a class with four numbers of a box nor with the corners"),
        ("dog 0.5 0.5 0.5 0.5", "line 2 is neither a class with four numbers"),
        ("2 0.5 0.5 0.5 0.5", "line 2 is of class 2, which {folder}/classes.txt does not name"),
        ("0.5 0.5 0.5 0.5 0.5", "line 2 is of class 0.5, which"),
        ("1 20 15 10 10", "line 2: its numbers are no fractions of the image's sides"),
        ("1 nan 0.5 0.5 0.5", "line 2: its numbers are no fractions"),
        ("1 0.5 0.5 -0.5 0.5", "the box of a dog (30, 7.5, 10, 22.5) has its corners swapped"),
    ],
)
def test_a_line_of_no_use_is_left_out(line: str, told: str, tmp_path: Path) -> None:
    data = load_yolo(write(tmp_path, **LABELIMG | {"a.txt": f"{CAT}\n{line}\n"}), ["trainval"])
    assert boxes_of(data)["a.jpg"] == [("cat", CAT_BOX)]
    (note,) = data.notes
    assert told.format(folder=tmp_path) in note
    assert note.endswith("left out")


def test_images_without_a_label_or_damaged_are_told(tmp_path: Path) -> None:
    folder = write(tmp_path, **LABELIMG | {"c.jpg": None, "d.jpg": "no image", "d.txt": DOG})
    data = load_yolo(folder, ["trainval"])
    assert list(boxes_of(data)) == ["a.jpg", "b.jpg", "c.jpg"]
    assert data.notes[0] == (
        f"{folder}: 1 of 4 images of trainval have no label and count as images without objects; the first "
        f"is {folder / 'c.jpg'}"
    )
    assert data.notes[1].startswith(f"{folder / 'd.jpg'}")
    assert len(load_yolo(write(folder, **{"d.jpg": None}), ["trainval"], ["dog"], boxes=False)) == 4


def test_a_list_tells_what_it_does_not_find(tmp_path: Path) -> None:
    files = DARKNET | {
        "train.txt": "C:\\data\\obj_train_data\\a.jpg\nnone.jpg\nc.jpg\n",
        "x/c.jpg": None,
        "y/c.jpg": None,
    }
    data = load_yolo(write(tmp_path, **files), ["train"])
    assert list(boxes_of(data)) == ["a.jpg"]
    assert "line 2: there is no image none.jpg; it is left out" in data.notes[0]
    assert f"line 3: c.jpg may be {tmp_path / 'x/c.jpg'} or {tmp_path / 'y/c.jpg'}" in data.notes[1]


@pytest.mark.parametrize(
    ("files", "split", "told"),
    [
        ({"a.jpg": None}, "trainval", "does not say what the classes are called; write data.yaml"),
        (LABELIMG | {"data.yaml": "names: 3"}, "trainval", "data.yaml: names is neither a list of names nor"),
        (LABELIMG | {"data.yaml": "names: {a: b}"}, "trainval", "data.yaml: names is neither"),
        (LABELIMG | {"data.yaml": "names: [a, a ]"}, "trainval", "data.yaml: two classes have one name, 'a'"),
        (LABELIMG | {"data.yaml": "names: ["}, "trainval", "data.yaml: not valid YAML"),
        (LABELIMG | {"data.yaml": NAMES, "b.yml": "names: [cat]"}, "trainval", "name different classes"),
        (ULTRALYTICS, "trainval", "has no split trainval; there are train, val; name them with data.train"),
        (ROBOFLOW, "test", "has no split test; there are train, val, valid; name them with"),
        (DARKNET, "valid", "has no split valid; there are train; name them with"),
        (LABELIMG, "test", "has no split test, and no other: undivided, all images are trainval"),
        (
            ROBOFLOW | {"data.yaml": f"test: ../test/images\n{NAMES}"},
            "test",
            "has no split test (data.yaml: ../test/images); there are train, valid",
        ),
        (LABELIMG | {"train.txt": "none.jpg"}, "train", "there are no images of train in"),
        (
            {"classes.txt": "cat", "images/train/a.jpg": None},
            "train",
            "no image of train has a label; that of {folder}/images/train/a.jpg would be "
            "{folder}/labels/train/a.txt",
        ),
        (LABELIMG | {"a.txt": ""}, "trainval", "the annotations name no object at all"),
    ],
)
def test_what_is_missing_has_a_sentence(
    files: dict[str, str | None], split: str, told: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as error:
        load_yolo(write(tmp_path, **files), [split])
    assert told.format(folder=tmp_path) in str(error.value)
    with pytest.raises(
        InputError, match=r"there is no folder .*; name the one with data.yaml with --data-dir"
    ):
        load_yolo(tmp_path / "nowhere", [split])


@pytest.mark.parametrize("files", [ULTRALYTICS, ROBOFLOW, DARKNET, LABEL_STUDIO])
def test_who_takes_it_for_vocs_layout_is_told(files: dict[str, str | None], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"it is laid out as YOLO's: --set data\.layout=yolo"):
        load_voc(write(tmp_path, **files), ["trainval"])
