"""What several commands share."""

from pathlib import Path

import pytest
from conftest import Refused, Shown, sentence_of
from pydantic import ValidationError

from residual.cli.options import SIDE, drawn_files, find_images, sides
from residual.recipes.schema import Folder


def test_files_folders_and_patterns(deep_folder: Path) -> None:
    folder = deep_folder
    deep = folder / "deep" / "c.png"
    everything = [folder / "a.png", folder / "b [1].JPG", deep]
    assert find_images([str(folder)]) == everything
    assert find_images([str(folder / "*.png")]) == [folder / "a.png"]
    assert find_images([str(folder / "b [1].JPG")]) == [folder / "b [1].JPG"]
    assert find_images([str(deep), str(folder)]) == [deep, *everything[:2]]  # each once
    assert find_images([str(folder / "notes.txt")]) == [folder / "notes.txt"]  # named, so tried


def test_images_of_one_name_are_drawn_into_folders_as_they_lie(tmp_path: Path) -> None:
    one, other = tmp_path / "in" / "cat" / "1.png", tmp_path / "in" / "dog" / "1.png"
    out = tmp_path / "out"
    assert drawn_files([one], out, "--out") == {one: out / "1.png"}
    assert drawn_files([one, other], out, "--out") == {
        one: out / "cat" / "1.png",
        other: out / "dog" / "1.png",
    }
    jpeg = one.with_suffix(".jpg")
    assert drawn_files([one, jpeg, other], out, "--out") == {
        one: out / "cat" / "1.png.png",
        jpeg: out / "cat" / "1.jpg.png",
        other: out / "dog" / "1.png",
    }
    other.parent.mkdir(parents=True)
    other.touch()
    for place in ("in", "in/cat"):
        said = sentence_of(lambda: drawn_files([one, other], tmp_path / place, "--out"))  # noqa: B023
        assert "holds the images themselves" in said


def test_sides_are_those_that_a_recipe_takes(refused: Refused, tmp_path: Path) -> None:
    Folder(size=SIDE, crop="resized")
    with pytest.raises(ValidationError, match="more than 8,192"):
        Folder(size=SIDE + 1, crop="resized")
    assert sides("--scales", f"16,{SIDE}") == (16, SIDE)
    assert "a side is 1 to 8192 pixels" in sentence_of(lambda: sides("--scales", "16,100000"))
    for words in (
        ("import", tmp_path / "w.pth", "--model", "resnet18"),
        ("complexity", "resnet18"),
        ("statistics", tmp_path),
        ("evaluate", tmp_path),
    ):
        assert "--size" in (said := refused(*words, "--size", "100000")), said
        assert "8192" in said


def test_a_table_without_vgg_takes_no_weights_of_it(shown: Shown) -> None:
    assert "--weights-vgg16" in shown("reproduce", "table9", "--help").out
    assert "--weights-vgg16" not in shown("reproduce", "table12", "--help").out
