"""Tiny ImageNet where it is named and not there: downloaded from a server on this machine."""

import hashlib
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import sentence_of
from servers import FileServer, serving

from residual.data import tiny_imagenet
from residual.data.folder import index_folder, parts_of
from residual.download import PublishedFile

WNIDS = ("n01443537", "n02124075")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """Serve the layout with two classes of two images at the address that it is downloaded from."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        files = {"wnids.txt": "\n".join(WNIDS), "words.txt": "".join(f"{w}\tname of {w}\n" for w in WNIDS)}
        files["val/val_annotations.txt"] = f"val_0.JPEG\t{WNIDS[1]}\t0\t0\t63\t63\n"
        files["val/images/val_0.JPEG"] = ""
        files |= {f"train/{w}/images/{w}_{number}.JPEG": "" for w in WNIDS for number in range(2)}
        for name, text in files.items():
            archive.writestr(f"tiny-imagenet-200/{name}", text)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving() as server:
        server.files = {"/tiny-imagenet-200.zip": packed.getvalue()}
        publish(server, hashlib.md5(packed.getvalue()).hexdigest(), monkeypatch)
        yield server


def publish(server: FileServer, checksum: str, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"{server.address}/tiny-imagenet-200.zip"
    monkeypatch.setattr(tiny_imagenet, "ARCHIVE", PublishedFile("Tiny ImageNet", url, "md5", checksum))


def test_the_official_address() -> None:
    assert tiny_imagenet.ARCHIVE.url == "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
    assert tiny_imagenet.ARCHIVE.checksum == "90528d7ca1a48142e341f4ef8d21d0de"


def test_it_is_downloaded_once_where_it_is_named(server: FileServer, tmp_path: Path) -> None:
    root = tmp_path / "tiny-imagenet-200"
    train = index_folder(root, "train")
    assert train.classes == tuple(f"{w} name of {w}" for w in WNIDS)
    assert len(train) == 4
    assert index_folder(root, "val", train.classes).targets.tolist() == [1]
    assert parts_of(root) == {"train", "val"}
    assert len(server.asked) == 1
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".lock"] == ["tiny-imagenet-200"]


def test_another_name_is_not_downloaded(server: FileServer, tmp_path: Path) -> None:
    assert "there is no folder" in sentence_of(lambda: index_folder(tmp_path / "tiny", "train"))
    link = tmp_path / "linked" / "tiny-imagenet-200"
    link.parent.mkdir()
    link.symlink_to(tmp_path / "disk")
    said = sentence_of(lambda: index_folder(link, "train"))
    assert said.startswith(f"{link} is a link to {tmp_path / 'disk'}, which is not there; mount the disk")
    assert list(link.parent.iterdir()) == [link]
    absent = tmp_path / "absent" / "tiny-imagenet-200"
    assert "there is no folder" in sentence_of(lambda: index_folder(absent, "train"))
    assert server.asked == []


def test_a_wrong_archive_is_named(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(server, "0" * 32, monkeypatch)
    said = sentence_of(lambda: index_folder(tmp_path / "tiny-imagenet-200", "train"))
    assert "cannot download Tiny ImageNet" in said
    (tmp_path / "tiny-imagenet-200.zip").write_bytes(b"no archive")
    publish(server, hashlib.md5(b"no archive").hexdigest(), monkeypatch)
    said = sentence_of(lambda: index_folder(tmp_path / "tiny-imagenet-200", "train"))
    assert "cannot unpack Tiny ImageNet (File is not a zip file)" in said
    assert not (tmp_path / "tiny-imagenet-200").exists()
