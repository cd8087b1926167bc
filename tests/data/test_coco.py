"""Annotations in COCO's layout, and a sentence for each thing that can be wrong with them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import sentence_of
from PIL import Image

from residual.data.coco import load_coco
from residual.data.images import ORIENTATION, upright_box
from residual.data.masks import box_around, masks_as_pixels
from residual.data.voc import load_voc
from residual.detection.average_precision import Detections
from residual.detection.submission import submission_files
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


@pytest.mark.parametrize(
    ("file", "images", "split"),
    [
        ("result.json", "images", "result"),
        ("annotations/instances_default.json", "images", "default"),
        ("annotations/instances_default.json", "images/default", "default"),
    ],
    ids=["Label Studio", "CVAT", "CVAT by subsets"],
)
def test_exports_that_nobody_has_divided(file: str, images: str, split: str, tmp_path: Path) -> None:
    """As docs/detection.md says what to name them by; Label Studio has the folder in each name."""

    def named(content: dict[str, Any]) -> None:
        if split == "result":
            for entry in content["images"]:
                entry["file_name"] = f"images/{entry['file_name']}"

    folder = coco(tmp_path, named)
    (folder / images).parent.mkdir(parents=True, exist_ok=True)
    (folder / "train").rename(folder / images)
    (folder / "annotations" / "instances_train.json").rename(folder / file)
    said = sentence_of(lambda: load_coco(folder, ["train"]))
    assert f"--set data.train={split} --set data.validation=0.2" in said
    data = load_coco(folder, [split])
    assert (len(data), data.notes) == (2, ())


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


def test_the_first_fault_is_what_is_wrong_not_a_class_that_is_left_out(tmp_path: Path) -> None:
    folder = coco(tmp_path, lambda c: c["annotations"][0].update(bbox=[1, 2, 0, 5]))
    with pytest.raises(
        InputError, match="no object of the annotations can be used; the first fault: "
    ) as error:
        load_coco(folder, ["train"], ["dog"])
    assert "has no area" in str(error.value)
    (folder / "annotations" / "instances_train.json").write_text(json.dumps(COCO))
    (note,) = load_coco(folder, ["train"], ["dog"]).notes
    assert "1 object of the class 'car' left out" in note


def test_categories_of_two_splits_are_one_whether_accents_are_apart(tmp_path: Path) -> None:
    folder = coco(tmp_path, lambda c: c["categories"][0].update(name="caf\u00e9"))
    content = json.loads((folder / "annotations" / "instances_train.json").read_text())
    content["categories"][0]["name"] = "cafe\u0301"
    content["images"] = [item | {"file_name": f"of {item['file_name']}"} for item in content["images"]]
    (folder / "annotations" / "instances_val.json").write_text(json.dumps(content))
    for name in ("of a.jpg", "of b.jpg"):
        image(folder / "val" / name)
    data = load_coco(folder, ["train", "val"])
    assert (data.classes, data.counts()) == (("car", "caf\u00e9"), [0, 2])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c["images"].append(c["images"][0]), ["two of its images have the id 7"]),
        (lambda c: c.pop("images"), ["has no list of images"]),
        (lambda c: c.update(annotations=5), ["has no list of annotations"]),
        (lambda c: c["images"][0].pop("id"), ["one of its images has no id"]),
        (lambda c: c["categories"][0].update(name="car"), ["two categories have one name, 'car'"]),
        (lambda c: c["images"].clear(), ["holds no image that can be used"]),
        (lambda c: c["categories"][0].pop("id"), ["one of its categories has no id"]),
        (lambda c: c["categories"][0].update(id="dog"), ["one of its categories has no whole number as id"]),
        (lambda c: c["annotations"].clear(), ["the annotations name no object at all"]),
        (
            lambda c: [item.update(bbox=[]) for item in c["annotations"]],
            ["name no object at all", "the first fault", "annotation 1 lacks"],
        ),
        (
            lambda c: [item.update(bbox=[0.1, 0.1, 0.4, 0.6]) for item in c["annotations"]],
            ["no object of the annotations can be used", "look like fractions", "write pixels"],
        ),
    ],
)
def test_a_json_that_cannot_be_used(change: Any, words: list[str], tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        load_coco(coco(tmp_path, change), ["train"])
    assert all(word in str(error.value) for word in words)
    places = ("annotations/instances_train.json", f"{tmp_path}: train")
    assert any(place in str(error.value) for place in places), error.value


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c["images"][1].update(file_name="gone.jpg"), ["no file of image 9, gone.jpg"]),
        (lambda c: c["images"].pop(), ["1 images beside it are not listed", "b.jpg"]),
        (lambda c: c["annotations"][0].update(image_id=8), ["annotation 1 is of image 8"]),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, 0, 5]), ["box of a dog", "has no area"]),
        # What has an area in double precision, and in float32 none, as it is or once it is cut.
        (lambda c: c["annotations"][0].update(bbox=[30, 5, 1e-6, 20]), ["box of a dog", "1/64 of a pixel"]),
        (
            lambda c: c["annotations"][0].update(bbox=[39.999999, 5, 9, 9]),
            ["box of a dog", "1/64 of a pixel"],
        ),
        (lambda c: c["annotations"][0].update(bbox=[9, 2, -3, 5]), ["box of a dog", "corners swapped"]),
        (
            lambda c: c["annotations"][0].update(category_id=5),
            ["of category 5, which is not listed"],
        ),
        (lambda c: c["annotations"][0].pop("bbox"), ["annotation 1 lacks", "left out"]),
        (lambda c: c["annotations"][0].update(bbox=[]), ["annotation 1 lacks", "left out"]),
        (lambda c: c["annotations"][0].update(area="much"), ["annotation 1 lacks"]),
        (lambda c: c["annotations"][0].update(category_id=[3]), ["annotation 1 lacks"]),
        (lambda c: c["annotations"][0].update(category_id=18.5), ["annotation 1 lacks"]),
        (lambda c: c["annotations"][0].update(image_id=[7]), ["annotation 1 lacks"]),
        (lambda c: c["annotations"].insert(0, 5), ["annotation at place 0 lacks"]),
        (lambda c: c["annotations"][0].update(category_id=float("inf")), ["annotation 1 lacks"]),
        (lambda c: c["annotations"][0].update(iscrowd=float("inf")), ["annotation 1 lacks"]),
        (lambda c: c["annotations"][0].update(bbox_mode=4), ["annotation 1 lacks", "bbox_mode"]),
        (lambda c: c["annotations"][0].update(attributes={"rotation": "much"}), ["annotation 1 lacks"]),
        (lambda c: c["images"][1].update(file_name=300 * "x"), ["no file of image 9, xxx"]),
        (lambda c: c["images"][1].update(file_name=None), ["image 9 has no file_name"]),
        (lambda c: c["images"][1].update(file_name="a.jpg"), ["image 9 is the file of image 7, a.jpg"]),
    ],
)
def test_a_json_with_faults_that_are_noted(change: Any, words: list[str], tmp_path: Path) -> None:
    data = load_coco(coco(tmp_path, change), ["train"])
    assert all(word in data.notes[0] for word in words)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no folder .*nowhere"):
        load_coco(tmp_path / "nowhere", ["train"])
    coco(tmp_path)
    alone = (
        r"instances_val\.json; there is annotations/instances_train\.json alone; to train, "
        r".*data\.train=train --set data\.validation"
    )
    with pytest.raises(InputError, match=alone):
        load_coco(tmp_path, ["val"])
    (tmp_path / "all.json").write_text("{}")
    several = r"instances_train\.json, all\.json; name .* --set data\.train=train --set data\.test=\.\.\."
    with pytest.raises(InputError, match=several):
        load_coco(tmp_path, ["val"])
    (tmp_path / "annotations/instances_train.json").write_text("{")
    with pytest.raises(InputError, match="is damaged"):
        load_coco(tmp_path, ["train"])
    (tmp_path / "ImageSets/Main").mkdir(parents=True)
    (tmp_path / "ImageSets/Main/train.txt").write_text("a")
    with pytest.raises(InputError, match=r"there is no folder .*JPEGImages"):
        load_voc(tmp_path, ["train"])


def test_numbers_that_are_none(tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["annotations"][0].update(area=None, iscrowd="0", bbox=[float("nan"), 1, 2, 3])
        content["images"][1].update(width=0)

    data = load_coco(coco(tmp_path, change), ["train"])
    (note,) = data.notes
    assert "not of four finite numbers" in note
    # A size that is none is taken from the image.
    assert [annotated.size for annotated in data.images] == [(40, 30), (40, 30)]


def three(folder: Path, change: Callable[[dict[str, Any]], object] = lambda content: None) -> Path:
    """Write three images of one object each, the split train."""
    names = [f"{letter}.jpg" for letter in "abc"]
    content: dict[str, Any] = {
        "images": [
            {"id": n, "file_name": name, "width": 40, "height": 30} for n, name in enumerate(names, start=1)
        ],
        "annotations": [
            {"id": n, "image_id": n, "category_id": 1, "bbox": [1, 2, 10, 20]} for n in range(1, 4)
        ],
        "categories": [{"id": 1, "name": "dog"}],
    }
    change(content)
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    (folder / "annotations" / "instances_train.json").write_text(json.dumps(content))
    for name in names:
        image(folder / "train" / name)
    return folder


def named(form: str) -> Callable[[dict[str, Any]], object]:
    return lambda c: [item.update(file_name=form.format(item["file_name"])) for item in c["images"]]


def ids(key: str, of: str, form: str) -> Callable[[dict[str, Any]], object]:
    return lambda c: [item.update({key: form.format(item[key])}) for item in c[of]]


def both(*changes: Callable[[dict[str, Any]], object]) -> Callable[[dict[str, Any]], object]:
    return lambda c: [change(c) for change in changes]


@pytest.mark.parametrize(
    "change",
    [
        named("images/{}"),
        named("images\\{}"),
        named("train/{}"),
        named("./{}"),
        named("/home/somebody/data/train/{}"),
        named("C:\\data\\{}"),
        named("../../upload/{}"),
        lambda c: [item.update(file_name=item["file_name"].upper()) for item in c["images"]],
        # Roboflow's root category, and a class that has its supercategory's name.
        lambda c: c["categories"].insert(0, {"id": 0, "name": "animals", "supercategory": "none"}),
        lambda c: c["categories"].insert(0, {"id": 0, "name": "dog", "supercategory": "none"}),
        # Ids as text: uuids; of annotations none at all, or the same ones.
        both(ids("id", "images", "5f2c-{}"), ids("image_id", "annotations", "5f2c-{}")),
        ids("image_id", "annotations", "{}"),
        ids("id", "annotations", "9d1e-{}"),
        lambda c: [item.update(image_id=float(item["image_id"])) for item in c["annotations"]],
        lambda c: [item.pop("id") for item in c["annotations"]],
        lambda c: [item.update(id=1) for item in c["annotations"]],
        # No size, or the only shape a polygon.
        lambda c: [item.pop("width") for item in c["images"]],
        lambda c: [
            item.update(bbox=[], segmentation=[[1, 2, 11, 2, 6, 22], [3, 3, 4, 4, 5, 5]])
            for item in c["annotations"]
        ],
        # VIA has the one polygon without a list around it.
        lambda c: [
            item.update(bbox=[], segmentation=[1, 2, 11, 2, 6, 22, 3, 3]) for item in c["annotations"]
        ],
        # CVAT: a box of 20 x 10 that is turned by a quarter about its middle, (6, 12).
        lambda c: [
            item.update(bbox=[-4, 7, 20, 10], attributes={"occluded": False, "rotation": 90.0})
            for item in c["annotations"]
        ],
        # Detectron2's own dictionaries may say that a box is of corners.
        lambda c: [item.update(bbox=[1, 2, 11, 22], bbox_mode=0) for item in c["annotations"]],
        lambda c: [item.update(bbox_mode=1, ignore=0) for item in c["annotations"]],
        # Label Studio's local files, and addresses, with a signature or not.
        named("/data/local-files/?d={}"),
        named("/data/local-files/?d=set%2F{}"),
        named("https://host/bucket/{}"),
        named("https://host/bucket/{}?X-Amz-Signature=" + 300 * "f"),
        lambda c: [item.update(file_name=item["file_name"].replace(".", "%2E")) for item in c["images"]],
    ],
)
def test_what_other_tools_write(tmp_path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    folder = three(tmp_path, change)
    for classes in (None, ("dog",)):
        data = load_coco(folder, ["train"], classes)
        assert (len(data), data.counts(), data.classes, data.notes) == (3, [3], ("dog",), ())
        assert data.categories == (1,)
        assert all(
            annotated.boxes.flatten().tolist() == pytest.approx([1, 2, 11, 22], abs=1e-4)
            for annotated in data.images
        )


def test_one_bad_annotation_is_listed_and_the_rest_is_used(tmp_path: Path) -> None:
    data = load_coco(three(tmp_path, lambda c: c["annotations"][1].update(bbox=[])), ["train"])
    assert (len(data), data.counts()) == (3, [2])
    (note,) = data.notes
    assert "annotation 2 lacks" in note


def test_an_image_of_two_splits_counts_once(tmp_path: Path) -> None:
    folder = three(tmp_path)
    file = folder / "annotations/instances_train.json"
    content = json.loads(file.read_text())
    content["images"] = [content["images"][2] | {"id": 1}]
    (folder / "annotations/instances_val.json").write_text(json.dumps(content))
    (folder / "train").rename(folder / "images")
    data = load_coco(folder, ["train", "val"])
    assert [annotated.path.name for annotated in data.images] == ["a.jpg", "b.jpg", "c.jpg"]
    assert any("image 1 is the file of image 3 of instances_train.json, c.jpg" in note for note in data.notes)


def test_ids_that_begin_anew_in_each_split_are_told_apart(tmp_path: Path) -> None:
    folder = three(tmp_path)
    content = json.loads((folder / "annotations/instances_train.json").read_text())
    shutil.copytree(folder / "train", folder / "val")
    (folder / "annotations/instances_val.json").write_text(json.dumps(content))
    data = load_coco(folder, ["train", "val"])
    assert [annotated.id for annotated in data.images] == ["1", "2", "3", "val/1", "val/2", "val/3"]
    assert [annotated.number for annotated in data.images] == [1, 2, 3] * 2
    nothing = Detections(torch.empty(0, 4), torch.empty(0), torch.empty(0, dtype=torch.int64))
    said = sentence_of(lambda: submission_files(data, [nothing] * 6))
    assert said == (
        "2 images of train and val have the id 1, by which a server tells them apart; name one of the "
        "splits with --split"
    )


def test_images_of_all_splits_in_one_folder_and_annotations_beside_their_images(tmp_path: Path) -> None:
    folder = three(tmp_path / "shared")
    (folder / "train").rename(folder / "images")
    image(folder / "images" / "of another split.jpg")
    content = (folder / "annotations" / "instances_train.json").read_text()
    (folder / "annotations" / "instances_val.json").write_text(content)
    assert load_coco(folder, ["train"]).notes == ()
    # With one JSON, images that it does not list are worth a word.
    (folder / "annotations" / "instances_val.json").unlink()
    assert "1 images beside it are not listed" in load_coco(folder, ["train"]).notes[0]

    roboflow = three(tmp_path / "roboflow")
    (roboflow / "annotations/instances_train.json").rename(roboflow / "train/_annotations.coco.json")
    data = load_coco(roboflow, ["train"])
    assert (len(data), data.counts(), data.notes) == (3, [3], ())
    with pytest.raises(
        InputError,
        match=r"train/_annotations\.coco\.json alone; .*data\.train=train --set data\.validation=0\.2, or",
    ):
        load_coco(roboflow, ["valid"])


def test_a_json_with_a_byte_order_mark(tmp_path: Path) -> None:
    file = three(tmp_path) / "annotations" / "instances_train.json"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert len(load_coco(tmp_path, ["train"])) == 3


def test_an_image_is_not_taken_for_another_one_of_its_name(tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["images"][0].update(file_name="cam3/a.jpg")

    folder = three(tmp_path, change)
    for number in (1, 2):
        image(folder / "train" / f"cam{number}" / "a.jpg")
    (folder / "train" / "a.jpg").unlink()
    data = load_coco(folder, ["train"])
    assert [annotated.path.name for annotated in data.images] == ["b.jpg", "c.jpg"]
    assert "there is no file of image 1, cam3/a.jpg" in data.notes[0]


def test_cocos_test_dev_has_no_annotations_and_lies_among_the_test_images(tmp_path: Path) -> None:
    folder = coco(tmp_path)
    content = {key: value for key, value in COCO.items() if key != "annotations"}
    (folder / "annotations" / "image_info_test-dev2015.json").write_text(json.dumps(content))
    (folder / "train").rename(folder / "test2015")
    data = load_coco(folder, ["test-dev2015"], boxes=False)
    assert [len(annotated.boxes) for annotated in data.images] == [0, 0]
    with pytest.raises(InputError, match="has no list of annotations"):
        load_coco(folder, ["test-dev2015"])


def test_an_object_that_is_to_be_ignored_is_neither_object_nor_background(tmp_path: Path) -> None:
    data = load_coco(three(tmp_path, lambda c: c["annotations"][1].update(ignore=1)), ["train"])
    assert [annotated.crowd.tolist() for annotated in data.images] == [[False], [True], [False]]
    assert (data.counts(), data.notes) == ([2], ())


def test_a_turned_box_keeps_its_objects_area(tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        for item in content["annotations"]:
            item.update(bbox=[10, 10, 12, 6], attributes={"rotation": 30})

    (first, *_) = load_coco(three(tmp_path, change), ["train"]).images
    # 12 cos 30 + 6 sin 30 wide, 12 sin 30 + 6 cos 30 high, about (16, 13).
    assert first.boxes.flatten().tolist() == pytest.approx([9.3038, 7.4019, 22.6962, 18.5981], abs=1e-4)
    assert first.areas.tolist() == [72]


def test_a_class_without_a_name_is_called_by_its_number(tmp_path: Path) -> None:
    for name in (None, " "):
        categories = [{"id": 1, "name": name}]
        folder = three(tmp_path / str(name), lambda c, new=categories: c.update(categories=new))  # type: ignore[misc]
        assert load_coco(folder, ["train"]).classes == ("1",)


def test_addresses_of_two_images_of_one_name_are_not_mixed_up(tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        for number, item in enumerate(content["images"][:2]):
            item.update(file_name=f"https://[host/{number}/a.jpg?sig={number}")

    data = load_coco(three(tmp_path, change), ["train"])
    assert [annotated.path.name for annotated in data.images] == ["c.jpg"]
    assert "there is no file of image 1, https://[host/0/a.jpg?sig=0" in data.notes[0]


def test_a_name_with_signs_of_an_address_is_its_own_first(tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["images"][0].update(file_name="50%25 a.jpg")

    folder = three(tmp_path, change)
    (folder / "train" / "a.jpg").rename(folder / "train" / "50%25 a.jpg")
    image(folder / "train" / "50% a.jpg")
    assert load_coco(folder, ["train"]).images[0].path.name == "50%25 a.jpg"


#: One square of 10 x 10 at (2, 3): as polygon, and as run lengths.
SQUARE = [[2, 3, 12, 3, 12, 13, 2, 13]]
RUNS = {"size": [30, 40], "counts": [63, 10, *[20, 10] * 9, 1200 - 63 - 10 - 9 * 30]}


@pytest.mark.parametrize("segmentation", [SQUARE, SQUARE[0], RUNS])
def test_masks(tmp_path: Path, segmentation: Any) -> None:
    folder = coco(tmp_path, lambda c: c["annotations"][0].update(segmentation=segmentation))
    assert not load_coco(folder, ["train"]).has_masks
    data = load_coco(folder, ["train"], masks=True)
    assert data.notes == ()
    first, second = data.images
    # Two objects, of which one has a mask; no objects.
    assert second.masks == ()
    mask, none = first.masks
    assert none is None
    assert mask is not None
    pixels = masks_as_pixels([mask], (30, 40))[0]
    assert pixels.sum() == pixels[3:13, 2:12].sum() == 100
    assert data.content() != load_coco(folder, ["train"]).content()


@pytest.mark.parametrize(
    ("segmentation", "words"),
    [
        ([[]], "the mask of a dog: one of its polygons is not three points at least; its box alone is used"),
        ([[20, 20, 30, 20, 30, 29]], "the mask of a dog: it does not lie in the object's box"),
        ([[1, 2, 3, 4]], "one of its polygons is not three points at least"),
        (
            [["a", 2, 3, 4, 5, 6]],
            "its segmentation is neither polygons nor run lengths; its box alone is used",
        ),
        ([None], "neither polygons nor run lengths"),
        (7, "neither polygons nor run lengths"),
        ("abc", "neither polygons nor run lengths"),
        ({"counts": [1200]}, "neither polygons nor run lengths"),
        ({"size": [30, 40]}, "neither polygons nor run lengths"),
        ({"size": [40, 30], "counts": [0, 1200]}, "its run lengths are of 30 x 40 pixels, not 40 x 30"),
        ({"size": [30, 40], "counts": "P"}, "its run lengths are cut off"),
    ],
)
def test_what_is_no_mask_is_noted(tmp_path: Path, segmentation: Any, words: str) -> None:
    folder = coco(tmp_path, lambda c: c["annotations"][0].update(segmentation=segmentation))
    data = load_coco(folder, ["train"], masks=True)
    (note,) = data.notes
    assert "instances_train.json" in note
    assert words in note
    assert not data.has_masks
    assert data.images[0].boxes[0].tolist() == [1, 2, 11, 22]


def test_an_empty_segmentation_is_none(tmp_path: Path) -> None:
    """Programs that write boxes alone leave it empty."""
    folder = coco(tmp_path, lambda c: [item.update(segmentation=[]) for item in c["annotations"]])
    data = load_coco(folder, ["train"], masks=True)
    assert (data.notes, data.has_masks) == ((), False)


def test_masks_at_a_size_that_the_image_does_not_have_are_not_drawn(tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["images"][0].update(width=10**5, height=10**5)
        content["annotations"][0]["segmentation"] = {"size": [10**5, 10**5], "counts": [0, 10**10]}

    data = load_coco(coco(tmp_path, change), ["train"], masks=True)
    assert not data.has_masks


@pytest.mark.parametrize("frame", ["stored", "shown"])
def test_masks_of_images_that_exif_turns(tmp_path: Path, frame: str) -> None:
    """An image of 40 x 30 that is shown as one of 30 x 40: turned to the right."""
    corners = (2.0, 3.0, 12.0, 13.0) if frame == "stored" else upright_box((2, 3, 12, 13), (40, 30), 6)
    x1, y1, x2, y2 = corners
    box = {"bbox": [x1, y1, x2 - x1, y2 - y1], "segmentation": [[x1, y1, x2, y1, x2, y2, x1, y2]]}
    size = {"width": 40, "height": 30} if frame == "stored" else {"width": 30, "height": 40}

    def change(content: dict[str, Any]) -> None:
        content["images"][0].update(size)
        content["annotations"] = [content["annotations"][0] | box]

    folder = coco(tmp_path, change)
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    Image.new("RGB", (40, 30)).save(folder / "train/a.jpg", exif=exif)
    (annotated, _) = load_coco(folder, ["train"], masks=True).images
    assert annotated.size == (30, 40)
    (mask,) = annotated.masks
    assert mask is not None
    assert mask.size == (40, 30)
    assert list(box_around(mask)) == annotated.boxes[0].tolist() == [17, 2, 27, 12]


@pytest.mark.parametrize("side", [0, -1, 1e30, 10**19, 2**31])
def test_a_size_that_no_image_has_is_not_one(side: float, tmp_path: Path) -> None:
    data = load_coco(coco(tmp_path, lambda c: c["images"][0].update(width=side, height=side)), ["train"])
    assert data.images[0].size == (40, 30)
    assert data.content()


def test_an_id_with_half_a_letter_is_one(tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["images"][0]["id"] = "a\ud83d"
        content["annotations"][0]["image_id"] = "a\ud83d"

    data = load_coco(coco(tmp_path, change), ["train"])
    assert "a\ud83d" in [annotated.id for annotated in data.images]
    assert data.fingerprint() != load_coco(coco(tmp_path), ["train"]).fingerprint()
