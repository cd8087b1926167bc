"""Minutes-long."""

import json
from pathlib import Path

import pytest

from residual.reproduce.degradation import RUNS, Verdict, reproduce

pytestmark = pytest.mark.slow


def test_the_demo_shows_degradation_and_its_cure(tmp_path: Path) -> None:
    reproduce(tmp_path, seed=0, settings=[], device="cpu")
    results = {name: json.loads((tmp_path / name / "results.json").read_text()) for name in RUNS}
    verdict = Verdict(**{name: result["train"]["top1_error"] for name, result in results.items()})
    assert verdict.degrades
    assert verdict.cured
    # Far above and far below, not by a hair.
    assert verdict.plain56 > 30
    assert verdict.resnet56 < 3
