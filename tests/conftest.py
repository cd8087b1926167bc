"""What several test files need: the command as a real process, and a run that takes seconds."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from residual.cli import main

#: A residual network of 8 layers on the digits: a whole run takes a second once PyTorch is loaded.
TINY = [
    "digits-resnet20",
    *("--set", "model.name=cifar_resnet8"),
    *("--set", "schedule.iterations=240"),
    *("--set", "evaluate_every=10"),
    *("--set", "checkpoint_every=25"),
]

Call = Callable[..., int]
Command = Callable[..., "subprocess.CompletedProcess[str]"]


def command_line(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "residual", *map(str, arguments)]


def environment() -> dict[str, str]:
    # One thread: several processes share the machine's cores in these tests.
    return os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "100"}


@pytest.fixture
def residual(tmp_path: Path) -> Command:
    """Run the command in a folder of its own and return what it printed."""

    def run(*arguments: str | Path, **options: Any) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            command_line(*arguments),
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environment(),
            timeout=300,
            **options,
        )

    return run


@pytest.fixture(scope="session")
def call() -> Call:
    """Run the command in this process and return its exit status; it prints where capsys sees it."""

    def run_main(*arguments: str | Path) -> int:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", ["residual", *map(str, arguments)])
            try:
                main()
            except SystemExit as exit:
                return int(exit.code or 0)
        return 0

    return run_main


def metrics_of(run: Path) -> list[dict[str, Any]]:
    """Return a run's metrics without what the clock says."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        del line["seconds"]
        for part in ("validation", "test"):
            line.get(part, {}).pop("images_per_second", None)
    return lines
