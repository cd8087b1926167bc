"""CIFAR-10 from disk and from the net: what is read, and what is refused with which sentence."""

import hashlib
import io
import os
import pickle
import struct
import tarfile
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from servers import FileServer, serving

from residual.data import cifar10, load_dataset
from residual.download import PublishedFile
from residual.errors import InputError

RECORDS = 4

TRAIN = [f"data_batch_{i}" for i in range(1, 6)]

BATCHES = [*TRAIN, "test_batch"]

OFFICIAL = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

OTHERS = tuple(f"class{i}" for i in range(10))


def images(batch: str) -> tuple[np.ndarray, list[int]]:
    """Return the random content of a batch of RECORDS images."""
    random = np.random.default_rng(BATCHES.index(batch))
    return random.integers(0, 256, (RECORDS, 3072), np.uint8), random.integers(0, 10, RECORDS).tolist()


def binary(data: np.ndarray, labels: list[int]) -> bytes:
    return b"".join(bytes([label]) + row.tobytes() for label, row in zip(labels, data, strict=True))


def python2(data: np.ndarray, labels: list[int]) -> bytes:
    """Return the pickle that Python 2 writes, opcode by opcode: its text is bytes."""
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01"
        + b"".join(b"M" + struct.pack("<H", n) for n in data.shape)
        + b"\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNN"
        + b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T"
        + struct.pack("<I", data.nbytes)
        + data.tobytes()
        + b"tb"
    )
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\x02}(U\x0bbatch_labelU\x04testU\x06labels" + numbers + b"U\x04data" + array + b"u."


def python3(data: np.ndarray, labels: list[int], protocol: int = 2) -> bytes:
    return pickle.dumps({"data": data, "labels": labels}, protocol)


WRITERS: dict[str, Callable[[np.ndarray, list[int]], bytes]] = {
    "binary": binary,
    "python 2": python2,
    "protocol 2": python3,
    "protocol 4": partial(python3, protocol=4),
}


def write(data_dir: Path, kind: str = "binary") -> Path:
    """Write a dataset of RECORDS images a file under ``data_dir``; return its folder."""
    folder = data_dir / ("cifar-10-batches-bin" if kind == "binary" else "cifar-10-batches-py")
    folder.mkdir(parents=True)
    for batch in BATCHES:
        file = folder / (f"{batch}.bin" if kind == "binary" else batch)
        file.write_bytes(WRITERS[kind](*images(batch)))
    return folder


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar10, "RECORDS", RECORDS)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("itself", [False, True], ids=["parent", "itself"])
def test_cifar10_in_each_layout(kind: str, itself: bool, tmp_path: Path) -> None:
    folder = write(tmp_path, kind)
    for split, batches in (("train", TRAIN), ("test", ["test_batch"])):
        part = load_dataset("cifar10", split, folder if itself else tmp_path)  # type: ignore[arg-type]
        expected = np.concatenate([images(batch)[0] for batch in batches])
        assert part.name == f"cifar10 {split}"
        assert part.images.dtype == torch.uint8
        assert part.images.is_contiguous()
        assert torch.equal(part.images, torch.from_numpy(expected).view(-1, 3, 32, 32))
        assert part.targets.dtype == torch.int64
        assert part.targets.tolist() == [label for batch in batches for label in images(batch)[1]]
        assert part.ids.tolist() == list(range(RECORDS * len(batches)))
        assert part.classes == OFFICIAL


@pytest.mark.usefixtures("small")
def test_planes_are_red_green_blue_in_rows(tmp_path: Path) -> None:
    folder = write(tmp_path)
    data = np.zeros((RECORDS, 3072), np.uint8)
    data[1, 2 * 1024 + 5 * 32 + 7] = 200
    (folder / "test_batch.bin").write_bytes(binary(data, [0] * RECORDS))
    images = load_dataset("cifar10", "test", tmp_path).images
    assert images.nonzero().tolist() == [[1, 2, 5, 7]]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("kind", "file", "content"),
    [
        ("binary", "batches.meta.txt", "\n".join(OTHERS).encode() + b"\n\n"),
        ("python 2", "batches.meta", pickle.dumps({b"label_names": [n.encode() for n in OTHERS]}, 2)),
        ("python 2", "batches.meta", pickle.dumps({"label_names": list(OTHERS)}, 2)),
    ],
)
def test_class_names_are_the_files(kind: str, file: str, content: bytes, tmp_path: Path) -> None:
    (write(tmp_path, kind) / file).write_bytes(content)
    assert load_dataset("cifar10", "test", tmp_path).classes == OTHERS


@pytest.mark.usefixtures("small")
def test_peak_memory_is_about_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar10, "RECORDS", 1000)
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for batch in TRAIN:
        (folder / f"{batch}.bin").write_bytes(bytes(1000 * 3073))
    tracemalloc.start()
    part = load_dataset("cifar10", "train", tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # The data and one of the five files; a second copy would be 2, floats 4 times the data.
    assert part.images.nbytes < peak < 1.5 * part.images.nbytes


def refusal(data_dir: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_dataset("cifar10", "train", data_dir)
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


def test_a_folder_that_was_named_must_exist(tmp_path: Path) -> None:
    absent = tmp_path / "misspelt" / "data"
    assert f"{absent}: there is no such folder, nor the one that it would be in" in refusal(absent)
    assert not absent.parent.exists()
    file = tmp_path / "file"
    file.touch()
    assert f"{file} is a file" in refusal(file)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("kind", ["binary", "python 2"])
def test_a_missing_file_is_named(kind: str, tmp_path: Path) -> None:
    folder = write(tmp_path, kind)
    missing = folder / ("data_batch_1.bin" if kind == "binary" else "data_batch_1")
    missing.unlink()
    sentence = refusal(tmp_path)
    assert sentence.startswith(f"{missing} is missing; fetch https://")
    assert sentence.endswith(f"unpack it in place of {folder}")


@pytest.mark.parametrize(
    ("size", "found"), [(30_729_999, "30,729,999"), (0, "0"), (30_730_001, "30,730,001")]
)
def test_the_size_of_an_official_file(size: int, found: str, tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    (folder / "data_batch_1.bin").touch()
    os.truncate(folder / "data_batch_1.bin", size)
    sentence = refusal(tmp_path)
    assert f"{folder / 'data_batch_1.bin'} is not a file of CIFAR-10" in sentence
    assert f"expected 30,730,000 bytes, found {found};" in sentence


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("kind", ["binary", "python 2"])
def test_a_foreign_label_is_refused(kind: str, tmp_path: Path) -> None:
    folder = write(tmp_path, kind)
    file = folder / ("data_batch_3.bin" if kind == "binary" else "data_batch_3")
    file.write_bytes(WRITERS[kind](images("data_batch_3")[0], [0, 9, 10, 0]))
    sentence = refusal(tmp_path)
    assert f"{file} is not a file of CIFAR-10: the label of its image 2 is none of 0 to 9;" in sentence


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    "label",
    [-1, 10**30, 10**5000, None, "cat", 0.5, [1], np.arange(2)],
    ids=["negative", "large", "huge", "none", "text", "fraction", "list", "array"],
)
def test_labels_in_a_pickle_are_checked(label: Any, tmp_path: Path) -> None:
    file = write(tmp_path, "protocol 4") / "data_batch_1"
    file.write_bytes(python3(images("test_batch")[0], [0, label, 0, 0]))
    assert "the label of its image 1 is none of 0 to 9" in refusal(tmp_path)


PADDING = bytes(RECORDS * 3072)

DATA = np.zeros((RECORDS, 3072), np.uint8)


def pickled(**content: Any) -> bytes:
    """Return a pickle that is large enough to be a batch."""
    return pickle.dumps(content | {"filenames": PADDING})


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "expected more than 12,288 bytes, found 0;"),
        (pickled(data=PADDING)[:12_300], "its 12,300 bytes are no whole pickle"),
        (PADDING, "its 12,288 bytes are no whole pickle"),
        (pickle.dumps([PADDING]), "expected a dictionary, found list"),
        (pickled(labels=[0] * 4), "expected an array named data and a list named labels"),
        (pickled(data=DATA.tolist(), labels=[0] * 4), "expected an array named data"),
        (pickle.dumps({"data": DATA}, 4), "expected an array named data and a list named labels"),
        (python3(DATA[:3], [0] * 4) + PADDING, "4 x 3,072 pixels of uint8, found 4 and 3 x 3,072 of uint8;"),
        (python3(DATA, [0] * 5), "expected 4 labels and 4 x 3,072 pixels of uint8, found 5 and"),
        (python3(DATA.astype(float), [0] * 4), "found 4 and 4 x 3,072 of float64;"),
    ],
    ids=["empty", "cut", "zeros", "list", "no-data", "no-array", "no-labels", "images", "labels", "dtype"],
)
def test_a_foreign_pickle_is_refused(content: bytes, complaint: str, tmp_path: Path) -> None:
    file = write(tmp_path, "protocol 4") / "data_batch_1"
    file.write_bytes(content)
    sentence = refusal(tmp_path)
    assert sentence.startswith(f"{file} is not a file of CIFAR-10: ")
    assert complaint in sentence


class Attack:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("file", ["data_batch_1", "batches.meta"])
def test_code_in_a_pickle_is_not_run(file: str, protocol: int, tmp_path: Path) -> None:
    mark = tmp_path / "attacked"
    content = pickle.dumps({"padding": PADDING, "label_names": Attack(mark)}, protocol)
    (write(tmp_path, "protocol 4") / file).write_bytes(content)
    sentence = refusal(tmp_path)
    assert f"{file} is not a file of CIFAR-10: it would run 'posix.mkdir'" in sentence
    assert not mark.exists()
    pickle.loads(content)
    assert mark.exists(), "the attack is harmless, so the test shows nothing"


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    "name",
    [
        "builtins\neval",
        "numpy\nload",
        "numpy.core.multiarray\nfromfile",
        "numpy\nndarray.tofile",
        "numpy\n__dict__",
    ],
)
def test_only_what_arrays_need_is_found(name: str, tmp_path: Path) -> None:
    (write(tmp_path, "protocol 4") / "data_batch_1").write_bytes(b"c" + name.encode() + b"\n." + PADDING)
    assert f"it would run '{name.replace(chr(10), '.')}'" in refusal(tmp_path)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("kind", "file", "content", "complaint"),
    [
        ("binary", "batches.meta.txt", b"cat\ndog\n", "expected the names of 10 classes, found 2"),
        ("python 2", "batches.meta", pickle.dumps({"label_names": ["cat"]}), "of 10 classes, found 1"),
        ("python 2", "batches.meta", pickle.dumps({"names": []}), "expected a list named label_names"),
        ("python 2", "batches.meta", b"dog\ncat\n", "its 8 bytes are no whole pickle"),
    ],
)
def test_foreign_class_names_are_refused(
    kind: str, file: str, content: bytes, complaint: str, tmp_path: Path
) -> None:
    path = write(tmp_path, kind) / file
    path.write_bytes(content)
    sentence = refusal(tmp_path)
    assert sentence.startswith(str(path))
    assert complaint in sentence


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("kind", "file", "target", "complaint"),
    [
        # A link to itself: even the superuser cannot read it.
        (
            "binary",
            "data_batch_2.bin",
            "data_batch_2.bin",
            "cannot be read: Too many levels of symbolic links",
        ),
        (
            "binary",
            "batches.meta.txt",
            "batches.meta.txt",
            "cannot be read: Too many levels of symbolic links",
        ),
        ("binary", "batches.meta.txt", "/dev/zero", "is a device or a pipe, not a file"),
        ("protocol 2", "batches.meta", "/dev/zero", "is a device or a pipe, not a file"),
    ],
)
def test_an_unreadable_file_is_named(
    kind: str, file: str, target: str, complaint: str, tmp_path: Path
) -> None:
    path = write(tmp_path, kind) / file
    path.unlink(missing_ok=True)
    path.symlink_to(target)
    sentence = refusal(tmp_path)
    assert str(path) in sentence
    assert complaint in sentence


@pytest.fixture
def server(
    small: None, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FileServer]:
    """Serve a good archive at the address that CIFAR-10 is downloaded from."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        tar.add(write(tmp_path_factory.mktemp("archive")), "cifar-10-batches-bin")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving() as server:
        serve(server, archive.getvalue(), monkeypatch)
        yield server


def serve(server: FileServer, archive: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    server.files = {"/cifar.tar.gz": archive}
    checksum = hashlib.md5(archive).hexdigest()
    url = f"{server.address}/cifar.tar.gz"
    monkeypatch.setattr(cifar10, "ARCHIVE", PublishedFile("CIFAR-10", url, "md5", checksum))


def content(data_dir: Path) -> list[str]:
    """Return what lies in a folder, but for the locks of the download."""
    return sorted(path.name for path in data_dir.iterdir() if path.suffix != ".lock")


def test_download(server: FileServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    part = load_dataset("cifar10", "test", tmp_path)
    assert part.targets.tolist() == images("test_batch")[1]
    assert content(tmp_path) == ["cifar-10-batches-bin"]
    out, err = capfd.readouterr()
    assert err.startswith("downloading CIFAR-10 (")
    assert err.endswith(f") from {server.address}/cifar.tar.gz to {tmp_path / 'cifar.tar.gz'}\n")
    assert not out
    assert len(load_dataset("cifar10", "train", tmp_path)) == 5 * RECORDS
    assert len(server.asked) == 1


def test_download_to_the_default_folder(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(load_dataset("cifar10", "test")) == RECORDS
    assert content(tmp_path / "data") == ["cifar-10-batches-bin"]


def test_an_archive_that_was_put_there_by_hand_is_unpacked(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "cifar.tar.gz").write_bytes(server.files["/cifar.tar.gz"])
    assert len(load_dataset("cifar10", "test", tmp_path)) == RECORDS
    assert server.asked == []
    assert content(tmp_path) == ["cifar-10-batches-bin", "cifar.tar.gz"]


def test_processes_that_start_together_download_once(server: FileServer, tmp_path: Path) -> None:
    lengths: list[int] = []
    threads = [
        threading.Thread(target=lambda: lengths.append(len(load_dataset("cifar10", "test", tmp_path))))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lengths == [RECORDS] * 4
    assert len(server.asked) == 1


def test_a_wrong_checksum_is_found_before_unpacking(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tarfile, "open", lambda *_, **__: pytest.fail("unpacked an unknown archive"))
    archive = server.files["/cifar.tar.gz"] + b"more"
    server.files["/cifar.tar.gz"] = archive
    found = hashlib.md5(archive).hexdigest()
    sentence = refusal(tmp_path)
    assert sentence.startswith(
        f"cannot download CIFAR-10 from {server.address}/cifar.tar.gz: expected the MD5 "
    )
    assert f"found {found} of {len(archive):,} bytes" in sentence
    assert sentence.endswith(f"fetch it by hand and put it at {tmp_path / 'cifar.tar.gz'}")
    assert content(tmp_path) == []


def test_a_connection_that_breaks_off_is_gone_on_with(server: FileServer, tmp_path: Path) -> None:
    server.cuts = [1000, 0]
    assert "the connection broke off after 1,000 of " in refusal(tmp_path)
    assert content(tmp_path) == [".cifar.tar.gz.partial"]
    assert len(load_dataset("cifar10", "test", tmp_path)) == RECORDS
    assert content(tmp_path) == ["cifar-10-batches-bin"]


def test_a_server_that_is_gone(server: FileServer, tmp_path: Path) -> None:
    server.stop()
    sentence = refusal(tmp_path)
    assert "Connection refused" in sentence
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_unpacking_leaves_nothing_that_looks_like_the_dataset(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(*args: Any, **_: Any) -> None:
        args[0].extract("cifar-10-batches-bin/data_batch_1.bin", args[1], filter="data")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tarfile.TarFile, "extractall", half)
        with pytest.raises(KeyboardInterrupt):
            load_dataset("cifar10", "test", tmp_path)
    assert content(tmp_path) == ["cifar.tar.gz"]
    assert len(load_dataset("cifar10", "test", tmp_path)) == RECORDS
    assert len(server.asked) == 1


def test_an_archive_stays_in_its_folder(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo("../../escaped"))
    serve(server, archive.getvalue(), monkeypatch)
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    assert "cannot unpack CIFAR-10" in refusal(data_dir)
    assert content(tmp_path) == ["data"]
    assert content(data_dir) == ["cifar.tar.gz"]


@pytest.mark.slow
def test_cifar10_is_the_published_set(published_cifar10: Path) -> None:
    images = load_dataset("cifar10", "train", published_cifar10).images
    means = images.double().mean(dim=(0, 2, 3)) / 255
    assert means.tolist() == pytest.approx([0.4914, 0.4822, 0.4465], abs=5e-5)
