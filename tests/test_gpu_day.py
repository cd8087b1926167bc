"""The table that a day with a GPU ends with (benchmarks/gpu_day.py)."""

import json
import runpy
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from conftest import CPU, ROOT, environment

from residual.environment import describe
from residual.recipes import find, override


def write_run(path: Path, network: str, seconds: float, error: float, iterations: int = 64_000) -> None:
    """Write what a complete run leaves, without its weights."""
    path.mkdir(parents=True)
    recipe = override(find(f"cifar10-{network}"), [f"schedule.iterations={iterations}"])
    (path / "recipe.yaml").write_text(recipe.to_yaml())
    errors = {"top1_error": error, "top5_error": 1.0, "loss": 0.5, "images": 10_000}
    results = {"recipe": recipe.name, "iterations": iterations, "seconds": seconds, "parameters": 1}
    results |= {"train": errors, "validation": None, "test": errors}
    (path / "results.json").write_text(json.dumps(results))
    line = {"iteration": iterations, "learning_rate": 0.001, "train": errors, "test": errors}
    (path / "metrics.jsonl").write_text(json.dumps(line | {"seconds": seconds}) + "\n")
    session = describe(CPU, 1) | {"iteration": 0, "departures": []}
    (path / "environment.json").write_text(json.dumps([session]))


@pytest.mark.long
def test_what_was_reached_stands_beside_what_was_wanted(tmp_path: Path) -> None:
    study = tmp_path / "study"
    write_run(study / "cifar10-resnet20" / "seed0", "resnet20", 75.0, 8.5)
    write_run(study / "cifar10-resnet56" / "seed0", "resnet56", 140.0, 7.1)
    write_run(study / "cifar10-plain20" / "seed0", "plain20", 10.0, 80.0, iterations=4000)
    (tmp_path / "tests.log").write_text(".\n1 passed, 500 deselected in 9.00s\n")
    (tmp_path / "train-20.json").write_text(json.dumps({"checks": {"ResNet-20: fast (1.2)": False}}))
    done = subprocess.run(
        [sys.executable, "benchmarks/gpu_day.py", str(tmp_path), str(study)],
        cwd=ROOT,
        env=environment() | {"COLUMNS": "160"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in done.stdout.splitlines()]
    expected = [
        ["tests marked gpu", "1 passed, 500 deselected in 9.00s", "all pass", "yes"],
        ["train-20, ResNet-20: fast (1.2)", "", "", "NO"],
        ["benchmark testing", "not run", "", ""],
        ["benchmark combo", "not run", "", ""],
        ["ResNet-20, training", "75 s for 64,000 iterations", "60 s", "NO"],
        ["ResNet-20, test error", "8.50 %", "8.75 % (paper)", ""],
        ["ResNet-56, training", "140 s for 64,000 iterations", "150 s", "yes"],
        ["plain-20, training", "10 s for 4,000 iterations", "", ""],
        ["resnet110, a whole run", "not run, or not complete", "", ""],
    ]
    for row in expected:
        assert row in rows


@pytest.mark.parametrize(
    ("last", "verdict"),
    [
        ("3 passed, 500 deselected in 9.00s", "yes"),
        ("1 failed, 2 passed in 9.00s", "NO"),
        ("2 passed, 1 error in 9.00s", "NO"),
        ("tests/training/test_iteration.py ..", "NO"),
    ],
)
def test_tests_that_did_not_end_well_are_told(
    last: str, verdict: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    (tmp_path / "tests.log").write_text(f"..\n{last}\n")
    rows_of = runpy.run_path(str(ROOT / "benchmarks" / "gpu_day.py"))["rows_of"]
    assert next(rows_of(tmp_path, tmp_path / "study")) == ("tests marked gpu", last, "all pass", verdict)


def part(number: str, out: Path, **more: str) -> "subprocess.CompletedProcess[str]":
    """Do a part of the day on a CPU, for a few iterations."""
    return subprocess.run(
        ["bash", "benchmarks/gpu_day.sh", number],
        cwd=ROOT,
        env=environment() | {"REHEARSE": "1", "OUT": str(out), "PYTHON": sys.executable} | more,
        capture_output=True,
        text=True,
    )


@pytest.fixture
def only_one_fails(tmp_path: Path) -> str:
    """What takes Python's place in the day's steps: the first benchmark fails, all else is done at once."""
    file = tmp_path / "python"
    file.write_text(
        '#!/bin/sh\ncase "$*" in *eager*) ;; *train_gpu.py*usual*) echo it is broken; exit 3;; esac\n'
    )
    file.chmod(0o755)
    return str(file)


def test_a_step_that_fails_keeps_no_other_from_being_measured(only_one_fails: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = part("1", out, PYTHON=only_one_fails)
    assert done.returncode == 1
    assert done.stderr == f"gpu_day: train-20: ended with 3; see {out}/train-20.log\n"
    assert (out / "train-20.log").read_text().endswith("\nit is broken\n")
    with tarfile.open(out / "gpu-day.tar.gz") as brought:
        names = {Path(name).name for name in brought.getnames()}
    assert {"train-20.log", "detection-inference.log", "testing.log", "combo.log", "table.txt"} <= names


def test_no_step_is_begun_that_there_is_no_time_for(only_one_fails: str, tmp_path: Path) -> None:
    done = part("2", tmp_path / "out", PYTHON=only_one_fails, MINUTES="0")
    assert done.returncode == 1
    said = done.stderr.splitlines()
    assert said[:2] == ["gpu_day: resnet20: no time for it", "gpu_day: resnet56: no time for it"]
    assert not list((tmp_path / "out").glob("*.log"))


@pytest.mark.slow
def test_all_of_the_day_can_be_rehearsed(tmp_path: Path) -> None:
    """On a CPU and for a few iterations, as somebody does before renting a machine."""
    for number in "12":
        done = part(number, tmp_path, MINUTES="60")
        assert done.returncode == 0, done.stderr
    there = {path.name for path in tmp_path.iterdir()}
    assert {f"{name}.json" for name in ("train-20", "combo", "testing", "detection-inference")} <= there
    with tarfile.open(tmp_path / "gpu-day.tar.gz") as brought:
        names = {name.removeprefix("./") for name in brought.getnames()}
    assert {"table.txt", "train-20.log", "cifar10-tf32/cifar10-resnet20/seed0/results.json"} <= names
    assert not any("checkpoint-" in name for name in names)
