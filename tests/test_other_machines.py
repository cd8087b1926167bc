"""Machines that are not Linux: what only Linux and glibc have is taken away, and everything works."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, TINY, environment, results_of, smooth_image

#: A stranger's machine: no fcntl, no affinity of processes, a C library without the calls for its memory.
TAKEN_AWAY = """
import ctypes, os, signal, sys, warnings

sys.modules["fcntl"] = None
del os.sched_getaffinity
CDLL = ctypes.CDLL
ctypes.CDLL = lambda name, *more, **named: CDLL(name, *more, **named) if name else object()
# What locks where the system has none, says so.
warnings.filterwarnings("ignore", message="only soft file lock")

from residual.cli import main
from residual.training import loop

def residual(*arguments):
    sys.argv = ["residual", *arguments]
    try:
        main()
    except SystemExit as end:
        return end.code or 0
    return 0

def stop_after_it(*arguments):
    loop.save_checkpoint = save
    signal.raise_signal(signal.SIGINT)
    return save(*arguments)

save, loop.save_checkpoint = loop.save_checkpoint, stop_after_it
train, (image,) = sys.argv[2:], sys.argv[1:2]
assert residual("train", *train, "--out", "run") == 128 + signal.SIGINT
assert not os.path.exists("run/results.json")
assert residual("train", "--resume", "--out", "run") == 0
assert residual("predict", "run", image, "--device", "cpu") == 0
"""


@pytest.mark.long
def test_trains_resumes_and_predicts_without_what_only_linux_has(tmp_path: Path) -> None:
    image = tmp_path / "image.png"
    smooth_image().save(image)
    done = subprocess.run(
        [sys.executable, "-c", TAKEN_AWAY, image.name, *TINY, "--set", "schedule.iterations=30"],
        cwd=tmp_path,
        env=environment() | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "stopped at iteration 25" in done.stderr
    assert "continuing at iteration 25" in done.stderr
    assert results_of(tmp_path / "run")["iterations"] == 30
    assert "image.png" in done.stdout


#: Calls that read or write text: their encoding is the system's where none is named.
TEXT_CALLS = {"read_text", "write_text"}


@pytest.mark.parametrize(
    "path", sorted((ROOT / "residual").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT))
)
def test_text_has_the_same_encoding_on_every_system(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        named = {keyword.arg for keyword in node.keywords}
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        # A function of our own, read_text(path) of files.py, is called by its name alone.
        if called in TEXT_CALLS and isinstance(node.func, ast.Attribute):
            assert "encoding" in named, f"{path}:{node.lineno}"
        if called == "open":
            words = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            if any(word in ("r", "w", "a", "rt", "wt", "at") for word in words):
                assert "encoding" in named, f"{path}:{node.lineno}"
        if "text" in named or "universal_newlines" in named:
            assert "encoding" in named, f"{path}:{node.lineno}"
