"""The one way to fetch a file: a checksum, a progress bar, and an interrupted download that goes on.

A file has its name only when it is whole. Until then it is ``.NAME.partial`` beside it, which the next call
takes up where it ends.
"""

import errno
import hashlib
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from filelock import FileLock

from . import __version__
from .errors import InputError
from .files import cannot_write, no_target
from .terminal import download_progress, say

#: Seconds without a word from the server.
PATIENCE = 30
#: How often a connection that breaks off is made anew, if something came through it.
TRIES = 5
PIECE = 2**18


@dataclass(frozen=True)
class PublishedFile:
    """A file at a public address.

    Attributes:
        what: it is called in messages, as "CIFAR-10".
        url: its address, http or https.
        algorithm: of its checksum, as "sha256".
        checksum: in hexadecimal digits, or the first of them.
    """

    what: str
    url: str
    algorithm: str
    checksum: str

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]


#: What a connection raises. Some are OSErrors, as the disk's are.
_TROUBLES = (URLError, HTTPException, TimeoutError, ConnectionError)


class _BrokenOffError(Exception):
    """The connection ended before the file did."""


class _WrongChecksumError(Exception):
    """The checksum is another one."""


def fetch(published: PublishedFile, file: Path, room: str) -> bool:
    """Have a published file at ``file``, and return whether it had to be downloaded.

    A file that is there already, by hand or by an earlier call, is checked and left as it is. Of several
    processes one downloads, and the others wait for it.

    Args:
        room: what to do where there is no room, as "name another folder with --data-dir".

    Raises:
        InputError: when it cannot be reached or written, or has another checksum; says what to fetch by hand
            and where to put it.
    """
    try:
        with _alone(file):
            if file.exists():
                _check_by_hand(published, file)
                return False
            _download(published, file)
            return True
    except (*_TROUBLES, _BrokenOffError, _WrongChecksumError) as error:
        reason = error if isinstance(error, HTTPError) else getattr(error, "reason", error)
        raise InputError(
            f"cannot download {published.what} from {published.url}: {str(reason).strip('<>')}; try again, "
            f"or fetch it by hand and put it at {file}"
        ) from None
    except OSError as error:
        raise InputError(f"{cannot_write(file, error)}; make room, or {room}") from None


def fetch_folder(published: PublishedFile, target: Path) -> None:
    """Have the folder in a published archive, .tar.gz or .zip, at ``target``, which has the folder's name.

    An archive that lies beside it already is unpacked and left as it is. Of several processes one works.

    Raises:
        InputError: as ``fetch``; when the archive cannot be unpacked.
    """
    place = target.parent
    archive = place / published.name
    if target.is_symlink() and not target.exists():
        raise no_target(target, "is not there")
    try:
        # Of torchrun's processes one downloads; the others wait here and then find its copy.
        with _alone(target):
            if target.exists():
                return
            downloaded = fetch(published, archive, "name another folder with --data-dir")
            # The folder gets its name when it is whole: an interruption leaves nothing that looks like one.
            with TemporaryDirectory(prefix=f".{target.name}-", dir=place) as temporary:
                if archive.suffix == ".zip":
                    with zipfile.ZipFile(archive) as packed:
                        packed.extractall(temporary)
                else:
                    with tarfile.open(archive) as tar:
                        tar.extractall(temporary, filter="data")
                (Path(temporary) / target.name).rename(target)
            if downloaded:
                archive.unlink()
    except (OSError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise InputError(
            f"cannot unpack {published.what} ({str(error).strip('<>')}); fetch {published.url} yourself and "
            f"unpack it under {place}"
        ) from None


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Have one process alone make a file or folder, in a folder that is made; if it fails, that is undone."""
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    while not lock.is_locked:
        made = [folder for folder in path.parents if not folder.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
        # The process that is waited for may fail, and remove the folder.
        with suppress(FileNotFoundError):
            lock.acquire()
    try:
        yield
    except BaseException:
        # While it is held: whoever waits for it makes another one.
        with suppress(OSError):
            Path(lock.lock_file).unlink()
            for folder in made:
                folder.rmdir()
        raise
    finally:
        lock.release()


def _download(published: PublishedFile, file: Path) -> None:
    partial = file.with_name(f".{file.name}.partial")
    while True:
        begun = partial.exists()
        _receive_all(published, file, partial)
        try:
            _check(published, partial)
        except _WrongChecksumError:
            partial.unlink()
            if begun:
                continue  # what was begun may be of an older file at this address: once more, from its start
            raise
        partial.replace(file)
        return


def _receive_all(published: PublishedFile, file: Path, partial: Path) -> None:
    """Receive what the partial file lacks, however often the connection breaks off on the way."""
    for tries in range(1, TRIES + 1):
        before = _size(partial)
        try:
            _receive(published, file, partial)
            return
        except _BrokenOffError:
            if tries == TRIES or _size(partial) <= before:
                raise


def _receive(published: PublishedFile, file: Path, partial: Path) -> None:
    """Append to the partial file what follows it, over one connection."""
    there = _size(partial)
    asked = {"User-Agent": f"residual/{__version__}"} | ({"Range": f"bytes={there}-"} if there else {})
    try:
        answer = urlopen(Request(published.url, headers=asked), timeout=PATIENCE)
    except HTTPError as error:
        if not there or error.code != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        return  # there is nothing after it; the checksum tells whether it is the file
    with answer:
        if answer.status != HTTPStatus.PARTIAL_CONTENT:
            there = 0  # this server sends all of it
        length = answer.headers.get("Content-Length")
        total = there + int(length) if length else None
        free = shutil.disk_usage(partial.parent).free
        if total and total - there > free:
            reason = f"it takes {_mega(total - there)} and {_mega(free)} are free"
            raise OSError(errno.ENOSPC, reason)
        size = f" ({_mega(total)})" if total else ""
        on = f", from {_mega(there)} on" if there else ""
        say(f"downloading {published.what}{size} from {published.url} to {file}{on}", stderr=True)
        done = there
        with partial.open("ab" if there else "wb") as output, download_progress() as progress:
            task = progress.add_task("", total=total, completed=there)
            for piece in _pieces(answer):
                output.write(piece)
                done += len(piece)
                progress.update(task, completed=done)
    if total and done < total:
        raise _BrokenOffError(f"the connection broke off after {done:,} of {total:,} bytes, which are kept")


def _pieces(answer: HTTPResponse) -> Iterator[bytes]:
    """Yield what a server sends, until it ends or the connection does.

    A connection that is closed early may as well read like the end of the file. And it raises what a disk
    does, as "no route to host".
    """
    while True:
        try:
            piece = answer.read(PIECE)
        except (OSError, HTTPException):
            return
        if not piece:
            return
        yield piece


def matches(published: PublishedFile, file: Path) -> bool:
    """Whether a file that is there is the published one, by its checksum."""
    try:
        _check(published, file)
    except _WrongChecksumError:
        return False
    return True


def _check(published: PublishedFile, file: Path) -> None:
    with file.open("rb") as content:
        found = hashlib.file_digest(content, published.algorithm).hexdigest()
    if not found.startswith(published.checksum):
        name = published.algorithm.upper().replace("SHA", "SHA-")
        raise _WrongChecksumError(
            f"expected the {name} {published.checksum}, found {found} of {_size(file):,} bytes"
        )


def _check_by_hand(published: PublishedFile, file: Path) -> None:
    try:
        _check(published, file)
    except _WrongChecksumError as error:
        raise InputError(
            f"{file} is not {published.what}: {error}; remove it, or get it anew from {published.url}"
        ) from None


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _mega(size: int) -> str:
    return f"{size / 1e6:,.0f} MB" if size >= 1e7 else f"{size / 1e6:,.1f} MB"
