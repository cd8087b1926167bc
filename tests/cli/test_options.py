"""What several commands share."""

from pathlib import Path

from residual.cli.options import find_images


def test_files_folders_and_patterns(deep_folder: Path) -> None:
    folder = deep_folder
    deep = folder / "deep" / "c.png"
    everything = [folder / "a.png", folder / "b [1].JPG", deep]
    assert find_images([str(folder)]) == everything
    assert find_images([str(folder / "*.png")]) == [folder / "a.png"]
    assert find_images([str(folder / "b [1].JPG")]) == [folder / "b [1].JPG"]
    assert find_images([str(deep), str(folder)]) == [deep, *everything[:2]]  # each once
    assert find_images([str(folder / "notes.txt")]) == [folder / "notes.txt"]  # named, so tried
