"""Minutes-long checks, run by hand: ``CIFAR10_DIR=folder make test-slow``."""

import json
import os
from pathlib import Path

import pytest

from residual.data import load_dataset
from residual.recipes import RECIPES, override
from residual.reproduce.degradation import RUNS, Verdict, reproduce
from residual.run import evaluate_weights, train

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent


@pytest.fixture
def cifar10() -> Path:
    folder = os.environ.get("CIFAR10_DIR")
    if not folder:
        pytest.skip("CIFAR10_DIR does not name a folder with CIFAR-10")
    return Path(folder)


def test_the_demo_shows_degradation_and_its_cure(tmp_path: Path) -> None:
    reproduce(tmp_path, seed=0, settings=[], device="cpu")
    results = {name: json.loads((tmp_path / name / "results.json").read_text()) for name in RUNS}
    verdict = Verdict(**{name: result["train"]["top1_error"] for name, result in results.items()})
    assert verdict.degrades
    assert verdict.cured
    # Far above and far below, not by a hair.
    assert verdict.plain56 > 30
    assert verdict.resnet56 < 3


def test_cifar10_is_the_published_set(cifar10: Path) -> None:
    images = load_dataset("cifar10", "train", cifar10).images
    means = images.double().mean(dim=(0, 2, 3)) / 255
    assert means.tolist() == pytest.approx([0.4914, 0.4822, 0.4465], abs=5e-5)


def test_committed_weights_have_the_recorded_error(cifar10: Path) -> None:
    run = ROOT / "results" / "cifar10" / "resnet20-4000-iterations"
    recorded = json.loads((run / "results.json").read_text())["test"]
    _, measured = evaluate_weights(run, None, "test", cifar10)
    assert measured.images == recorded["images"] == 10_000
    # A score that two processors round apart may change a picture's class.
    assert measured.top1_error == pytest.approx(recorded["top1_error"], abs=0.05)


def test_shortened_resnet20_reaches_17_percent(cifar10: Path, tmp_path: Path) -> None:
    recipe = override(RECIPES["cifar10-resnet20"], ["schedule.iterations=4000"])
    assert train(recipe, tmp_path / "run", data_dir=cifar10)["test"]["top1_error"] < 17
