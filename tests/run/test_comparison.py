"""Runs beside each other."""

import json
import shutil
import statistics
from pathlib import Path

import pytest
from conftest import Refused, Shown, metrics_of, results_of

from residual.run import page
from residual.run.comparison import compare


@pytest.fixture
def three(trained_on_images: Path, tmp_path: Path) -> list[Path]:
    """A run, its twin of another seed and another error, and one of another learning rate."""
    runs = [tmp_path / name for name in ("a", "b", "c")]
    for run in runs:
        shutil.copytree(trained_on_images, run, ignore=shutil.ignore_patterns("weights", "checkpoint*"))
    recipe = (runs[0] / "recipe.yaml").read_text()
    (runs[1] / "recipe.yaml").write_text(recipe.replace("\nseed: 0\n", "\nseed: 1\n"))
    (runs[2] / "recipe.yaml").write_text(recipe.replace("learning_rate: 0.02", "learning_rate: 0.5"))
    results = results_of(runs[1])
    results["validation"]["top1_error"] = 12.5
    (runs[1] / "results.json").write_text(json.dumps(results))
    return runs


def test_seeds_are_a_group_and_other_recipes_stand_beside_it(
    three: list[Path], shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = compare(three)
    assert [[member.path.name for member in group.members] for group in found.groups] == [["a", "b"], ["c"]]
    assert found.differences is not None
    assert [list(row.cells) for row in found.differences.rows] == [["schedule.learning_rate", "0.02", "0.5"]]
    errors = [results_of(run)["validation"]["top1_error"] for run in three]
    pair = f"{statistics.mean(errors[:2]):.2f} ± {statistics.stdev(errors[:2]):.2f}"
    place = list(found.reached.headings).index("validation error %")
    assert [row.cells[place] for row in found.reached.rows] == [pair, f"{errors[2]:.2f}"]
    seeds = list(found.reached.headings).index("seeds")
    assert [row.cells[seeds] for row in found.reached.rows] == ["2", "1"]
    # Nobody counts to one: the column is left out where no recipe has several.
    assert [row.cells[seeds] for row in compare(three[1:]).reached.rows] == ["", ""]
    monkeypatch.setenv("COLUMNS", "300")
    assert pair in shown("compare", *three).out
    text = (three[0].parent / "comparison.html").read_text(encoding="utf-8")
    assert pair in text
    assert text.count("<svg") == 2
    assert "0.5" in text


def test_more_runs_than_colours_are_told_apart_by_marks(
    three: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = []
    monkeypatch.setattr(page, "part", lambda figure, label: figures.append(figure) or "")
    recipe = (three[0] / "recipe.yaml").read_text()
    runs = [Path(shutil.copytree(three[0], tmp_path / f"rate{number}")) for number in range(1, 11)]
    for number, run in enumerate(runs, start=1):
        other = recipe.replace("learning_rate: 0.02", f"learning_rate: {number}")
        (run / "recipe.yaml").write_text(other)
    compare(runs).write(tmp_path / "comparison.html")
    for figure in figures:
        (ax,) = figure.axes
        looks = [(line.get_color(), line.get_marker(), line.get_linestyle()) for line in ax.lines]
        # Each run's training and its held-out line.
        assert len(set(looks)) == len(looks) == 2 * len(runs)
        labels = {text.get_text(): text.get_color() for text in ax.texts}
        assert list(labels) == [*"ABCDEFGH", "I ●", "J ●"]
        assert labels["A"] == labels["I ●"]


def test_runs_that_noted_less_of_the_same_images_are_of_them(three: list[Path]) -> None:
    file = three[1] / "environment.json"
    sessions = json.loads(file.read_text())
    assert sessions[0]["data"].pop("labels")
    file.write_text(json.dumps(sessions))
    found = compare(three)
    assert [[member.path.name for member in group.members] for group in found.groups] == [["a", "b"], ["c"]]
    assert not any("different images" in note for note in found.notes)


def test_what_a_session_did_otherwise_is_no_seed_of_its_own(three: list[Path]) -> None:
    file = three[1] / "environment.json"
    sessions = json.loads(file.read_text())
    sessions[0]["departures"] = ["BN statistics over 32 images on each of 4 ranks, not over 64"]
    file.write_text(json.dumps(sessions))
    found = compare(three)
    assert [[member.path.name for member in group.members] for group in found.groups] == [["a"], ["b"], ["c"]]
    (note,) = (note for note in found.notes if "departs" in note)
    assert note == f"{three[1]} departs from its recipe: {sessions[0]['departures'][0]}."


def test_training_errors_are_of_one_kind(three: list[Path]) -> None:
    """Of final weights where all have it, else as they were seen in training; a folder's are that."""
    place = list(compare(three).reached.headings).index("training error %")
    seen = [metrics_of(run)[-1]["train"]["top1_error"] for run in three]
    for run in three[::2]:
        results = results_of(run)
        results["train"] = results["validation"] | {"top1_error": 1.25}
        (run / "results.json").write_text(json.dumps(results))
    pair = [three[0], three[2]]
    assert [row.cells[place] for row in compare(pair).reached.rows] == ["1.25", "1.25"]
    found = compare(three[1:]).reached
    assert [row.cells[place] for row in found.rows] == [f"{error:.2f}" for error in seen[1:]]
    assert "that of augmented images while the weights changed" in found.caption


def test_a_comparison_does_not_tell_where_a_home_is(
    three: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(three[0].parent))
    compare(three).write(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "~/a" in page
    assert str(three[0].parent) not in page


def test_runs_on_other_images_are_no_seeds_of_each_other(three: list[Path]) -> None:
    file = three[1] / "environment.json"
    sessions = json.loads(file.read_text())
    sessions[0]["data"]["content"] = "of tulips"
    file.write_text(json.dumps(sessions))
    found = compare(three)
    assert [[member.path.name for member in group.members] for group in found.groups] == [["a"], ["b"], ["c"]]
    assert any("on different images" in note for note in found.notes)
    page = three[0].parent / "page.html"
    compare(three[:2]).write(page)
    said = "In nothing but the seed; what else sets them apart is said above."
    assert said in page.read_text(encoding="utf-8")


def test_a_run_that_is_there_twice_is_no_other_seed(three: list[Path]) -> None:
    """A mean over a run and its copy would have no deviation."""
    twin = Path(shutil.copytree(three[0], three[0].with_name("twin")))
    found = compare([*three[:2], twin])
    assert [[m.path.name for m in group.members] for group in found.groups] == [["a", "b"], ["twin"]]
    assert found.notes == [f"Of the same recipe and seed as another run, so no seed of its own: {twin}."]
    assert found.differences is None


def test_a_precision_that_one_of_two_seeds_has_not_is_no_deviation(
    begun_detector: Path, tmp_path: Path
) -> None:
    """As where its images to test on are others, which hold no object."""
    runs = [Path(shutil.copytree(begun_detector, tmp_path / name)) for name in "ab"]
    recipe = runs[1] / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("\nseed: 0\n", "\nseed: 1\n"))
    lines = [json.loads(line) for line in (runs[1] / "metrics.jsonl").read_text().splitlines()]
    for line in lines[1:]:
        line["test"]["ap50"] = None
    (runs[1] / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    results = results_of(runs[1])
    results["test"]["ap50"] = None
    (runs[1] / "results.json").write_text(json.dumps(results))
    found = compare(runs)
    (group,), (row,) = found.groups, found.reached.rows
    assert len(group.members) == 2
    assert [cell for cell in row.cells if cell == "" or "±" in cell] == [""]
    found.write(tmp_path / "page.html")
    assert "<svg" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_what_cannot_be_compared_is_said(
    three: list[Path], begun_detector: Path, refused: Refused, tmp_path: Path
) -> None:
    assert "two run folders at least" in refused("compare", three[0])
    assert "each once" in refused("compare", three[0], three[0])
    assert "holds no run" in refused("compare", three[0], tmp_path)
    assert "a classifier and a detector" in refused("compare", three[0], begun_detector)
    (tmp_path / "x.html").write_text("mine")
    assert "exists already" in refused("compare", *three, "--out", tmp_path / "x.html")
    (three[1] / "metrics.jsonl").write_text("")
    assert "has not measured anything yet" in refused("compare", *three)
    (three[2] / "results.json").unlink()
    environment = json.loads((three[2] / "environment.json").read_text())
    environment[0]["data"] = {"files": "others"}
    (three[2] / "environment.json").write_text(json.dumps(environment))
    notes = " ".join(compare([three[0], three[2]]).notes)
    assert "different images" in notes
    assert f"newest numbers: {three[2]}" in notes
