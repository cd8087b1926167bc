"""The trials of one's own boxes (benchmarks/own_boxes.sh), small."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import BEGUN, ROOT, environment, results_of, save_network
from shapes import write_shapes

SCRIPT = ROOT / "benchmarks" / "own_boxes.sh"
CHANGES = ("as-it-is", "large-anchors", "roi-pooling", "one-scale", "no-warmup", "none-of-them")
#: Begun detectors; what the trials are about is left to them.
SETTINGS = [
    setting
    for setting in BEGUN
    if not setting.startswith(
        ("name=", "detector.backbone", "detector.anchor", "data.scale", "schedule.warm")
    )
]


def run(*arguments: str | Path, out: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [SCRIPT, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment() | {"OUT": str(out), "PYTHON": sys.executable, "SEEDS": "2"},
    )


def test_it_says_what_it_takes(tmp_path: Path) -> None:
    for arguments in ((), ("changes", "data"), ("other", "data", "weights")):
        told = run(*arguments, out=tmp_path)
        assert told.returncode == 2
        assert "benchmarks/own_boxes.sh changes DATA WEIGHTS" in told.stdout


@pytest.mark.slow
def test_every_trial_runs_and_what_is_there_is_left_alone(tmp_path: Path) -> None:
    data = write_shapes(tmp_path / "data", train=12, test=4)
    weights, out = save_network(tmp_path / "weights"), tmp_path / "out"
    settings = [*SETTINGS, "schedule.iterations=2", "evaluate_every=2"]
    # Large enough for an anchor of 128 pixels.
    small = ["data.shorter_side=160", "data.longer_side=160", "detector.anchor_sizes=[40,60]"]
    small += ["schedule.warmup={learning_rate: 0.001, iterations: 1}"]
    assert (told := run("changes", data, weights, *settings, *small, out=out)).returncode == 0, told.stderr
    assert sorted(path.name for path in (out / "changes").iterdir()) == sorted(CHANGES)
    assert all(results_of(out / "changes" / name)["validation"]["images"] == 3 for name in CHANGES)
    assert (told := run("scratch", data, "cifar_resnet8", *settings, *small, out=out)).returncode == 0
    assert (out / "changes" / "from-scratch" / "results.json").exists()
    assert "from-scratch" in told.stdout
    (out / "changes").rename(out / "more")
    (out / "changes").mkdir()
    (out / "more" / "from-scratch").rename(out / "changes" / "from-scratch")
    # One run alone is compared with none.
    assert run("scratch", data, "cifar_resnet8", *settings, *small, out=out).returncode == 0
    for _ in range(2):
        assert (told := run("seeds", data, weights, *settings, *small, out=out)).returncode == 0, told.stderr
    assert "seed" in told.stdout
    for name in ("plain", "refine", "scales", "refine-scales", "ensemble"):
        assert json.loads((out / "seeds" / f"{name}.json").read_text())["images"] == 4
    # By the side that the settings name.
    assert json.loads((out / "seeds" / "scales.json").read_text())["scales"] == [128, 160, 213]
    assert (out / "changes.html").exists()
    assert (out / "seeds.html").exists()
