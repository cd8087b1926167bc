"""Files from the net: whole or not there, checked, taken up where a connection broke off."""

import errno
import hashlib
import itertools
import shutil
import threading
from collections.abc import Callable, Iterator
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import pytest
from conftest import sentence_of
from servers import FileServer, serving

from residual.download import PIECE, TRIES, PublishedFile, fetch, fetch_folder

CONTENT = bytes(range(256)) * 4000
ROOM = "name another folder"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving({"/a.bin": CONTENT}) as server:
        yield server


def published(server: FileServer, content: bytes = CONTENT) -> PublishedFile:
    checksum = hashlib.sha256(content).hexdigest()[:8]
    return PublishedFile("the file", f"{server.address}/a.bin", "sha256", checksum)


def names(folder: Path) -> list[str]:
    """Return what lies in a folder, but for the lock."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def test_a_file_is_fetched_once(
    server: FileServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "new" / "a.bin"
    assert fetch(published(server), file, ROOM)
    assert file.read_bytes() == CONTENT
    out, err = capfd.readouterr()
    assert out == ""
    assert err == f"downloading the file (1.0 MB) from {server.address}/a.bin to {file}\n"
    assert not fetch(published(server), file, ROOM)
    assert server.asked == [("/a.bin", None)]
    assert names(file.parent) == ["a.bin"]


def test_a_connection_that_breaks_off_is_made_anew(server: FileServer, tmp_path: Path) -> None:
    server.cuts = [300_000, 500_000]
    fetch(published(server), tmp_path / "a.bin", ROOM)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert [part for _, part in server.asked] == [None, "bytes=300000-", "bytes=800000-"]


def test_a_network_that_goes_away_is_no_trouble_of_the_disk(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, calls = HTTPResponse.read, itertools.count()

    def goes_away(answer: HTTPResponse, count: int | None = None) -> bytes:
        if next(calls) == 1:
            raise OSError(errno.EHOSTUNREACH, "No route to host")
        return read(answer, count)

    monkeypatch.setattr(HTTPResponse, "read", goes_away)
    fetch(published(server), tmp_path / "a.bin", ROOM)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert [part for _, part in server.asked] == [None, f"bytes={PIECE}-"]


def test_the_next_call_goes_on_where_a_connection_broke_off(server: FileServer, tmp_path: Path) -> None:
    server.cuts = [100_000, 0]
    said = sentence_of(lambda: fetch(published(server), tmp_path / "a.bin", ROOM))
    assert said == (
        f"cannot download the file from {server.address}/a.bin: the connection broke off after 100,000 of "
        f"1,024,000 bytes, which are kept; try again, or fetch it by hand and put it at {tmp_path}/a.bin"
    )
    assert names(tmp_path) == [".a.bin.partial"]
    fetch(published(server), tmp_path / "a.bin", ROOM)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert names(tmp_path) == ["a.bin"]
    assert server.asked[-1] == ("/a.bin", "bytes=100000-")


def test_an_endless_trickle_ends(server: FileServer, tmp_path: Path) -> None:
    server.cuts = [1] * 100
    said = sentence_of(lambda: fetch(published(server), tmp_path / "a.bin", ROOM))
    assert f"broke off after {TRIES} of 1,024,000 bytes" in said


@pytest.mark.parametrize("rest", ["of this file", "of another", "too long", "whole"])
@pytest.mark.parametrize("ranges", [True, False])
def test_what_an_interruption_left_is_used_if_it_is_of_this_file(
    rest: str, ranges: bool, server: FileServer, tmp_path: Path
) -> None:
    server.ranges = ranges
    left = {
        "of this file": CONTENT[:5000],
        "of another": b"x" * 5000,
        "too long": CONTENT + b"x",
        "whole": CONTENT,
    }[rest]
    (tmp_path / ".a.bin.partial").write_bytes(left)
    assert fetch(published(server), tmp_path / "a.bin", ROOM)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert names(tmp_path) == ["a.bin"]


def test_an_interrupted_download_is_kept(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("residual.download._check", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fetch(published(server), tmp_path / "a.bin", ROOM)
    assert names(tmp_path) == [".a.bin.partial"]
    fetch(published(server), tmp_path / "a.bin", ROOM)
    assert names(tmp_path) == ["a.bin"]


def test_a_wrong_checksum(server: FileServer, tmp_path: Path) -> None:
    wanted = published(server, b"another file")
    said = sentence_of(lambda: fetch(wanted, tmp_path / "a.bin", ROOM))
    found = hashlib.sha256(CONTENT).hexdigest()
    assert f"expected the SHA-256 {wanted.checksum}, found {found} of 1,024,000 bytes" in said
    assert said.startswith(f"cannot download the file from {server.address}/a.bin: ")
    assert names(tmp_path) == []


def test_a_file_put_there_by_hand(server: FileServer, tmp_path: Path) -> None:
    file = tmp_path / "a.bin"
    file.write_bytes(CONTENT)
    assert not fetch(published(server), file, ROOM)
    assert server.asked == []
    file.write_bytes(b"the page that says 404")
    said = sentence_of(lambda: fetch(published(server), file, ROOM))
    assert said.startswith(f"{file} is not the file: expected the SHA-256 ")
    assert said.endswith(f"remove it, or get it anew from {server.address}/a.bin")
    assert file.read_bytes() == b"the page that says 404"


def test_a_download_that_fails_leaves_what_was_there(server: FileServer, tmp_path: Path) -> None:
    server.files.clear()
    (tmp_path / "there").mkdir()
    target = tmp_path / "there" / "new" / "data" / "folder"
    said = [sentence_of(lambda: fetch_folder(published(server), target))]
    assert list((tmp_path / "there").iterdir()) == []
    # Of processes that wait for each other, each says what was wrong.
    action: Callable[[], None] = lambda: said.append(  # noqa: E731
        sentence_of(lambda: fetch_folder(published(server), target))
    )
    threads = [threading.Thread(target=action) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(said) == 3
    assert all("HTTP Error 404" in sentence for sentence in said)


@pytest.mark.parametrize("trouble", ["404", "gone", "nobody"])
def test_no_network(trouble: str, server: FileServer, tmp_path: Path) -> None:
    wanted = published(server)
    if trouble == "404":
        server.files.clear()
    elif trouble == "gone":
        server.stop()
    else:
        wanted = PublishedFile("the file", "http://nobody.invalid/a.bin", "sha256", "00")
    said = sentence_of(lambda: fetch(wanted, tmp_path / "a.bin", ROOM))
    assert said.startswith(f"cannot download the file from {wanted.url}: ")
    assert {"404": "HTTP Error 404", "gone": "refused", "nobody": ""}[trouble] in said
    assert said.endswith(f"fetch it by hand and put it at {tmp_path}/a.bin")
    assert names(tmp_path) == []


def test_a_full_disk(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100_000))
    said = sentence_of(lambda: fetch(published(server), tmp_path / "a.bin", ROOM))
    assert said == (
        f"{tmp_path}/a.bin cannot be written: it takes 1.0 MB and 0.1 MB are free; make room, or {ROOM}"
    )
    assert names(tmp_path) == []
    (tmp_path / "file").touch()
    said = sentence_of(lambda: fetch(published(server), tmp_path / "file" / "a.bin", ROOM))
    assert "file/a.bin cannot be written: " in said


def test_processes_that_start_together_download_once(server: FileServer, tmp_path: Path) -> None:
    downloaded: list[bool] = []
    action: Callable[[], None] = lambda: downloaded.append(  # noqa: E731
        fetch(published(server), tmp_path / "a.bin", ROOM)
    )
    threads = [threading.Thread(target=action) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(downloaded) == [False, False, False, True]
    assert len(server.asked) == 1
