"""The run folder's files are checked as they are read."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import CPU, TINY, Call, Refused, sentence_of

from residual.environment import describe
from residual.recipes import find
from residual.training.folder import RunFolder, read_metrics, remembered_data_dir

LINE = {
    "iteration": 3,
    "learning_rate": 0.1,
    "train": {"loss": 1.0},
    "test": {"top1_error": 5.0},
    "seconds": 1.0,
}


def write_lines(file: Path, *lines: str) -> Path:
    file.write_text("".join(lines))
    return file


def test_a_damaged_line_is_named_and_half_a_line_is_none(tmp_path: Path) -> None:
    line = json.dumps(LINE) + "\n"
    file = write_lines(tmp_path / "metrics.jsonl", line, line, line[:20])
    assert read_metrics(file) == [LINE, LINE]
    for bad, reason in (
        ("{]\n", "Expecting property name"),
        ("[1]\n", "Input should be a valid dictionary"),
        (line.replace("3", "-3"), "iteration: Input should be greater than or equal to 0"),
        (line.replace("0.1", "1e999"), "1e999 is too large a number"),
        ("\n", "Expecting value"),
    ):
        said = sentence_of(lambda: read_metrics(write_lines(file, line, bad, line)))  # noqa: B023
        assert said.startswith(f"{file} is damaged (line 2: {reason}")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([], "List should have at least 1 item"),
        ({}, "Input should be a valid list"),
        ([1], "0: Input should be a valid dictionary"),
        ([{"data_dir": 5}], "0.data_dir: Input should be a valid string"),
        ([{"data": "x"}], "0.data: Input should be a valid dictionary"),
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
    folder.add_session(describe(CPU, 1) | {"data": {"classes": 3}, "data_dir": None, "started_from": None})
    assert folder.sessions()[0]["threads"] == 1


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
