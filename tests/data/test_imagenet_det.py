"""ImageNet's detection task in miniature: its lists, its halves, and a sentence for each fault."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from shapes import SYNSETS, write_devkit, write_imagenet_det

from residual.class_names import imagenet_det_classes
from residual.data.box_batches import BoxBatches
from residual.data.boxes import Annotation, BoxDataset, Record
from residual.data.imagenet_det import halves, load_imagenet_det
from residual.data.voc import load_voc
from residual.errors import InputError

NAMES = tuple(dict(imagenet_det_classes())[synset] for synset in SYNSETS)
ACCORDION, ANT = "n02672831", "n02219486"


def item(synset: str, *corners: int) -> str:
    sides = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    box = "".join(f"<{side}>{value}</{side}>" for side, value in sides)
    return f"<object><name>{synset}</name><bndbox>{box}</bndbox></object>"


def det(folder: Path, part: str, annotations: dict[str, list[str] | str | None], **lists: list[str]) -> Path:
    """Write images of 40 x 30 and their annotations (None: none), and lists of lines by their names."""
    for name, content in annotations.items():
        image = folder / "Data" / "DET" / part / f"{name}.JPEG"
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30)).save(image)
        if content is not None:
            xml = folder / "Annotations" / "DET" / part / f"{name}.xml"
            xml.parent.mkdir(parents=True, exist_ok=True)
            text = content if isinstance(content, str) else f"<annotation>{''.join(content)}</annotation>"
            xml.write_text(text)
    (folder / "ImageSets" / "DET").mkdir(parents=True, exist_ok=True)
    for name, lines in lists.items():
        (folder / "ImageSets" / "DET" / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))
    return folder


def names_of(data: BoxDataset) -> list[str]:
    return [annotated.id for annotated in data.images]


def test_the_200_classes() -> None:
    classes = imagenet_det_classes()
    assert len(dict(classes)) == len({name for _, name in classes}) == 200
    assert (classes[0], classes[123], classes[199]) == (
        ("n02672831", "accordion"),
        ("n00007846", "person"),
        ("n02391049", "zebra"),
    )


def test_a_miniature_is_read_as_the_shapes_that_it_shows(tmp_path: Path) -> None:
    devkit = write_devkit(tmp_path / "devkit")
    root = write_imagenet_det(tmp_path / "data" / "ILSVRC2015", devkit)
    shapes = load_voc(devkit, ["2007/trainval"])
    data = load_imagenet_det(tmp_path / "data", ["train"])
    assert data.notes == ()
    assert data.name == "imagenet-det train"
    # In the order of the kit's numbers: bookshelf, ping-pong ball, pizza.
    order = sorted(NAMES, key=[name for _, name in imagenet_det_classes()].index)
    assert list(data.classes) == order
    assert data.categories == (27, 127, 129)
    assert len(data) == len(shapes) == 6
    for one, other in zip(data.images, shapes.images, strict=True):
        assert torch.equal(one.boxes, other.boxes)
        assert [data.classes[label] for label in one.labels] == [NAMES[label] for label in other.labels]
    negatives = load_imagenet_det(root, ["train_neg"], NAMES)
    assert names_of(negatives) == ["ILSVRC2013_train_extra0/0", "ILSVRC2013_train_extra0/1"]
    assert negatives.counts() == [0, 0, 0]
    whole = load_imagenet_det(root, ["val"])
    assert [annotated.number for annotated in whole.images] == list(range(1, 11))
    both = [names_of(load_imagenet_det(root, [half])) for half in ("val1", "val2")]
    assert all(len(half) >= 4 for half in both)
    assert sorted(both[0] + both[1]) == sorted(names_of(whole))
    test = load_imagenet_det(root, ["test"], NAMES, boxes=False)
    assert [annotated.number for annotated in test.images] == [1, 2, 3, 4]
    together = load_imagenet_det(root, ["train", "val1", "val"])
    assert len(together) == 16
    assert together.notes == (f"val: {len(both[0])} images are listed before; each counts once",)


def test_pixels_are_counted_from_0_and_the_last_one_is_inside(tmp_path: Path) -> None:
    folder = det(
        tmp_path, "val", {"a": [item(ANT, 0, 0, 9, 19), item(ACCORDION, 10, 4, 39, 29)]}, val=["a 1"]
    )
    data = load_imagenet_det(folder, ["val"])
    assert data.classes == ("accordion", "ant")
    assert data.images[0].boxes.tolist() == [[0, 0, 10, 20], [10, 4, 40, 30]]
    assert data.images[0].labels.tolist() == [1, 0]


def test_the_classes_lists_say_which_images_are_whole_partial_and_negative(tmp_path: Path) -> None:
    ant = [item(ANT, 1, 1, 9, 9)]
    folder = det(
        tmp_path,
        "train",
        {"n1/whole": ant, "n1/partial": ant, "n1/both": ant, "extra0/none": None, "other": ant},
        # As VOC's lists have them, and with tabs.
        train_1=["n1/whole -1", "n1/partial  0", "n1/both\t1", "extra0/none -1 "],
        train_3=["n1/whole 1", "n1/both 0", "extra0/none -1", ""],
        # The kit's own train.txt names them all.
        train=["n1/whole 1", "n1/partial 2", "n1/both 3", "extra0/none 4"],
        mine=["other"],
    )
    assert names_of(load_imagenet_det(folder, ["train"])) == ["n1/whole"]
    assert names_of(load_imagenet_det(folder, ["train_part"])) == ["n1/partial", "n1/both"]
    everything = load_imagenet_det(folder, ["train", "train_part", "train_neg", "mine"])
    assert len(everything) == 5
    assert everything.counts() == [4]
    assert everything.notes == ()
    (folder / "ImageSets/DET/train_1.txt").unlink()
    (folder / "ImageSets/DET/train_3.txt").unlink()
    listed = load_imagenet_det(folder, ["train"])
    assert len(listed) == 3
    (note,) = listed.notes
    assert "1 image is without an annotation" in note
    assert "the first extra0/none (train_neg is" in note


def record(name: str, *objects: str) -> Record:
    return Record(name, Path(name), (40, 30), tuple(Annotation(one, (0, 0, 9, 9)) for one in objects), name)


def test_the_halves_have_about_as_many_objects_of_each_class() -> None:
    """R-CNN's own halves differ by 4 % in the median class and by 11 % in the worst one."""
    random = torch.Generator().manual_seed(0)
    # Frequent and rare classes, as ImageNet's: a few hundred objects and thirty.
    weights = torch.linspace(0.05, 1, 20) ** 2
    records = []
    for number in range(1200):
        count = int(torch.randint(0, 4, (), generator=random))
        drawn = (
            torch.multinomial(weights, count, replacement=True, generator=random).tolist() if count else []
        )
        records.append(record(f"{number:04d}", *(f"class {one}" for one in drawn)))
    first, second = halves(records)
    assert abs(len(first) - len(second)) <= 12
    assert [one.id for one in first] == sorted(one.id for one in first)
    imbalance = []
    for number in range(20):
        a, b = (
            sum(item.name == f"class {number}" for one in half for item in one.objects)
            for half in (first, second)
        )
        imbalance.append(abs(a - b) / max(a + b, 1))
        # An odd number has no halves.
        assert abs(a - b) <= max(1, 0.11 * (a + b))
    assert sorted(imbalance)[10] <= 0.04
    # The list's order is of no importance.
    again = halves(records[::-1])
    assert {one.id for one in again[0]} == {one.id for one in first}


def test_the_halves_by_hand() -> None:
    first, second = halves([record("a", "x"), record("b", "x", "y"), record("c", "y"), record("d")])
    # y and x are as rare; by names a, b, c; then what has nothing.
    assert [one.id for one in first] == ["a", "c"]
    assert [one.id for one in second] == ["b", "d"]


def test_rare_classes_are_divided_first_and_weigh_more() -> None:
    records = [
        *(record("a", *"xxxxxx"), record("p", "z"), record("q", "z", *"xxx")),
        *(record("r", "y"), record("s", "y", "x"), record("u", "y")),
    ]
    first, second = halves(records)
    # Of 2 z: p and q. Of 3 y: r; s to the other half, though that has 3 of 10 x already; u. Of 10 x: a.
    assert [one.id for one in first] == ["a", "p", "r", "u"]
    assert [one.id for one in second] == ["q", "s"]


def test_lists_of_the_halves_count_where_there_are_any(tmp_path: Path) -> None:
    ant = [item(ANT, 1, 1, 9, 9)]
    folder = det(tmp_path, "val", dict.fromkeys("abc", ant), val=["a 1", "b 2", "c 3"], val1=["c 7", "a 8"])
    data = load_imagenet_det(folder, ["val1"])
    # Their numbers are those of the whole validation set.
    assert [(annotated.id, annotated.number) for annotated in data.images] == [("c", 3), ("a", 1)]


def test_what_is_on_the_blacklist_is_not_judged(tmp_path: Path) -> None:
    objects = [item(ANT, 1, 1, 9, 9), item(ACCORDION, 1, 1, 20, 20)]
    folder = det(tmp_path / "ILSVRC", "val", {"a": objects, "b": objects}, val=["a 1", "b 2"])
    kit = tmp_path / "ILSVRC2015_devkit" / "data"
    kit.mkdir(parents=True)
    (kit / "ILSVRC2015_det_validation_blacklist.txt").write_text(f"2 {ANT}\n")
    data = load_imagenet_det(folder, ["val"])
    assert [annotated.unjudged for annotated in data.images] == [(), (1,)]
    assert data.counts() == [2, 1]
    assert data.images[1].wanted.tolist() == [False, True]
    # Training takes it for neither object nor background.
    batches = BoxBatches(data, lambda width, height, *, scale: (width, height), 2, False, 0, 0, 1)
    images = {len(image.boxes): image for image in batches(0)}
    batches.close()
    assert [images[1].crowds.tolist(), images[2].crowds.tolist()] == [[[1, 1, 10, 10]], []]
    (kit / "ILSVRC2015_det_validation_blacklist.txt").write_text("2 ant\n")
    with pytest.raises(InputError, match=r"blacklist.txt, line 1: '2 ant' is not an image's number"):
        load_imagenet_det(folder, ["val"])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ["val.txt: 1 image is without an annotation in", "left out, the first bad"]),
        ("<annotation><object>", ["bad.xml is damaged", "left out"]),
        ([f"<object><name>{ANT}</name></object>"], ["a n02219486 has neither bndbox nor polygon"]),
        ([item(ANT, 50, 5, 60, 9)], ["the box of a ant (50, 5, 61, 10) is outside the image of 40 x 30"]),
        ([item(ANT, 30, 5, 60, 9)], ["reaches over the edge", "was cut"]),
        ([item(ANT, 9, 5, 3, 9)], ["has its corners swapped"]),
        (
            [item("n99999999", 1, 1, 9, 9), item("n99999999", 2, 2, 9, 9)],
            ["2 objects of the class 'n99999999' left out, which is none of ant"],
        ),
    ],
)
def test_a_faulty_annotation_is_noted_and_the_rest_is_used(
    content: list[str] | str | None, words: list[str], tmp_path: Path
) -> None:
    folder = det(tmp_path, "val", {"good": [item(ANT, 0, 0, 8, 8)], "bad": content}, val=["good 1", "bad 2"])
    data = load_imagenet_det(folder, ["val"])
    (note,) = data.notes
    assert all(word in note for word in words), note
    assert data.images[0].boxes.tolist() == [[0, 0, 9, 9]]


def test_all_classes_are_not_named_in_a_sentence(tmp_path: Path) -> None:
    folder = det(tmp_path, "val", {"a": [item(ANT, 1, 1, 9, 9), item("n99999999", 1, 1, 9, 9)]}, val=["a"])
    (note,) = load_imagenet_det(folder, ["val"], [name for _, name in imagenet_det_classes()]).notes
    assert note.endswith(
        "which is none of " + ", ".join(n for _, n in imagenet_det_classes()[:20]) + ", ... (200 in all)"
    )


def test_a_listed_image_that_is_not_there_is_noted(tmp_path: Path) -> None:
    folder = det(tmp_path, "val", {"a": [item(ANT, 1, 1, 9, 9)]}, val=["a 1", "gone 2", "lost 3"])
    (note,) = load_imagenet_det(folder, ["val"]).notes
    assert note.endswith(f"val.txt: 2 images are not in {folder / 'Data' / 'DET'}, the first gone.JPEG")


def test_any_text_in_a_list_is_a_name_that_is_not_there_and_any_number_is_read(tmp_path: Path) -> None:
    ant = {"a": [item(ANT, 1, 1, 9, 9)]}
    lists = [f"a {'9' * 5000}", "x" * 5000, "\0", "../../.. 2", "b ²"]
    data = load_imagenet_det(det(tmp_path, "val", ant, val=lists), ["val"])
    assert [(annotated.id, annotated.number) for annotated in data.images] == [("a", 1)]
    (note,) = data.notes
    assert "4 images are not in" in note


@pytest.mark.parametrize(
    ("split", "words"),
    [
        ("minival", ["there is no split", "minival.txt; there are empty, lost, val"]),
        ("empty", ["empty.txt is empty"]),
        ("train_part", ["train_*.txt have no image of train_part"]),
        ("lost", ["lost holds no image that can be used", "2 images are not in"]),
    ],
)
def test_what_it_cannot_do_without(split: str, words: list[str], tmp_path: Path) -> None:
    ant = {"a": [item(ANT, 1, 1, 9, 9)]}
    lists = {"val": ["a 1"], "empty": [""], "train_1": ["n1/a 1"], "lost": ["x", "y"]}
    folder = det(tmp_path, "val", ant, **lists)
    with pytest.raises(InputError) as error:
        load_imagenet_det(folder, [split])
    assert all(word in str(error.value) for word in words), str(error.value)


def test_a_folder_or_a_list_that_is_missing_or_damaged(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no folder"):
        load_imagenet_det(tmp_path / "nowhere", ["val"])
    with pytest.raises(InputError, match=r"ImageSets/DET; name the folder that has Data/"):
        load_imagenet_det(tmp_path, ["val"])
    folder = det(tmp_path, "train", {"a": [item(ANT, 1, 1, 9, 9)]}, val=[])
    for split in ("train", "train_neg"):
        with pytest.raises(InputError, match=rf"neither .*{split}.txt nor train_1.txt, train_2.txt"):
            load_imagenet_det(folder, [split])
    det(folder, "train", {}, train_1=["a 1", "b"])
    with pytest.raises(InputError, match=r"train_1.txt, line 2: 'b' is not an image and 1, 0 or -1"):
        load_imagenet_det(folder, ["train"])
