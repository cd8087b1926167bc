"""Annotations in YOLO's layout, as the programs that write it leave them, and a sentence for each fault."""

import re
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


#: Five boxes as their corners.
CORNERS = "".join(f"1 0.2 0.{n}2 0.7 0.8\n" for n in range(5))
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


def test_what_leads_out_of_the_folder_is_looked_for_in_it_first(tmp_path: Path) -> None:
    folder = write(tmp_path / "cells", **ROBOFLOW)
    write(tmp_path, **{"train/images/other.jpg": None, "train/labels/other.txt": DOG})
    assert boxes_of(load_yolo(folder, ["train"])) == BOTH


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
    outlined = "1 0.25 0.2 0.75 0.2 0.75 0.6 0.25 0.6 0.97"
    outlined_folder = write(tmp_path / "outlined", **LABELIMG | {"a.txt": f"{outlined}\n{CAT}\n"})
    assert boxes_of(load_yolo(outlined_folder, ["trainval"])) == BOTH
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
    # Upside down: the size does not tell.
    exif[ORIENTATION] = 3
    Image.new("RGB", (40, 30)).save(folder / "a.jpg", exif=exif)
    data = load_yolo(folder, ["trainval"])
    assert boxes_of(data)["a.jpg"] == [("dog", [0, 0, 20, 30])]
    assert data.notes == ()


def test_an_object_of_a_pixel_is_none_of_fractions(tmp_path: Path) -> None:
    folder = write(tmp_path, **LABELIMG | {"a.txt": "1 0.0125 0.0125 0.02 0.02\n"})
    assert boxes_of(load_yolo(folder, ["trainval"]))["a.jpg"] == [("dog", [0.1, 0.075, 0.9, 0.675])]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("1 0.5 0.5 0.5", "line 2 is neither a class with four numbers of a box nor with the corners"),
        ("dog 0.5 0.5 0.5 0.5", "line 2 is neither a class with four numbers"),
        ("7 0.5 0.5 0.5 0.5", "line 2 is of class 7, which {folder}/classes.txt does not name"),
        ("0.5 0.5 0.5 0.5 0.5", "line 2 is of class 0.5, which"),
        ("1 20 15 10 10", "line 2: its numbers are no fractions of the image's sides"),
        ("1 nan 0.5 0.5 0.5", "line 2: its numbers are no fractions"),
        (CAT, "line 2 is there twice; it counts once"),
        ("1 0.5 0.5 -0.5 0.5", "line 2: its box has no width or no height"),
    ],
)
def test_a_line_of_no_use_is_left_out(line: str, told: str, tmp_path: Path) -> None:
    data = load_yolo(write(tmp_path, **LABELIMG | {"a.txt": f"{CAT}\n{line}\n"}), ["trainval"])
    assert boxes_of(data)["a.jpg"] == [("cat", CAT_BOX)]
    (note,) = data.notes
    assert told.format(folder=tmp_path) in note
    assert note.endswith(("left out", "it counts once"))


def test_images_without_a_label_or_damaged_are_told(tmp_path: Path) -> None:
    more = {"c.jpg": None, "d.jpg": "no image", "d.txt": DOG}
    folder = write(
        tmp_path / "split", **ULTRALYTICS | {f"images/train/{name}": text for name, text in more.items()}
    )
    data = load_yolo(folder, ["train"])
    # That an image of a split has no label says that nothing is on it.
    assert list(boxes_of(data)) == ["a.jpg", "b.jpg", "c.jpg"]
    assert data.notes[0] == (
        f"{folder}: 1 of 4 images of train have no label and count as images without objects; the first is "
        f"{folder / 'images/train/c.jpg'}"
    )
    assert data.notes[1].startswith(f"{folder / 'images/train/d.jpg'}")
    # Elsewhere that nobody has looked at it yet.
    folder = write(tmp_path / "undivided", **LABELIMG | more)
    data = load_yolo(folder, ["trainval"])
    assert list(boxes_of(data)) == ["a.jpg", "b.jpg"]
    assert "1 of 4 images of trainval have no label and are left out" in data.notes[0]
    assert len(load_yolo(write(folder, **{"d.jpg": None}), ["trainval"], ["dog"], boxes=False)) == 4


@pytest.mark.parametrize(
    ("files", "split", "place"),
    [
        (ULTRALYTICS, "train", "labels/train/"),
        (ROBOFLOW, "train", "train/labels/"),
        (LABELIMG, "trainval", ""),
    ],
)
def test_labels_without_an_image_are_counted(
    files: dict[str, str | None], split: str, place: str, tmp_path: Path
) -> None:
    texts = {"x.txt": DOG, "y.txt": f"{CAT}\n{DOG}", "z.txt": "", "notes.txt": "1 2 3 4 five", "w.txt": "7"}
    # Of a format that is not read; another program's annotation is no image.
    texts |= {"v.txt": DOG, "v.heif2": "", "x.xml": "", "y.json": ""}
    folder = write(tmp_path, **files | {place + name: text for name, text in texts.items()})
    (note,) = load_yolo(folder, [split]).notes
    assert note == (
        f"{folder}: 2 labels of objects beside those of {split} have no image; the first is "
        f"{folder / place / 'x.txt'}"
    )


def test_labels_of_another_splits_images_are_not_counted(tmp_path: Path) -> None:
    folder = write(tmp_path, **LABELIMG | {"x.jpg": None, "x.txt": DOG, "train.txt": "a.jpg\nb.jpg\n"})
    assert load_yolo(folder, ["train"]).notes == ()


def test_a_label_that_is_no_text_costs_its_image_alone(tmp_path: Path) -> None:
    folder = write(tmp_path, **LABELIMG)
    (folder / "b.txt").write_bytes(b"\xff\xfe\xff")
    data = load_yolo(folder, ["trainval"])
    assert list(boxes_of(data)) == ["a.jpg"]
    assert data.notes[0].startswith(f"{folder / 'b.txt'} is damaged")
    assert data.notes[0].endswith("; its image is left out")


def test_names_are_as_they_are_written_and_have_their_lines_numbers(tmp_path: Path) -> None:
    numbers = {"a.txt": "2 0.5 0.5 0.5 0.5\n0 0.5 0.5 0.5 0.5\n"}
    for number, names in enumerate(
        ("[no, 010, 1e3]", "{2: 1e3, 0: no, 1: x}", "{'0': no, '2': 1e3}", "[no, null, 1e3]")
    ):
        folder = write(tmp_path / str(number), **LABELIMG | numbers | {"data.yaml": f"names: {names}\n"})
        assert load_yolo(folder, ["trainval"]).classes == ("no", "1e3")
    folder = write(tmp_path / "lines", **LABELIMG | numbers | {"classes.txt": "cat\n\ncow\n\n"})
    assert load_yolo(folder, ["trainval"]).classes == ("cat", "cow")


def test_other_files_of_the_folder_decide_nothing(tmp_path: Path) -> None:
    other = {"mkdocs.yml": "x: !!python/name:a", "two.yaml": "a: 1\n---\nb: 2\n", "list.yaml": "[a]"}
    folder = write(
        tmp_path / "several", **ULTRALYTICS | other | {"a.yaml": "names: [x, y]\ntrain: images/val"}
    )
    assert boxes_of(load_yolo(folder, ["train"])) == BOTH
    # The one that names classes need not be data.yaml; labelImg's list is longer where it went on.
    renamed = {"cells.yaml" if name == "data.yaml" else name: text for name, text in ULTRALYTICS.items()}
    assert boxes_of(load_yolo(write(tmp_path / "one", **renamed | other), ["train"])) == BOTH
    longer = {"train/classes.txt": "cat\n", "train/a.jpg": None, "train/a.txt": CAT}
    longer |= {"val/classes.txt": "cat\ndog\n", "val/b.jpg": None, "val/b.txt": DOG}
    assert load_yolo(write(tmp_path / "longer", **longer), ["val"]).classes == ("dog",)


def test_a_place_that_is_not_there_or_elsewhere_is_told(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "cells", **ULTRALYTICS | {"data.yaml": f"train: [images/train, images/x]\n{NAMES}"}
    )
    data = load_yolo(folder, ["train"])
    assert boxes_of(data) == BOTH
    assert data.notes == (f"{folder / 'data.yaml'}: images/x of train is not there; it is left out",)
    # A copy has its own images first.
    copy = write(
        tmp_path / "copy", **ULTRALYTICS | {"data.yaml": f"path: {folder}\ntrain: images/train\n{NAMES}"}
    )
    assert all(one.path.is_relative_to(copy) for one in load_yolo(copy, ["train"]).images)
    apart = write(tmp_path / "apart", **{"data.yaml": f"train: ../cells/images/train\n{NAMES}"})
    data = load_yolo(apart, ["train"])
    assert data.notes == (f"train is read from {folder / 'images/train'}, as {apart / 'data.yaml'} says",)
    assert [one.id for one in data.images] == [f"{folder}/images/train/{name}" for name in "ab"]


def test_two_images_of_one_name_are_told_apart(tmp_path: Path) -> None:
    data = load_yolo(write(tmp_path, **LABELIMG | {"a.png": None}), ["trainval"])
    assert [one.id for one in data.images] == ["a.jpg", "a.png", "b"]


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
        (
            LABELIMG | {"data.yaml": "names: 3"},
            "trainval",
            "data.yaml has neither a list of the classes' names",
        ),
        (LABELIMG | {"data.yaml": "names: {a: b}"}, "trainval", "data.yaml has neither a list"),
        (LABELIMG | {"data.yaml": "nc: 2"}, "trainval", "data.yaml has neither a list"),
        (LABELIMG | {"classes.txt": "\n"}, "trainval", "does not say what the classes are called"),
        (LABELIMG | {"data.yaml": "names: [a, a ]"}, "trainval", "data.yaml: two classes have one name, 'a'"),
        (LABELIMG | {"data.yaml": "names: ["}, "trainval", "data.yaml: not valid YAML"),
        (
            LABELIMG | {"a.yaml": NAMES, "b.yml": "names: [cat]"},
            "trainval",
            "a.yaml and {folder}/b.yml describe the data differently; call the one that is meant data.yaml",
        ),
        (
            LABELIMG | {"labels/classes.txt": "dog\ncat\n"},
            "trainval",
            "give a class different names, or a name different numbers",
        ),
        (
            ULTRALYTICS,
            "trainval",
            "there are train, val; name them with --set data.train=train --set data.test=val, or --split",
        ),
        (ROBOFLOW, "test", "has no split test; there are train, val, valid; name them with"),
        (DARKNET, "valid", "has no split valid; there is train alone; to train, hold a share"),
        (
            DARKNET,
            "test",
            "out: --set data.train=train --set data.validation=0.2",
        ),
        # What lies in folders or lists of splits is not undivided.
        (
            {"classes.txt": "cat", "train/a.jpg": None, "test/b.jpg": None},
            "trainval",
            "there are test, train;",
        ),
        ({"classes.txt": "cat", "p/train/images/a.jpg": None}, "trainval", "there is p/train alone;"),
        (
            {"obj.names": "cat", "Train.txt": "a.jpg", "obj_Train_data/a.jpg": None, "My.txt": "b.jpg"}
            | {"obj_My_data/b.jpg": None},
            "trainval",
            "there are My, Train;",
        ),
        (LABELIMG, "test", "has no split test, and no other: undivided, all images are trainval"),
        (LABELIMG, "train", "--set data.train=trainval --set data.validation=0.2"),
        # One folder too high, or too low.
        (
            {f"cells/{name}": text for name, text in ULTRALYTICS.items()},
            "train",
            "{folder} has no data.yaml, {folder}/cells has; name that one with --data-dir",
        ),
        (
            LABELIMG | {"a.txt": "1 0.5 0.5 0.1 0.1\n", "b.txt": "2 0.5 0.5 0.1 0.1\n"},
            "trainval",
            "its labels have the classes 1 to 2, and {folder}/classes.txt names 0 to 1; YOLO counts them "
            "from 0, and the labels do from 1",
        ),
        (
            ULTRALYTICS | {"data.yaml": "names: {1: cat, 2: dog}"},
            "train",
            "its labels have the classes 0 to 1, and {folder}/data.yaml names 1 to 2; YOLO counts them from "
            "0, and data.yaml does from 1",
        ),
        (
            LABELIMG | {"a.txt": "".join(f"0 0.1 0.{n}1 0.5 0.9\n" for n in range(5)), "b.txt": CORNERS},
            "trainval",
            "10 of 10 boxes reach over the edge of their image, and the third and fourth number of all are",
        ),
        (LABELIMG | {"data.yaml": f"names:\n  ? {'1' * 5000}\n  : cat"}, "trainval", "has neither a list"),
        (LABELIMG | {"data.yaml": "names: {0: cat, 00: dog}"}, "trainval", "two classes have one number"),
        (
            {"environment.yml": "name: x", "cells/data.yaml": NAMES},
            "trainval",
            "{folder}/cells has; name that one with --data-dir",
        ),
        (
            ROBOFLOW | {"data.yaml": f"test: ../test/images\n{NAMES}"},
            "test",
            "has no split test (data.yaml: ../test/images); there are train, valid",
        ),
        (
            LABELIMG | {"data.yaml": f"train: {'x' * 300}\n{NAMES}"},
            "train",
            "has no split train (data.yaml: xxx",
        ),
        (LABELIMG | {"train.txt": "x" * 300}, "train", "there are no images of train in"),
        (
            LABELIMG | {"train.txt": "none.jpg"},
            "train",
            "there are no images of train in {folder}/train.txt; the first fault: {folder}/train.txt: line "
            "1: there is no image none.jpg",
        ),
        (LABELIMG, "x" * 300, "has no split xxx"),
        (
            {"classes.txt": "cat", "images/train/a.jpg": None},
            "train",
            "no image of train has a label; that of {folder}/images/train/a.jpg would be "
            "{folder}/labels/train/a.txt",
        ),
        (LABELIMG | {"a.txt": ""}, "trainval", "the annotations name no object at all"),
        (
            ROBOFLOW | {"data.yaml": f"train: ../train/images\nnc: 3\n{NAMES}"},
            "train",
            "{folder}/data.yaml: nc says 3 classes and names has 2; correct the one that is wrong",
        ),
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
    with pytest.raises(InputError) as error:
        load_voc(write(tmp_path, **files), ["trainval"])
    layout, *splits = re.findall(r"--set data\.(\S+)", str(error.value))
    assert "it is laid out as YOLO's" in str(error.value)
    assert layout == "layout=yolo"
    assert (
        splits
        == {
            id(ULTRALYTICS): ["train=train", "test=val"],
            id(ROBOFLOW): ["train=train", "test=val"],
            id(DARKNET): ["train=train", "validation=0.2"],
            id(LABEL_STUDIO): ["validation=0.2"],
        }[id(files)]
    )
    # One with lists of VOC's is asked for another of them.
    listed = {"classes.txt": "cat", "ImageSets/Main/train.txt": "a"}
    with pytest.raises(InputError, match=r"there is train alone; to train, hold"):
        load_voc(write(tmp_path / "listed", **listed), ["trainval"])


def test_images_beside_a_relative_folder_have_their_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {name: text for name, text in ULTRALYTICS.items() if name != "data.yaml"}
    write(tmp_path, **files | {"own/data.yaml": f"train: ../images/train\n{NAMES}", "x/y/z": ""})
    monkeypatch.chdir(tmp_path)
    assert boxes_of(load_yolo(Path("own"), ["train"])) == BOTH
    monkeypatch.chdir(write(tmp_path / "x", **ULTRALYTICS))
    assert boxes_of(load_yolo(Path("y/../../x"), ["train"])) == BOTH
    assert boxes_of(load_yolo(Path(), ["train"])) == BOTH


@pytest.mark.parametrize(
    "more",
    [
        # Labels of images that are called as splits are.
        {"test.jpg": None, "test.txt": DOG},
        # What archives and disks add, and folders among the images.
        {"__MACOSX/images/a.jpg": None, "@eaDir/test/a.jpg": None},
        {"more/test/c.jpg": None, "more/test/c.txt": DOG},
    ],
)
def test_images_of_one_folder_are_undivided(more: dict[str, str | None], tmp_path: Path) -> None:
    found = boxes_of(load_yolo(write(tmp_path, **LABELIMG | more), ["trainval"]))
    assert {name: found[name] for name in BOTH} == BOTH
    with pytest.raises(InputError, match="has no split test, and no other"):
        load_yolo(tmp_path, ["test"])


def test_folders_of_cameras_are_no_splits(tmp_path: Path) -> None:
    files: dict[str, str | None] = {"classes.txt": "cat\ndog\n"}
    for camera, label in (("1", DOG), ("2", CAT)):
        files |= {f"images/cam{camera}/{camera}.jpg": None, f"labels/cam{camera}/{camera}.txt": label}
    folder = write(tmp_path, **files)
    assert boxes_of(load_yolo(folder, ["trainval"])) == {
        "1.jpg": [("dog", DOG_BOX)],
        "2.jpg": [("cat", CAT_BOX)],
    }
    assert boxes_of(load_yolo(folder, ["cam1"])) == {"1.jpg": [("dog", DOG_BOX)]}


def test_strays_and_objects_over_the_edge_refuse_nothing(tmp_path: Path) -> None:
    names = {"data.yaml": "names: [cat, dog, cow]\n"}
    for number, stray in enumerate(("3 0.5 0.5 0.1 0.1", "-1 0.5 0.5 0.1 0.1", "4 0.5 0.5 0.1 0.1")):
        folder = write(tmp_path / str(number), **LABELIMG | names | {"a.txt": f"{DOG}\n{stray}\n"})
        assert boxes_of(load_yolo(folder, ["trainval"]))["a.jpg"] == [("dog", DOG_BOX)]
    wide = "".join(f"0 0.5 0.{50 + n} 1.02 1\n" for n in range(12))
    assert (
        len(load_yolo(write(tmp_path / "wide", **LABELIMG | {"a.txt": wide}), ["trainval"]).images[0].boxes)
        == 12
    )


def test_key_points_that_nothing_announces_are_no_polygon(tmp_path: Path) -> None:
    folder = write(tmp_path, **LABELIMG | {"a.txt": f"{CAT}\n{DOG} 0 0 0 0.45 0.45 2 0.55 0.55 1\n"})
    data = load_yolo(folder, ["trainval"])
    assert boxes_of(data)["a.jpg"] == [("cat", CAT_BOX)]
    assert "line 2: its numbers are no corners of a polygon" in data.notes[0]
