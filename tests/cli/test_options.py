"""What several commands share."""

from pathlib import Path

import pytest
from conftest import Refused, sentence_of
from pydantic import ValidationError

from residual.cli.options import SIDE, find_images, sides
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
