"""Files that we write and read back: whole or not at all, nothing overwritten, a sentence where it fails."""

import json
import math
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from conftest import sentence_of
from pydantic import BaseModel, ConfigDict
from safetensors.torch import save_file

from residual.errors import InputError
from residual.files import (
    as_json,
    cache_folder,
    cannot_write,
    check_new,
    damaged,
    first_line,
    keep,
    read_json,
    read_text,
    refuse_existing,
    remove_half_written,
    replace_file,
    strict_json,
    write_derived,
    write_new,
    written_whole,
)


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)


def everything_in(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# --- new files ---


def test_a_new_file_is_written_with_its_folders(tmp_path: Path) -> None:
    write_new(tmp_path / "a" / "b" / "text.txt", "grüße\n")
    write_new(tmp_path / "bytes.bin", b"\x00\xff")
    assert everything_in(tmp_path) == {"a/b/text.txt": "grüße\n".encode(), "bytes.bin": b"\x00\xff"}


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    (tmp_path / "folder").mkdir()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("file", "folder", "dangling"):
        path = tmp_path / name
        expected = f"{path} exists already and nothing is overwritten; name another one or remove it"
        assert sentence_of(lambda path=path: refuse_existing(path)) == expected
        assert sentence_of(lambda path=path: write_new(path, "new")) == expected
        assert sentence_of(lambda path=path: check_new(path, "a file", "")) == expected
    assert everything_in(tmp_path) == {"file": b"precious"}


def test_a_file_or_folder_appears_when_it_is_whole(tmp_path: Path) -> None:
    with written_whole(tmp_path / "new" / "a.safetensors") as temporary:
        # Beside it, so that renaming is atomic, and with its suffix, which tells the format.
        assert (temporary.parent, temporary.suffix) == (tmp_path / "new", ".safetensors")
        save_file({"a": torch.ones(1)}, temporary)
        assert not (tmp_path / "new" / "a.safetensors").exists()
    with written_whole(tmp_path / "folder") as temporary:
        temporary.mkdir()
        (temporary / "one").write_text("1")
        assert not (tmp_path / "folder").exists()
    assert sorted(everything_in(tmp_path)) == ["folder/one", "new/a.safetensors"]


@pytest.mark.parametrize("folder", [False, True])
def test_what_fails_on_the_way_leaves_nothing(tmp_path: Path, folder: bool) -> None:
    def half() -> None:
        with written_whole(tmp_path / "new") as temporary:
            if folder:
                temporary.mkdir()
            (temporary / "half" if folder else temporary).write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        half()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    expected = f"{tmp_path / 'a.txt'} cannot be written: No space left on device"
    assert sentence_of(lambda: write_new(tmp_path / "a.txt", "new")) == expected
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for write in (write_new, write_derived):
        said = sentence_of(lambda write=write: write(tmp_path / "file" / "a.txt", "new"))
        assert said.startswith(f"{tmp_path / 'file' / 'a.txt'} cannot be written: ")
    assert everything_in(tmp_path) == {"file": b""}


def test_a_wrong_name_is_said_before_hours_are_spent(tmp_path: Path) -> None:
    check_new(tmp_path / "a.PNG", "a figure", ".svg", ".png")
    assert (
        sentence_of(lambda: check_new(tmp_path / "a.pdf", "a figure", ".svg", ".png"))
        == f"{tmp_path}/a.pdf: a figure is a file that ends in .svg or .png; name it so"
    )
    said = sentence_of(lambda: check_new(tmp_path / "a.txt", "weights", ".pth", ".pt", ".safetensors"))
    assert "ends in .pth, .pt or .safetensors" in said
    assert "ends in .onnx;" in sentence_of(lambda: check_new(tmp_path / "a", "a network", ".onnx"))


def test_a_folder_that_is_misspelt_is_said_before_hours_are_spent(tmp_path: Path) -> None:
    assert (
        sentence_of(lambda: check_new(tmp_path / "outt" / "a.png", "a figure", ".png"))
        == f"there is no folder {tmp_path}/outt; make it, or name a file in another folder"
    )
    (tmp_path / "file").touch()
    said = sentence_of(lambda: check_new(tmp_path / "file" / "a.png", "a figure", ".png"))
    assert said.startswith(f"{tmp_path}/file is a file, not a folder; ")
    check_new(Path("a.png"), "a figure", ".png")


# --- files that are replaced ---


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    for content in ("old", "a longer new one", b""):
        replace_file(tmp_path / "in" / "file.json", content)
        expected = content if isinstance(content, bytes) else content.encode()
        assert everything_in(tmp_path) == {"in/file.json": expected}
    write_derived(tmp_path / "in" / "file.json", "derived")
    assert everything_in(tmp_path) == {"in/file.json": b"derived"}


@pytest.mark.usefixtures("full_disk")
def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match="No space"):
        replace_file(path, b"new")
    assert (
        sentence_of(lambda: write_derived(path, "new"))
        == f"{path} cannot be written: No space left on device"
    )
    # What only saves time may be lost.
    keep(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("moment", ["written_whole", "replace_file"])
def test_a_process_that_is_killed_half_way_leaves_the_old_file(tmp_path: Path, moment: str) -> None:
    """It is killed when the new content is on the disk, and before it has the file's name."""
    path = tmp_path / "checkpoint.safetensors"
    program = f"""
import os, signal, sys
from pathlib import Path
from residual import files

path = Path(sys.argv[1])
if "{moment}" == "replace_file":
    path.write_bytes(b"old")
os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
if "{moment}" == "replace_file":
    files.replace_file(path, b"new")
else:
    files.write_new(path, b"new")
"""
    done = subprocess.run([sys.executable, "-c", program, str(path)], timeout=60)
    assert done.returncode == -signal.SIGKILL
    left = everything_in(tmp_path)
    assert left.pop("checkpoint.safetensors", None) == (b"old" if moment == "replace_file" else None)
    # What it left is no file of ours by its name, and goes when the next process begins.
    (half,) = left
    assert half.startswith(".checkpoint.")
    remove_half_written(tmp_path)
    assert sorted(everything_in(tmp_path)) == (["checkpoint.safetensors"] if moment == "replace_file" else [])


# --- reading ---


def test_text_and_json_come_back(tmp_path: Path) -> None:
    value = {"name": "Grüße", "numbers": [1, 2.5, None]}
    write_new(tmp_path / "a.json", as_json(value))
    assert read_json(tmp_path / "a.json", dict) == value
    text = read_text(tmp_path / "a.json")
    assert text.endswith("}\n")
    assert "Grüße" in text


def test_files_that_cannot_be_read_are_said(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for read in (read_text, lambda path: read_json(path, dict)):
        assert sentence_of(lambda read=read: read(path)) == f"there is no file {path}"
        assert sentence_of(lambda read=read: read(tmp_path)) == f"{tmp_path} is a folder, not a file"
    for content in (b"\xff\xfe", b"{", b"", b"[" * 100_000):
        path.write_bytes(content)
        said = sentence_of(lambda: read_json(path, list, "train it again"))
        assert said.startswith(f"{path} is damaged (")
        assert said.endswith("); train it again")
    path.write_bytes(b"\xff\xfe")
    assert sentence_of(lambda: read_text(path)).endswith("; get it anew")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"n": 1e999}', "1e999 is too large a number"),
        ('{"n": 1' + "0" * 5000 + "}", "a whole number of 5,001 digits"),
        ('{"n": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
        ('{"n": NaN}', "n: Input should be a finite number"),
        ('{"n": "1"}', "n: Input should be a valid number"),
        ("{}", "n: Field required"),
        ("[1]", "Input should be a valid dictionary or instance of Shape"),
        ('{"n": 1', "Expecting ',' delimiter: line 1 column 8 (char 7)"),
    ],
)
def test_json_of_another_shape_is_named_by_its_place(content: str, reason: str, tmp_path: Path) -> None:
    class Shape(BaseModel):
        model_config = ConfigDict(allow_inf_nan=False)
        n: float

    path = tmp_path / "a.json"
    path.write_text(content)
    assert sentence_of(lambda: read_json(path, Shape)) == f"{path} is damaged ({reason}); get it anew"
    path.write_text('\ufeff{"n": 1, "more": 1e-400}')
    assert read_json(path, Shape) == {"n": 1, "more": 0.0}
    path.write_text('{"n": 1}', encoding="utf-16")
    assert "no UTF-8 text at byte 0" in sentence_of(lambda: read_json(path, Shape))


def test_no_more_is_read_than_a_text_of_ours_has(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.touch()
    os.truncate(path, 2**40)
    assert "1,099,511,627,776 bytes" in sentence_of(lambda: read_text(path))
    path.unlink()
    os.mkfifo(path)
    assert sentence_of(lambda: read_text(path)) == f"{path} is a device or a pipe, not a file"


def test_numbers_that_json_has_not(tmp_path: Path) -> None:
    assert json.loads(as_json({"loss": math.inf, "more": [math.nan, (1.5,)]})) == {
        "loss": None,
        "more": [None, [1.5]],
    }
    assert "no finite number" in sentence_of(lambda: strict_json({"loss": math.nan}))
    # Bytes of a name that are no UTF-8 come back.
    text = strict_json({"n": "caf\udce9 größe"})
    text.encode("utf-8")
    assert "größe" in text
    assert json.loads(text) == {"n": "caf\udce9 größe"}


def test_what_is_said_of_a_file() -> None:
    path = Path("a.json")
    assert str(damaged(path, "why")) == "a.json is damaged (why); get it anew"
    assert (
        str(damaged(path, "why", "do this", "scores"))
        == "a.json is damaged or no file of scores (why); do this"
    )
    assert (
        str(cannot_write(path, OSError(13, "Permission denied")))
        == "a.json cannot be written: Permission denied"
    )
    assert str(cannot_write(path, ValueError("odd\nand long"))) == "a.json cannot be written: odd"
    assert first_line(ValueError("\n  first\nsecond")) == "first"
    assert first_line(KeyError()) == "KeyError"
    assert len(first_line(ValueError("x" * 1000))) == 200


# --- the cache ---


def test_the_cache_folder_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "residual"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for unset in ("", None):
        if unset is None:
            monkeypatch.delenv("XDG_CACHE_HOME")
        else:
            monkeypatch.setenv("XDG_CACHE_HOME", unset)
        assert cache_folder() == tmp_path / "home" / ".cache" / "residual"
    monkeypatch.setenv("RESIDUAL_CACHE", "~/mine")
    assert cache_folder() == tmp_path / "home" / "mine"


def test_the_cache_folder_of_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("RESIDUAL_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", nowhere)
    assert cache_folder().parent == Path(tempfile.gettempdir())
    assert cache_folder().name.startswith("residual-")


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    keep(tmp_path / "file" / "a", b"content")
    keep(tmp_path / "new" / "a", b"content")
    assert everything_in(tmp_path) == {"file": b"", "new/a": b"content"}


def test_a_text_with_names_that_are_no_utf8_is_written_and_the_names_are_escaped(tmp_path: Path) -> None:
    file = tmp_path / "left-out.txt"
    replace_file(file, "caf\udce9 größe \ud83d\n")
    # Half a letter, as JSON can name it, leaves no way back to the bytes.
    assert file.read_bytes() == "caf\\udce9 größe \\ud83d\n".encode()
    write_derived(file, "caf\udce9 größe\n")
    assert file.read_bytes() == "caf\\xe9 größe\n".encode()
    assert str(InputError("no \ud83d")) == "no \\ud83d"
