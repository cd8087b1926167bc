"""Table 6's rivals, trained beside a ResNet, and what all of them cost."""

import json
import re
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from conftest import Call, set_options, shrink_rivals

from residual.analysis.complexity import complexity
from residual.models import build_model
from residual.reproduce import rivals
from residual.reproduce.table6 import RIVALS

SETTINGS = ["data.dataset=digits", "data.pad=0", "data.flip=false", "batch.size=64"]
SET = set_options([*SETTINGS, "schedule.iterations=4", "evaluate_every=2"])


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, call: Call) -> Path:
    """All of it on digits, in four iterations of narrow networks."""
    out = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        shrink_rivals(patch)
        # Which leaves a plain network there.
        assert call("reproduce", "figure6", "--depths", "20", *SET, "--out", out) == 0
        assert call("reproduce", "table6", "--depths", "20", "--rivals", *SET, "--out", out) == 0
    return out


def rows_of(study: Path, name: str) -> dict[str, dict[str, Any]]:
    return {row["network"]: row for row in json.loads((study / f"{name}.json").read_text())["rows"]}


def texts_of(study: Path) -> list[str]:
    tree = ET.parse(study / "rivals.svg")
    return [element.text or "" for element in tree.iter("{http://www.w3.org/2000/svg}text")]


def test_every_rival_has_a_row_of_its_own_runs(study: Path) -> None:
    rows = rows_of(study, "table6")
    assert {*RIVALS, "plain20", "resnet20"} == rows.keys()
    for network in RIVALS:
        results = json.loads((study / f"cifar10-{network}" / "seed0" / "results.json").read_text())
        assert rows[network]["errors"] == {"0": results["test"]["top1_error"]}
    # What was published of FitNet is of the one that was taught.
    assert rows["fitnet19-hints"]["published"]["error"] == "8.39"
    assert rows["fitnet19"]["published"] is None
    assert rows["nin"]["published"]["error"] == "8.81"
    text = (study / "table6.md").read_text()
    assert "| FitNet, no hints | 19 |" in text
    assert "quoted" not in text


def test_the_teacher_is_the_studys_own(study: Path) -> None:
    recipe = (study / "cifar10-fitnet19-hints" / "seed0" / "recipe.yaml").read_text()
    assert f"teacher: {study / 'cifar10-maxout' / 'seed0'}" in recipe
    # That is no departure: only what --set has changed is.
    departures = json.loads((study / "table6.json").read_text())["departures"]
    assert not any("teacher" in one for one in departures)
    assert "schedule.iterations: 64000 -> 4" in departures


def test_a_study_that_was_moved_goes_on(
    study: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runs that were taught by the study's own were begun with what it was called then."""
    shrink_rivals(monkeypatch)
    monkeypatch.setattr(rivals, "seconds_of", lambda model: 0.001)
    moved = tmp_path / "moved"
    shutil.copytree(study, moved)
    hints = moved / "cifar10-fitnet19-hints" / "seed0"
    (hints / "results.json").unlink()
    assert call("reproduce", "table6", "--depths", "20", "--rivals", *SET, "--out", moved) == 0
    assert (hints / "results.json").is_file()
    assert f"teacher: {study}" in (hints / "recipe.yaml").read_text()


def test_costs_are_counted_and_timed(study: Path) -> None:
    rows = rows_of(study, "rivals")
    assert rows.keys() == rows_of(study, "table6").keys()
    counted = complexity(build_model("cifar_resnet20"), (3, 32, 32))
    assert rows["resnet20"]["parameters"] == counted.parameters == 269_722
    assert rows["resnet20"]["multiply_adds"] == counted.multiply_adds
    assert rows["fitnet19"]["parameters"] == rows["fitnet19-hints"]["parameters"]
    assert all(0 < row["seconds"] < 60 for row in rows.values())
    text = (study / "rivals.md").read_text()
    assert "Not the paper's experiment, so not comparable" in text
    errors = {row["network"]: f"{row['mean']:.2f}" for row in rows.values()}
    assert re.search(rf"\| FitNet-19, no hints .* {errors['fitnet19']} \|", text)
    assert re.search(rf"\| FitNet-19 .* {errors['fitnet19-hints']} \|", text)


def test_who_only_looks_measures_nothing_anew(
    study: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine, say: the times are those of where and when they were measured."""
    monkeypatch.setattr(rivals, "seconds_of", lambda model: 99.0)
    seen = tmp_path / "seen"
    shutil.copytree(study, seen)
    before = (seen / "rivals.md").read_text(), json.loads((seen / "rivals.json").read_text())
    look = ("reproduce", "table6", "--depths", "20", "--rivals", "--no-train", "--out", seen)
    assert call(*look) == 0
    assert ((seen / "rivals.md").read_text(), json.loads((seen / "rivals.json").read_text())) == before
    # One that was not there is measured, and all others with it.
    kept = before[1] | {"rows": before[1]["rows"][1:]}
    (seen / "rivals.json").write_text(json.dumps(kept))
    assert call(*look) == 0
    assert {row["seconds"] for row in rows_of(seen, "rivals").values()} == {99.0}


def test_the_figure_shows_what_was_run_and_how_long(study: Path) -> None:
    texts = texts_of(study)
    assert "test error (%) after 4 iterations" in texts
    # FitNet by itself is the one that was taught, as in Table 6.
    labels = {"ResNet-20", "plain-20", "NIN", "DSN", "Maxout", "Highway-32"}
    labels |= {"FitNet-19", "FitNet-19, no hints"}
    axes = {"parameters (million)", "multiply-adds of an image (million)", "time of an image (ms)"}
    assert labels | axes <= set(texts)
    # Four iterations are not to be seen beside published errors.
    assert "measured here" in texts
    assert "published" not in texts
    # And what its colours are.
    assert {"residual networks", "others"} <= set(texts)


def test_without_runs_published_errors_are_shown(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rivals, "seconds_of", lambda model: 0.001)
    arguments = ("--depths", "20", "--rivals", "--no-train", "--out", tmp_path)
    assert call("reproduce", "table6", *arguments) == 0
    texts = texts_of(tmp_path)
    assert "published" in texts
    assert "measured here" not in texts
    assert "test error (%)" in texts
    rows = rows_of(tmp_path, "rivals")
    assert rows["nin"]["parameters"] == 966_986
    assert rows["nin"]["mean"] is None
