"""Folders of images: which there are, of what class, and what is wrong with a folder."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from residual import InputError
from residual.data.folder import index_folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "residual"


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two classes; an index opens no file, so empty ones do."""
    for name in ("train/dog/b.jpg", "train/dog/a.JPEG", "train/cat/1.png", "train/cat/deep/2.webp"):
        touch(tmp_path / name)
    touch(tmp_path / "val/cat/x.jpg")
    touch(tmp_path / "train/dog/notes.txt")
    touch(tmp_path / "train/dog/.hidden.jpg")
    return tmp_path


def test_a_directory_a_class(images: Path) -> None:
    index = index_folder(images, "train")
    assert index.classes == ("cat", "dog")
    assert index.files == ("cat/1.png", "cat/deep/2.webp", "dog/a.JPEG", "dog/b.jpg")
    assert index.ids == index.files
    assert index.targets.tolist() == [0, 0, 1, 1]
    assert index.path(3) == images / "train" / "dog" / "b.jpg"
    assert len(index) == 4
    # Targets of the validation part count in the training part's classes.
    assert index_folder(images, "val", ("cat", "dog")).targets.tolist() == [0]
    assert index_folder(images, "val", ("bird", "cat")).targets.tolist() == [1]
    # The folder of the classes itself can be tested on.
    assert index_folder(images / "val", "val").files == ("cat/x.jpg",)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("val.txt", "v1.JPEG n02\nv2.JPEG n01\n"),
        ("LOC_val_solution.csv", "ImageId,PredictionString\nv1,n02 1 2 3 4 \nv2,n01 1 2 3 4 n01 5 6 7 8\n"),
    ],
)
def test_imagenets_flat_validation_folder(tmp_path: Path, name: str, text: str) -> None:
    touch(tmp_path / "val/v1.JPEG")
    touch(tmp_path / "val/v2.JPEG")
    with pytest.raises(InputError, match=r"no file says what they show; put beside it LOC_val_solution.csv"):
        index_folder(tmp_path, "val")
    (tmp_path / name).write_text(text)
    index = index_folder(tmp_path, "val", ("n01", "n02"))
    assert dict(zip(index.files, index.targets.tolist(), strict=True)) == {"v2.JPEG": 0, "v1.JPEG": 1}
    touch(tmp_path / "val/v3.JPEG")
    with pytest.raises(InputError, match=r"does not say which class v3.JPEG is of"):
        index_folder(tmp_path, "val")


def test_the_devkits_ground_truth(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        touch(tmp_path / f"val/ILSVRC2012_val_{number:08d}.JPEG")
    devkit = tmp_path / "ILSVRC2012_devkit_t12" / "data"
    devkit.mkdir(parents=True)
    truth = devkit / "ILSVRC2012_validation_ground_truth.txt"
    truth.write_text("2\n1\n2\n")
    with pytest.raises(InputError, match=r"gives classes by number; put the devkit's meta.mat"):
        index_folder(tmp_path, "val")
    kinds = [("ILSVRC2012_ID", "<i4"), ("WNID", "O"), ("words", "O")]
    synsets = np.array([(1, "n02", "dog"), (2, "n01", "cat")], dtype=kinds)
    savemat(str(devkit / "meta.mat"), {"synsets": synsets})
    index = index_folder(tmp_path, "val")
    assert index.classes == ("n01", "n02")
    found = {file[-6]: int(target) for file, target in zip(index.files, index.targets, strict=True)}
    assert found == {"1": 0, "2": 1, "3": 0}
    truth.write_text("2\n1\n")
    with pytest.raises(InputError, match="has 2 lines, and there are 3 images"):
        index_folder(tmp_path, "val")


def test_a_second_start_reads_no_directory(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = index_folder(images, "train")

    def never(*_: object) -> None:
        raise AssertionError("it was in the cache")

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", never)
        again = index_folder(images, "train")
    assert again.files == first.files
    assert torch.equal(again.targets, first.targets)


@pytest.mark.parametrize("change", ["add", "remove", "nested", "class"])
def test_a_change_is_noticed(images: Path, change: str) -> None:
    before = index_folder(images, "train").files
    if change == "remove":
        (images / "train/dog/b.jpg").unlink()
    else:
        new = {"add": "dog/c.jpg", "nested": "cat/deep/3.jpg", "class": "bird/1.jpg"}[change]
        touch(images / "train" / new)
    after = index_folder(images, "train").files
    assert len(set(after) ^ set(before)) == 1


def test_a_damaged_or_unwritable_cache_does_no_harm(
    images: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = index_folder(images, "train").files
    (file,) = cache.glob("index-*.json")
    for content in ("", "[]", '{"version": 1}', json.dumps({"version": 1, "directories": 3, "files": {}})):
        file.write_text(content)
        assert index_folder(images, "train").files == expected
    blocked = images / "a-file"
    blocked.touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    assert index_folder(images, "train").files == expected


def test_wrong_folders(images: Path, tmp_path: Path) -> None:
    def refusal(path: Path, split: str = "train", classes: tuple[str, ...] | None = None) -> str:
        with pytest.raises(InputError) as caught:
            index_folder(path, split, classes)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "there is no folder" in refusal(tmp_path / "absent")
    assert f"has no folder train; name {images}" in refusal(images / "val")
    strange = refusal(images, "val", ("cats", "dogs"))
    assert "has a class 'cat' that the training part has not; did you mean cats" in strange
    (images / "train" / "bird").mkdir()
    assert f"{images / 'train' / 'bird'}: a class without images" in refusal(images)
    (tmp_path / "only-text" / "train" / "a").mkdir(parents=True)
    touch(tmp_path / "only-text" / "train" / "a" / "a.txt")
    assert "has no images in its 1 folders" in refusal(tmp_path / "only-text")
    (tmp_path / "nothing" / "train").mkdir(parents=True)
    assert "is empty" in refusal(tmp_path / "nothing")


def test_links_that_lead_back_are_not_followed_for_ever(images: Path) -> None:
    os.symlink(images / "train", images / "train" / "cat" / "loop")
    os.symlink("self", images / "train" / "cat" / "self")
    assert len(index_folder(images, "train")) == 4
    # A link to an image is an image.
    os.symlink(images / "val/cat/x.jpg", images / "train" / "cat" / "linked.jpg")
    assert "cat/linked.jpg" in index_folder(images, "train").files


def test_many_files_start_in_seconds(tmp_path: Path) -> None:
    for name in range(40):
        (tmp_path / "train" / f"c{name:03d}").mkdir(parents=True)
    Image.new("RGB", (2, 2)).save(tmp_path / "a.jpg")
    for number in range(4000):
        os.link(tmp_path / "a.jpg", tmp_path / "train" / f"c{number % 40:03d}" / f"{number}.jpg")
    index = index_folder(tmp_path, "train")
    assert len(index) == 4000
    assert len(index.classes) == 40
