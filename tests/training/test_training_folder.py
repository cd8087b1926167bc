"""The run folder's files are checked as they are read."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import CPU, TINY, Call, Refused, sentence_of

from residual.data.folder import index_folder
from residual.environment import describe
from residual.errors import InputError
from residual.recipes import find
from residual.run.run import _tell
from residual.training.folder import (
    AnyLine,
    ClassifierLine,
    DetectorLine,
    LocalizerLine,
    RunFolder,
    lines_of,
    recorded_split,
    remembered_data_dir,
)

LINE: dict[str, Any] = {
    "iteration": 3,
    "learning_rate": 0.1,
    "train": {"loss": 1.0, "top1_error": 7.5},
    "test": {"loss": 1.5, "top1_error": 5.0},
    "seconds": 1.0,
}
SESSION = describe(CPU, 1) | {"iteration": 0, "departures": []}


def write_lines(file: Path, *lines: str) -> Path:
    file.write_text("".join(lines))
    return file


def test_a_damaged_line_is_named_and_half_a_line_is_none(tmp_path: Path) -> None:
    line = json.dumps(LINE) + "\n"
    file = write_lines(tmp_path / "metrics.jsonl", line, line, line[:20])
    assert lines_of(file, ClassifierLine) == [LINE, LINE]
    for bad, reason in (
        ("{]\n", "Expecting property name"),
        ("[1]\n", "Input should be a valid dictionary"),
        (line.replace("3", "-3"), "iteration: Input should be greater than or equal to 0"),
        (line.replace("0.1", "1e999"), "1e999 is too large a number"),
        ("\n", "Expecting value"),
    ):
        said = sentence_of(lambda: lines_of(write_lines(file, line, bad, line), ClassifierLine))  # noqa: B023
        assert said.startswith(f"{file} is damaged (line 2: {reason}")


@pytest.mark.parametrize(
    ("shape", "test"),
    [
        (ClassifierLine, LINE["test"]),
        (DetectorLine, {"ap50": None, "images": 2}),
        (LocalizerLine, {"localization_error": 50.0, "images": 2}),
    ],
)
def test_what_a_line_lacks_is_named(shape: type[AnyLine], test: dict[str, Any], tmp_path: Path) -> None:
    line, file = LINE | {"test": test}, tmp_path / "metrics.jsonl"
    lacking = [(line, key) for key in ("iteration", "learning_rate", "train", "test", "seconds")]
    lacking += [(line[part], key) for part in ("train", "test") for key in line[part]]
    for holder, key in lacking:
        if shape is not ClassifierLine and holder is line["train"] and key != "loss":
            continue
        kept = holder.pop(key)
        bad = json.dumps(line)
        holder[key] = kept
        write_lines(file, json.dumps(line) + "\n", bad + "\n")
        said = sentence_of(lambda: lines_of(file, shape))
        part = "" if holder is line else "train." if holder is line["train"] else "test."
        assert said.startswith(
            f"{file} is damaged (line 2: {part}{key}: Field required); it is not made again"
        )


def test_all_lines_of_a_log_are_about_one_split(tmp_path: Path) -> None:
    chosen = {"validation" if key == "test" else key: value for key, value in LINE.items()}
    file = write_lines(tmp_path / "metrics.jsonl", json.dumps(chosen) + "\n", json.dumps(LINE) + "\n")
    assert "(line 2: validation: Field required)" in sentence_of(lambda: lines_of(file, ClassifierLine))


def test_a_line_is_on_the_disk_before_a_checkpoint_that_comes_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the power fails a resumed run would lack a line, or find one of zeros."""
    folder, flushed = RunFolder(tmp_path), []
    monkeypatch.setattr("os.fsync", lambda file: flushed.append(os.fstat(file).st_size))
    for _ in range(2):
        folder.add_metrics(LINE)
    line = len(json.dumps(LINE)) + 1
    assert flushed == [line, 2 * line]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([], "List should have at least 1 item"),
        ({}, "Input should be a valid list"),
        ([1], "0: Input should be a valid dictionary"),
        ([{"data_dir": 5}], "0.data_dir: Input should be a valid string"),
        ([{"data": "x"}], "0.data: Input should be a valid dictionary"),
        ([{key: value for key, value in SESSION.items() if key != "device"}], "0.device: Field required"),
        ([SESSION, SESSION | {"threads": None}], "1.threads: Input should be a valid integer"),
    ],
)
def test_a_damaged_environment_is_named(content: Any, reason: str, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.recipe_file.write_text(find("digits-resnet20").to_yaml())
    folder.environment_file.write_text(json.dumps(content))
    for use in (lambda: remembered_data_dir(tmp_path), folder.sessions):
        assert sentence_of(use).startswith(f"{folder.environment_file} is damaged ({reason}")


def test_files_beside_a_weights_folder_may_be_of_others(tmp_path: Path) -> None:
    (tmp_path / "environment.json").write_text("[]")
    assert remembered_data_dir(tmp_path / "weights") is None


def test_damaged_files_of_a_run_are_sentences_of_the_command(
    tmp_path: Path, call: Call, refused: Refused
) -> None:
    out = tmp_path / "run"
    assert call("train", *TINY, "--set", "schedule.iterations=12", "--out", out) == 0
    again = ("train", "--resume", "--out", out)
    for file, contents in (
        ("results.json", ("{}", "[1]", '{"recipe": "x"}', "")),
        ("environment.json", ("[]", "[1]", "{}", "[" * 9999)),
        ("weights/config.json", ("{}", "[1]", "1e999", '{"format": "residual weights"}')),
        ("recipe.yaml", ("[" * 5000, "seed: 2026-13-45", "a: 1" + "0" * 5000, "x: &a [*a]", "seed: 1e999")),
    ):
        path = out / file
        whole = path.read_bytes()
        if file == "environment.json":
            (out / "results.json").rename(tmp_path / "results.json")
        for content in contents:
            path.write_text(content)
            command = ("evaluate", out) if file.startswith("weights") else again
            assert str(path) in refused(*command)
        path.write_bytes(whole)
        if file == "environment.json":
            (tmp_path / "results.json").rename(out / "results.json")


def test_what_describes_a_session_has_what_is_read_of_it(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.add_session(SESSION | {"data": {"classes": 3}, "data_dir": None, "started_from": None})
    assert folder.sessions()[0]["threads"] == 1


def test_a_session_does_not_tell_whose_home_the_data_lie_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a run folder can be given away, and whoever has the data at the same place need not name it."""
    ann, bob, folder = tmp_path / "ann", tmp_path / "bob", RunFolder(tmp_path / "run")
    monkeypatch.setenv("HOME", str(ann))
    folder.path.mkdir()
    folder.recipe_file.write_text(find("digits-resnet20").to_yaml())
    typed = {"command": f"residual train --data-dir {ann}/data", "data_dir": f"{ann}/data", "data": {}}
    folder.add_session(SESSION | typed)
    assert str(ann) not in folder.environment_file.read_text()
    assert folder.sessions()[0]["command"] == "residual train --data-dir ~/data"
    for home in (ann, bob):
        monkeypatch.setenv("HOME", str(home))
        assert remembered_data_dir(folder.path) is None
        (home / "data").mkdir(parents=True)
        assert remembered_data_dir(folder.path) == home / "data"


@pytest.mark.long
def test_weights_that_a_killed_process_was_writing_are_removed_when_the_run_goes_on(tmp_path: Path) -> None:
    """They are as large as the network; what belongs to nobody's kill stays."""
    recipe = find("digits-resnet20")
    program = """
import os, signal, sys
from pathlib import Path
from residual.files import written_whole
from residual.training.folder import RunFolder

def save(path):
    with written_whole(path) as temporary:
        temporary.mkdir()
        (temporary / "model.safetensors").write_bytes(b"large")
        os.kill(os.getpid(), signal.SIGKILL)

folder = RunFolder(Path(sys.argv[1]))
save(folder.weights) if sys.argv[2] == "weights" else folder.replace_best(save)
"""
    folder = RunFolder(tmp_path)
    folder.open(recipe, resume=False)
    folder.close()
    for what in ("weights", "best"):
        done = subprocess.run([sys.executable, "-c", program, str(tmp_path), what], timeout=60)
        assert done.returncode == -signal.SIGKILL
    (tmp_path / "best").mkdir()
    (tmp_path / ".mine.7.new").mkdir()
    assert len(list(tmp_path.glob("*/model.safetensors"))) == 2
    folder.open(recipe, resume=True)
    folder.close()
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"best", ".mine.7.new"}


def test_a_kill_while_the_recipe_is_written_leaves_a_folder_to_begin_anew(tmp_path: Path) -> None:
    out, recipe = tmp_path / "run", find("digits-resnet20")
    folder = RunFolder(out)
    out.mkdir()
    left = [out / ".lock", out / ".recipe.4711.new.yaml"]
    for path in left:
        path.write_text("name: digi")
    assert folder.check(out, recipe, resume=False) == recipe
    assert "holds no run to resume" in sentence_of(lambda: folder.check(out, recipe, resume=True))
    folder.open(recipe, resume=False)
    folder.close()
    assert sorted(path.name for path in out.iterdir()) in (["recipe.yaml"], [".lock", "recipe.yaml"])
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / ".notes.txt").write_text("mine")
    assert "is not an empty folder" in sentence_of(lambda: folder.check(mine, recipe, resume=False))


def test_whatever_a_killed_process_was_writing_is_swept_by_the_next(tmp_path: Path) -> None:
    recipe, folder = find("digits-resnet20"), RunFolder(tmp_path / "run")
    folder.open(recipe, resume=False)
    folder.close()
    halves = ("checkpoint-0000025.7.new.safetensors", "environment.7.new.json", "metrics.7.new.jsonl")
    for name in (*halves, "report.7.new.html", "split.7.new.csv", "unreadable.7.new.txt"):
        (folder.path / f".{name}").write_text("half")
    kept = [folder.path / name for name in (".notes.new.txt", "notes.7.new.txt", ".notes.7.txt")]
    for path in kept:
        path.write_text("somebody's own")
    folder.open(recipe, resume=True)
    folder.close()
    left = {path for path in folder.path.iterdir() if path.name not in (".lock", "recipe.yaml")}
    assert left == set(kept)


def test_a_run_that_another_process_has_completed_meanwhile_is_left_alone(tmp_path: Path) -> None:
    """Reading the data has taken a while since it was looked whether there is anything to do."""
    recipe, first, second = find("digits-resnet20"), RunFolder(tmp_path), RunFolder(tmp_path)
    first.open(recipe, resume=False)
    first.finish({})
    first.close()
    assert "has completed this run meanwhile" in sentence_of(lambda: second.open(recipe, resume=True))
    # Whoever is refused keeps nobody out, also where an error is kept, as in a notebook.
    with first._lock:
        pass


def test_a_changed_recipe_is_another_run(tmp_path: Path) -> None:
    """One character of the seed, and the rest of the run would be another one's; comments decide nothing."""
    recipe, folder = find("digits-resnet20"), RunFolder(tmp_path)
    folder.recipe_file.write_text(recipe.to_yaml())
    folder.add_session(SESSION)  # of an earlier version, which noted no checksum
    folder.add_session(SESSION | {"settings": folder.recipe_checksum()})
    assert folder.check(tmp_path, None, resume=True) == recipe
    said = recipe.to_yaml().replace("handwritten", "scribbled")
    folder.recipe_file.write_bytes(f"# my first run\n{said}".replace("\n", "\r\n").encode())
    assert folder.check(tmp_path, recipe, resume=True).seed == 0
    folder.recipe_file.write_text(recipe.to_yaml().replace("seed: 0", "seed: 1"))
    assert f"a value in {folder.recipe_file} was changed after the run was begun" in sentence_of(
        lambda: folder.check(tmp_path, None, resume=True)
    )


def test_a_split_keeps_names_of_any_letters(tmp_path: Path) -> None:
    """To a CSV file of Python before 3.13 a carriage return is no end of a line that needs quotes."""
    names = ["a\rb/1.png", "a\rb/2\n.png", 'c "d", e/3\r\n4.png', "f/\x1b[2J\u2028.png"]
    for name in names:
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / name).write_bytes(b"")
    index = index_folder(tmp_path / "images", "all")
    assert index.classes == ("a\\rb", 'c "d", e', "f")
    assert all(name.isprintable() for name in (*index.ids, *index.classes))
    run = RunFolder(tmp_path)
    run.recipe_file.write_text(find("digits-resnet20").to_yaml())
    run.write_split({"train": index.listed()[:1], "validation": index.listed()})
    found = recorded_split(tmp_path, tmp_path / "images", "validation")
    assert found is not None
    assert found.files == index.files == tuple(names)


def test_lists_of_faults_have_one_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _tell(["a\nb.png is damaged", "c\r.png is damaged"], "image{s} {were} left out", tmp_path / "list.txt")
    assert (tmp_path / "list.txt").read_text() == "a\\nb.png is damaged\nc\\r.png is damaged\n"
    assert capsys.readouterr().err.count("\n") == 1
    assert str(InputError("there is no file a\nb\x1b[2J")) == "there is no file a\\nb\\x1b[2J"


NO_SPLITS = ["", "image,class,split\na.png,ant\n", "image,class,split\na,b,c\n", "image,class,split\n"]


@pytest.mark.parametrize("content", NO_SPLITS)
def test_a_damaged_split_is_named(content: str, tmp_path: Path, images: Path) -> None:
    run = RunFolder(tmp_path)
    run.recipe_file.write_text(find("digits-resnet20").to_yaml())
    run.split_file.write_text(content)
    said = sentence_of(lambda: recorded_split(tmp_path, images / "train", "validation"))
    assert said.startswith(f"{run.split_file} is damaged (")
