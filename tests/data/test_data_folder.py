"""Folders of images: which there are, of what class, and what is wrong with a folder."""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import sentence_of
from PIL import Image
from scipy.io import savemat

from residual import InputError
from residual.data.folder import Split, index_folder
from residual.data.lists import ClassList
from residual.files import check_file


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
    whole = file.read_text()
    older = whole.partition("\n")[2]  # as earlier versions wrote it, without a checksum
    damaged = whole.replace("1.png", "7.png", 1)  # an image that is not there
    for content in ("", "[]", '{"version": 1}', older, damaged, whole[:-9], "[" * 9999):
        assert content != whole
        file.write_text(content)
        assert index_folder(images, "train").files == expected
        assert file.read_text() == whole
    blocked = images / "a-file"
    blocked.touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    assert index_folder(images, "train").files == expected


def test_wrong_folders(images: Path, tmp_path: Path) -> None:
    assert "there is no folder" in refusal(tmp_path / "absent")
    assert f"has no folder train; name {images}" in refusal(images / "val")
    (tmp_path / "archive" / "flowers" / "train").mkdir(parents=True)
    within = f"has no folder train; name {tmp_path / 'archive' / 'flowers'}"
    assert within in refusal(tmp_path / "archive")
    strange = refusal(images, "val", ("cats", "dogs"))
    assert "has a class 'cat' that the training part does not have; did you mean cats" in strange
    (images / "train" / "bird").mkdir()
    assert f"{images / 'train' / 'bird'}: a class without images" in refusal(images)
    (tmp_path / "only-text" / "train" / "a").mkdir(parents=True)
    touch(tmp_path / "only-text" / "train" / "a" / "a.txt")
    assert "has no images in its 1 folders" in refusal(tmp_path / "only-text")
    (tmp_path / "nothing" / "train").mkdir(parents=True)
    assert "is empty" in refusal(tmp_path / "nothing")


def test_what_is_copied_with_its_times_is_noticed(images: Path) -> None:
    """As rsync -a, cp -a, tar and unzip do: of a folder that was indexed with a part of its images."""
    folder = images / "train" / "dog"
    times = folder.stat().st_atime_ns, folder.stat().st_mtime_ns
    before = len(index_folder(images, "train"))
    shutil.copy(folder / "b.jpg", folder / "new.jpg")
    os.utime(folder, ns=times)
    assert len(index_folder(images, "train")) == before + 1


def test_a_class_whose_disk_is_not_there_is_named(images: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    os.symlink(disk / "bird", images / "train" / "bird")
    said = sentence_of(lambda: index_folder(images, "train"))
    assert said == (
        f"{images / 'train' / 'bird'} is a link to {disk / 'bird'}, which cannot be read (No such file or "
        "directory); mount the disk that it is on, or remove the link"
    )
    # Whatever its name; a file's that is not there is none.
    for name in ("notes.txt", "photo.HEIC"):
        (images / "train" / "cat" / name).symlink_to(disk / name)
    for name in ("St. Bernard", "no.5", "v1.2"):
        (images / "train" / "bird").rename(images / "train" / name)
        assert f"{name} is a link to" in sentence_of(lambda: index_folder(images, "train"))
        (images / "train" / name).rename(images / "train" / "bird")
    (images / "train" / "bird").unlink()
    assert index_folder(images, "train").classes == ("cat", "dog")
    os.symlink(disk / "bird", images / "train" / "bird")
    for part in ("train", "val"):
        (images / part).rename(images / "aside")
        (images / part).symlink_to(disk / part)
        said = sentence_of(lambda part=part: index_folder(images, part))
        assert said.startswith(f"{images / part} is a link to {disk / part}, which is not there; mount")
        (images / part).unlink()
        (images / "aside").rename(images / part)
    # Nothing of it is remembered.
    shutil.copytree(images / "train" / "dog", disk / "bird")
    assert "bird" in index_folder(images, "train").classes


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_place_that_nobody_may_look_into_is_none(images: Path, tmp_path: Path) -> None:
    parents = (tmp_path, *tmp_path.parents)
    modes = {parent: parent.stat().st_mode for parent in parents if parent.stat().st_mode & 0o055 != 0o055}
    hidden = tmp_path / "hidden"
    (hidden / "deep").mkdir(parents=True)
    (hidden / "deep" / "a.jpg").touch()
    (tmp_path / "list.csv").write_text(f"path,class\n{hidden / 'deep' / 'a.jpg'},cat\n")
    os.symlink(hidden / "deep", images / "other")
    hidden.chmod(0)
    try:
        for parent, mode in modes.items():
            parent.chmod(mode | 0o055)
        os.seteuid(65534)
        assert len(index_folder(images, "train")) == 4
        said = sentence_of(lambda: index_folder(tmp_path / "list.csv", "all"))
        assert f"there is no file {hidden / 'deep' / 'a.jpg'}, or it may not be read" in said
        assert "Permission denied" in sentence_of(lambda: check_file(hidden / "deep" / "a.jpg"))
    finally:
        os.seteuid(0)
        for parent, mode in modes.items():
            parent.chmod(mode)


def test_links_that_lead_back_are_not_followed_for_ever(images: Path) -> None:
    os.symlink(images / "train", images / "train" / "cat" / "loop")
    os.symlink("self", images / "train" / "cat" / "self")
    assert len(index_folder(images, "train")) == 4
    # A link to an image is an image.
    os.symlink(images / "val/cat/x.jpg", images / "train" / "cat" / "linked.jpg")
    assert "cat/linked.jpg" in index_folder(images, "train").files


def test_many_files_are_read_a_folder_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That takes seconds; of each file the system is asked nothing."""
    for name in range(40):
        (tmp_path / "train" / f"c{name:03d}").mkdir(parents=True)
    Image.new("RGB", (2, 2)).save(tmp_path / "a.jpg")
    for number in range(4000):
        os.link(tmp_path / "a.jpg", tmp_path / "train" / f"c{number % 40:03d}" / f"{number}.jpg")
    asked: list[Any] = []
    for name in ("scandir", "stat"):
        real = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda path, *_, real=real, **more: asked.append(path) or real(path, **more)
        )
    index = index_folder(tmp_path, "train")
    assert len(asked) < 400
    assert len(index) == 4000
    assert len(index.classes) == 40


# --- what people bring ---


def refusal(path: Path, split: Split = "train", classes: tuple[str, ...] | None = None) -> str:
    return sentence_of(lambda: index_folder(path, split, classes))


def test_what_is_left_out_is_counted_by_suffix(tmp_path: Path) -> None:
    for name in ("a.jfif", "b.jpe", "c.avif", "d.gif", "e.jp2", "f.JPG", "notes.txt"):
        touch(tmp_path / "train" / "cat" / name)
    for name in ("1.png", "2.psd", "3.psd", "4.svg", "5"):
        touch(tmp_path / "train" / "dog" / name)
    index = index_folder(tmp_path, "train")
    assert len(index) == 7
    said = f"{tmp_path / 'train'}: 2 .psd, 1 .svg and 1 without a suffix left out, as no images that are read"
    # The second time from the cache.
    assert index.notes == index_folder(tmp_path, "train").notes == (said,)
    for name in ("x.psd", "y.psd"):
        touch(tmp_path / "train" / "elk" / name)
    assert refusal(tmp_path) == (
        f"{tmp_path / 'train' / 'elk'}: a class without images that are read, but with 2 .psd; "
        "convert them to PNG or JPEG, or remove the folder"
    )


def test_what_storage_and_archives_put_beside_images_is_left_out(images: Path) -> None:
    expected = index_folder(images, "train").files
    for name in ("@eaDir", "__MACOSX", "System Volume Information", ".thumbnails"):
        touch(images / "train" / "cat" / name / "1.png")
        touch(images / "train" / name / "cat" / "1.png")
    index = index_folder(images, "train")
    assert (index.files, index.classes, index.notes) == (expected, ("cat", "dog"), ())


def test_one_level_too_many(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        touch(tmp_path / "train" / "images" / name / "1.png")
        touch(tmp_path / "val" / "images" / name / "1.png")
    train = tmp_path / "train"
    said = (
        f"{train} has a single class, images, whose 2 folders look like the classes (cat, dog); move them up"
    )
    assert refusal(tmp_path) == f"{said} into {train}"
    assert "has a single class, images, whose 2 folders look like" in refusal(tmp_path, "val", ("cat", "dog"))


def test_one_folder_more_around_the_parts(images: Path, tmp_path: Path) -> None:
    around = tmp_path / "around"
    (around / "inner").mkdir(parents=True)
    for part in ("train", "val"):
        (images / part).rename(around / "inner" / part)
    splits: tuple[Split, ...] = ("train", "val", "all")
    for split in splits:
        assert f"{around} has no folder {'val' if split == 'val' else 'train'}; name {around / 'inner'}" in (
            refusal(around, split)
        )


def test_a_class_that_is_called_train_does_not_hide_the_others(tmp_path: Path) -> None:
    for name in ("bus/1.png", "car/1.png", "train/steam/1.png", "train/diesel/1.png"):
        touch(tmp_path / name)
    (note,) = index_folder(tmp_path, "all").notes
    assert note == (
        f"{tmp_path}: of its folders only train is trained on, not bus, car; if all are classes, put them "
        "into a new folder train"
    )


def test_a_single_class_is_said_and_nested_classes_too(tmp_path: Path) -> None:
    for name in ("cat/2019/1.png", "cat/2.png"):
        touch(tmp_path / "one" / "train" / name)
    (note,) = index_folder(tmp_path / "one", "train").notes
    assert note.endswith("has one class, cat: there is nothing to tell it from")
    for name in ("left/cat", "left/dog", "right/cat", "right/dog"):
        touch(tmp_path / "two" / "train" / name / "1.png")
    (note,) = index_folder(tmp_path / "two", "train").notes
    assert "all 2 classes have the same folders (cat, dog); if those are the classes, put them into" in note


def test_images_beside_the_folders_of_classes_are_told(images: Path) -> None:
    touch(images / "train" / "loose.png")
    (note,) = index_folder(images, "train").notes
    assert (
        note
        == f"{images / 'train'}: 1 images beside the folders of the classes are of no class, and left out"
    )


@pytest.mark.parametrize("name", ["valid", "validation", "test", "Val"])
def test_a_part_by_another_name_is_named(images: Path, name: str) -> None:
    (images / "val").rename(images / name)
    said = refusal(images, "val", ("cat", "dog"))
    assert said == (
        f"{images} has no folder val, but one called {name}: rename it to val, or link it (ln -s {name} "
        f"{images / 'val'})"
    )
    (images / "train").rename(images / "Train")
    assert "has no folder train, but one called Train: rename it to train" in refusal(images)
    # Tested without a training part: the parts are no classes, whatever macOS has packed beside them.
    assert f"but one called {name}" in refusal(images, "val")
    (images / "__MACOSX").mkdir()
    assert f"but one called {name}" in refusal(images, "val")


def test_classes_that_are_called_like_parts(tmp_path: Path) -> None:
    for name in ("test", "needle"):
        touch(tmp_path / name / "1.png")
    assert index_folder(tmp_path, "val").classes == ("needle", "test")


def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    for folder in (b"caf\xe9", b"tea"):
        path = os.fsencode(tmp_path / "train") + b"/" + folder
        os.makedirs(path)
        for name in (b"\xfc.png", b"b.png"):
            Path(os.fsdecode(path + b"/" + name)).touch()
    for _ in range(2):  # scanned, and from the cache
        index = index_folder(tmp_path, "train")
        assert index.classes == ("caf\\xe9", "tea")
        assert index.ids == ("caf\\xe9/b.png", "caf\\xe9/\\xfc.png", "tea/b.png", "tea/\\xfc.png")
        assert all(index.path(position).is_file() for position in range(4))
    assert index_folder(tmp_path, "train", index.classes).targets.tolist() == [0, 0, 1, 1]


def test_classes_and_lists_that_macos_has_written(tmp_path: Path) -> None:
    apart, one = "a\u0308", "\u00e4"
    touch(tmp_path / "train" / apart / "1.png")
    touch(tmp_path / "train" / "b" / "1.png")
    touch(tmp_path / "val" / one / "1.png")
    train = index_folder(tmp_path, "train")
    assert train.classes == ("b", one)
    assert train.path(1).is_file()
    assert index_folder(tmp_path, "val", train.classes).targets.tolist() == [1]
    shutil.rmtree(tmp_path / "val")
    touch(tmp_path / "val" / f"{apart}.png")
    (tmp_path / "val.txt").write_text(f"{one}.png {apart}", encoding="utf-8")
    assert index_folder(tmp_path, "val", train.classes).targets.tolist() == [1]


def tiny_imagenet(root: Path) -> Path:
    """The layout as it is downloaded: three classes of 500, here of two images."""
    wnids = ("n02124075", "n01443537", "n07583066")
    (root / "val" / "images").mkdir(parents=True)
    (root / "wnids.txt").write_text("\n".join(wnids))
    (root / "words.txt").write_text(
        "n00001740\tentity\nn01443537\tgoldfish, Carassius auratus\n"
        "n02124075\tEgyptian cat\nn07583066\tguacamole\n"
    )
    lines = []
    for k, wnid in enumerate(wnids):
        for number in range(2):
            touch(root / "train" / wnid / "images" / f"{wnid}_{number}.JPEG")
            touch(root / "val" / "images" / f"val_{2 * k + number}.JPEG")
            lines.append(f"val_{2 * k + number}.JPEG\t{wnid}\t0\t32\t44\t62\n")
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text(f"{wnid}_0.JPEG\t0\t0\t62\t63\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    touch(root / "test" / "images" / "test_0.JPEG")
    return root


def test_tiny_imagenet_as_it_is_downloaded(tmp_path: Path) -> None:
    root = tiny_imagenet(tmp_path)
    train = index_folder(root, "train")
    assert train.classes == ("n01443537 goldfish", "n02124075 Egyptian cat", "n07583066 guacamole")
    assert train.files[:2] == tuple(f"n01443537/images/n01443537_{number}.JPEG" for number in range(2))
    assert train.notes == ()
    val = index_folder(root, "val", train.classes)
    assert val.files[0] == "images/val_2.JPEG"
    found = {file: train.classes[k] for file, k in zip(val.files, val.targets.tolist(), strict=True)}
    assert found["images/val_0.JPEG"] == "n02124075 Egyptian cat"
    assert found["images/val_5.JPEG"] == "n07583066 guacamole"
    assert len(val) == 6
    # The validation part alone, as residual evaluate is told of it.
    assert index_folder(root, "val").classes == train.classes
    annotations = root / "val" / "val_annotations.txt"
    text = annotations.read_text()
    annotations.write_text(text.replace("val_3.JPEG\tn01443537\t0", "val_3.JPEG\tn01443537\tzero"))
    assert f"{annotations}, line 4: after the file and its class there are only numbers" in refusal(
        root, "val"
    )
    annotations.write_text(text.replace("n01443537", "n99999999"))
    assert "has a class 'n99999999' that the training part does not have" in refusal(
        root, "val", train.classes
    )
    annotations.write_text(text.replace("val_3.JPEG", "val_33.JPEG"))
    assert "does not say which class images/val_3.JPEG is of" in refusal(root, "val", train.classes)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("val.csv", "a b.jpg,sea lion\n2.jpg,cat\n"),
        ("val.csv", "filename,label\na b.jpg,sea lion\n2.jpg,cat\n"),
        ("val.csv", "\ufefflabel;filename;width\nsea lion;a b.jpg;40\ncat;2.jpg;40\n"),
        ("val.csv", '"a b.jpg","sea lion"\r\n"val\\2.jpg","cat"\r\n'),
        ("val.txt", "a b.jpg 1\n2.jpg 0\n"),
        ("val.txt", "val/a b.jpg\tsea lion\n2.jpg\tcat\n"),
        ("val_labels.csv", "image,class\na b,sea lion\n2,cat\n"),
    ],
)
def test_lists_of_a_flat_folder(tmp_path: Path, name: str, text: str) -> None:
    touch(tmp_path / "val" / "a b.jpg")
    touch(tmp_path / "val" / "2.jpg")
    (tmp_path / name).write_text(text)
    index = index_folder(tmp_path, "val", ("cat", "sea lion"))
    assert dict(zip(index.files, index.targets.tolist(), strict=True)) == {"a b.jpg": 1, "2.jpg": 0}


def test_a_list_beside_a_part_that_is_named_itself(tmp_path: Path) -> None:
    for name in ("1.png", "2.png"):
        touch(tmp_path / "val" / name)
    (tmp_path / "val.txt").write_text("1.png cat\n2.png dog\n3.png dog\n4.png cat\n")
    for named in (tmp_path, tmp_path / "val"):
        index = index_folder(named, "val")
        assert index.classes == ("cat", "dog")
        (note,) = index.notes
        assert note == (
            f"2 images that {tmp_path / 'val.txt'} names are not in {tmp_path / 'val'}; the first: 3.png"
        )
    # Not that of another part.
    touch(tmp_path / "test" / "1.png")
    assert "no file says what they show" in refusal(tmp_path / "test", "val")
    # Positions are those of the training part beside it.
    for name in ("ant", "bee"):
        touch(tmp_path / "train" / name / "1.png")
    (tmp_path / "val.txt").write_text("1.png 1\n2.png 0\n")
    for named in (tmp_path, tmp_path / "val"):
        index = index_folder(named, "val")
        assert index.classes == ("ant", "bee")
        assert [index.classes[k] for k in index.targets] == ["ant", "bee"]
        assert index.files == ("2.png", "1.png")


def test_numbers_of_caffes_lists(tmp_path: Path) -> None:
    for name in ("ant", "bee", "cow"):
        touch(tmp_path / "train" / name / "1.png")
    touch(tmp_path / "val" / "1.png")
    (tmp_path / "val.txt").write_text("1.png 2\n")
    assert index_folder(tmp_path, "val", ("ant", "bee", "cow")).targets.tolist() == [2]
    # Without the training part's classes they are found beside it.
    assert index_folder(tmp_path, "val").classes == ("cow",)
    (tmp_path / "val.txt").write_text("1.png 3\n")
    assert "val.txt has the class 3, and there are 3, which count from 0" in refusal(tmp_path, "val")
    with pytest.raises(InputError, match="has the class 9999"):
        ClassList(tmp_path, {"a.png": "9" * 5000}).named(("ant", "bee"))
    (tmp_path / "train").rename(tmp_path / "elsewhere")
    assert "gives classes by number; put the folder train beside it" in refusal(tmp_path, "val")
    # Classes that are numbers are names.
    assert index_folder(tmp_path, "val", ("3", "7")).targets.tolist() == [0]
    said = sentence_of(lambda: index_folder(tmp_path, "val", ("1", "10", "2", "20")))
    assert "has a class '3' that the training part does not have" in said


def test_numbers_of_a_flat_training_part_are_names(tmp_path: Path) -> None:
    for part, numbers in (("train", "07"), ("val", "70")):
        for place in range(len(numbers)):
            touch(tmp_path / part / f"{place}.jpg")
        rows = [f"{place}.jpg,{number}\n" for place, number in enumerate(numbers)]
        (tmp_path / f"{part}.csv").write_text("".join(rows))
    train = index_folder(tmp_path, "train")
    assert (train.classes, train.targets.tolist()) == (("0", "7"), [0, 1])
    val = index_folder(tmp_path, "val", train.classes)
    assert dict(zip(val.files, val.targets.tolist(), strict=True)) == {"0.jpg": 1, "1.jpg": 0}
    assert index_folder(tmp_path, "val").classes == ("0", "7")


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        (
            "val.csv",
            "1.jpg,cat\n1.jpg,dog\n",
            "line 2: 1.jpg is 'dog' here and 'cat' before; one of them is wrong",
        ),
        ("val.csv", "1.jpg,cat\n2.jpg\n", "line 2: '2.jpg' names no image and its class"),
        (
            "val.csv",
            "filename,a,b\n1.jpg,1,0\n",
            "call the column of the classes 'class'; there are filename, a, b",
        ),
        (
            "val.txt",
            "1.jpg sea lion\n",
            "in a text file the last word of a line is the class; a class of several",
        ),
        ("val.txt", "1.jpg\n", "line 1: write the image's file and its class"),
        ("val.csv", "1.png,cat\n1.bmp,dog\n", "says cat and dog of files with the name of 1.jpg"),
    ],
)
def test_wrong_lists(tmp_path: Path, name: str, text: str, sentence: str) -> None:
    touch(tmp_path / "val" / "1.jpg")
    (tmp_path / name).write_text(text)
    assert sentence in refusal(tmp_path, "val")
