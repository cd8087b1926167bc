"""ImageNet's and Tiny ImageNet's boxes beside their images, and a sentence for what is wrong with them."""

from pathlib import Path

import pytest
from conftest import sentence_of
from located import WNIDS, write_tiny, xml
from PIL import Image

from residual.data.located import load_located

FISH, CAT, BALL = WNIDS


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_tiny(tmp_path / "tiny", train=2, val=1)


@pytest.fixture
def ilsvrc(tmp_path: Path) -> Path:
    """ILSVRC's layout as it comes: Data/CLS-LOC beside Annotations/CLS-LOC; of one image no annotation."""
    images, notes = (tmp_path / name / "CLS-LOC" for name in ("Data", "Annotations"))
    texts = {
        f"train/{FISH}/{FISH}_10": xml((FISH, 0, 0, 9, 19), (FISH, 30, 40, 63, 63)),
        f"train/{FISH}/{FISH}_11": None,
        f"train/{CAT}/{CAT}_7": xml((CAT, 4, 5, 23, 25)),
        "val/ILSVRC2012_val_00000001": xml((CAT, 0, 0, 63, 63)),
        "val/ILSVRC2012_val_00000002": xml((FISH, 1, 1, 2, 2)),
    }
    for name, text in texts.items():
        for folder in (images, notes):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64)).save(images / f"{name}.JPEG")
        if text:
            (notes / f"{name}.xml").write_text(text)
    (images / "val.txt").write_text(
        f"ILSVRC2012_val_00000001.JPEG {CAT}\nILSVRC2012_val_00000002.JPEG {FISH}\n"
    )
    return images


def annotation(ilsvrc: Path, name: str) -> Path:
    return ilsvrc.parent.parent / "Annotations" / "CLS-LOC" / f"{name}.xml"


def test_tiny_imagenets_boxes(tiny: Path) -> None:
    file = tiny / "train" / CAT / f"{CAT}_boxes.txt"
    file.write_text(f"{CAT}_1.JPEG\t0\t10\t63\t58\n{CAT}_0.JPEG\t14\t2\t54\t49\n{CAT}_0.JPEG\t0\t0\t9\t9\n")
    data = load_located(tiny, "train")
    assert data.boxes.classes == tuple(f"{wnid} name of {wnid}" for wnid in WNIDS)
    assert len(data) == len(data.boxes) == 6
    two, one = data.boxes.images[2:4]
    # Counted from 0, the last pixel included; an image may have several.
    assert two.boxes.tolist() == [[14, 2, 55, 50], [0, 0, 10, 10]]
    assert one.boxes.tolist() == [[0, 10, 64, 59]]
    assert (two.labels.tolist(), one.labels.tolist()) == ([1, 1], [1])
    assert [annotated.path for annotated in data.boxes.images] == [data.index.path(n) for n in range(6)]
    assert data.index.targets.tolist() == [0, 0, 1, 1, 2, 2]
    val = load_located(tiny, "val", data.boxes.classes)
    assert [annotated.labels.tolist() for annotated in val.boxes.images] == [[0], [1], [2]]
    assert val.boxes.name == "tiny-imagenet val"


def test_images_of_two_classes_may_have_one_name(tiny: Path) -> None:
    boxes = {FISH: [1, 2, 30, 40], CAT: [5, 6, 50, 60]}
    for wnid, box in boxes.items():
        folder = tiny / "train" / wnid
        (folder / "images" / f"{wnid}_0.JPEG").rename(folder / "images" / "1.JPEG")
        (folder / f"{wnid}_boxes.txt").write_text("\t".join(map(str, ("1.JPEG", *box))) + "\n")
    data = load_located(tiny, "train")
    found = {name: one.boxes.tolist() for one in data.boxes.images[:2] for name in [one.path.parts[-3]]}
    assert found == {wnid: [[x1, y1, x2 + 1, y2 + 1]] for wnid, (x1, y1, x2, y2) in boxes.items()}


def test_wrong_lines_of_tiny_imagenet_have_their_sentence(tiny: Path) -> None:
    file = tiny / "train" / CAT / f"{CAT}_boxes.txt"
    file.write_text(f"{CAT}_0.JPEG\t1\t2\t3\n{CAT}_1.JPEG\t70\t2\t80\t9\n")
    lone = tiny / "train" / BALL / f"{BALL}_boxes.txt"
    lone.write_text(f"{BALL}_0.JPEG\t1\t2\t30\t40\n\n")
    data = load_located(tiny, "train")
    assert data.index.targets.tolist() == [0, 0, 2]
    missing, wrong, outside = data.boxes.notes
    assert "2 of the 6 images" in missing
    assert f"{CAT}_0.JPEG" in missing
    assert "line 1" in wrong
    assert "is not a file and the corners of its box" in wrong
    assert "outside the image of 64 x 64" in outside


def test_ilsvrcs_boxes_as_they_come(ilsvrc: Path) -> None:
    data = load_located(ilsvrc, "train")
    assert data.boxes.classes == (FISH, CAT)
    fish, cat = data.boxes.images
    # Pixels count from 0, as in LOC_val_solution.csv: 0 to 9 reaches from 0 to 10.
    assert fish.boxes.tolist() == [[0, 0, 10, 20], [30, 40, 64, 64]]
    assert (fish.labels.tolist(), cat.labels.tolist()) == ([0, 0], [1])
    (note,) = data.boxes.notes
    assert "1 of the 3 images" in note
    assert f"{FISH}_11" in note
    val = load_located(ilsvrc, "val", data.boxes.classes)
    assert {one.id: one.labels.tolist() for one in val.boxes.images} == {
        "ILSVRC2012_val_00000001.JPEG": [1],
        "ILSVRC2012_val_00000002.JPEG": [0],
    }


def test_annotations_in_the_images_folder(ilsvrc: Path) -> None:
    (ilsvrc.parent.parent / "Annotations").rename(ilsvrc / "Annotations")
    assert len(load_located(ilsvrc, "train")) == 2


def test_annotations_behind_links(ilsvrc: Path) -> None:
    """A part of ImageNet is usually made by linking some classes' folders."""
    notes = ilsvrc.parent.parent / "Annotations" / "CLS-LOC" / "train" / FISH
    notes.rename(ilsvrc.parent / "elsewhere")
    notes.symlink_to(ilsvrc.parent / "elsewhere")
    assert len(load_located(ilsvrc, "train")) == 2


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (xml(("n99999999", 0, 0, 8, 8), (CAT, 0, 0, 8, 8)), "'n99999999' is not one of the 2 classes"),
        (xml((FISH, 0, 0, 8, 8), (CAT, 0, 0, 8, 8)), f"a box is of {FISH}, and the image of {CAT}"),
        (xml((CAT, 70, 1, 80, 9), (CAT, 0, 0, 8, 8)), "is outside the image of 64 x 64"),
    ],
)
def test_a_wrong_object_has_its_sentence(ilsvrc: Path, text: str, sentence: str) -> None:
    annotation(ilsvrc, f"train/{CAT}/{CAT}_7").write_text(text)
    data = load_located(ilsvrc, "train")
    assert any(sentence in note for note in data.boxes.notes)
    assert data.boxes.images[1].boxes.tolist() == [[0, 0, 9, 9]]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (xml(), f"has no box of the image's class, {CAT}; its image is left out"),
        (xml((CAT, 70, 1, 80, 9)), "is outside the image of 64 x 64"),
        ("<annotation>", "is damaged"),
    ],
)
def test_an_image_without_a_box_has_its_sentence(ilsvrc: Path, text: str, sentence: str) -> None:
    annotation(ilsvrc, f"train/{CAT}/{CAT}_7").write_text(text)
    data = load_located(ilsvrc, "train")
    assert any(sentence in note for note in data.boxes.notes)
    assert data.index.targets.tolist() == [0]
    assert data.boxes.classes == (FISH, CAT)


def test_a_folder_without_boxes_has_its_sentence(tiny: Path) -> None:
    for file in (tiny / "train").glob("*/*_boxes.txt"):
        file.unlink()
    said = sentence_of(lambda: load_located(tiny, "train"))
    assert "there are no boxes for" in said
    assert str(tiny / "Annotations" / "CLS-LOC" / "train") in said


def test_validation_images_that_the_kit_does_not_count_are_left_out(ilsvrc: Path) -> None:
    file = ilsvrc.parent.parent / "devkit/data/ILSVRC2015_clsloc_validation_blacklist.txt"
    file.parent.mkdir(parents=True)
    file.write_text("2\n36\n")
    data = load_located(ilsvrc, "val", (FISH, CAT))
    assert [annotated.path.stem for annotated in data.boxes.images] == ["ILSVRC2012_val_00000001"]
    assert len(data.index) == 1
    assert any(f"1 image left out, as {file} says" in note for note in data.boxes.notes)
    # Of training images none is meant.
    assert len(load_located(ilsvrc, "train").index) == 2
    file.write_text("2\n2 n01440764\n")
    assert "line 2: '2 n01440764' is not an image's number" in sentence_of(
        lambda: load_located(ilsvrc, "val", (FISH, CAT))
    )
