"""Appendix C's table: the paper's numbers, ours where they were run, and what is left out."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import Refused, Shown, set_options
from located import SQUARES, write_classifier, write_tiny

from residual.recipes import LocalizationRecipe, find
from residual.reproduce.localization import RECIPES, LocalizerRun
from residual.run import start_from

SHORT = [
    *(setting for setting in SQUARES if not setting.startswith("name=")),
    "schedule.iterations=2",
    "evaluate_every=2",
    "checkpoint_every=2",
]
PAPER = [33.1, 13.3, 11.7, 14.4, 10.6, 8.9]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows_of(folder: Path, file: str = "localization.json") -> Any:
    return json.loads((folder / file).read_text())


#: Of the table of the images that tests are run on.
TINY = "localization-tiny-imagenet.json"


def test_the_papers_numbers_stand_without_a_run(here: Path, shown: Shown) -> None:
    (here / "runs" / "localization").mkdir(parents=True)
    told = shown("reproduce", "localization", "--no-train").out
    found = rows_of(here / "runs" / "localization")
    assert [row["published"]["error"] for row in found["rows"][:6]] == PAPER
    assert found["rows"][6]["published"] is None
    assert all(row["error"] is None for row in found["rows"])
    cells = found["cells"]
    assert [row[4] for row in cells] == ["", "not run", "not run", "not run", "not run", "", "not run"]
    assert "ensembles are not here" in told
    assert "--no-train" in told


def of_classes(count: int) -> dict[str, Any]:
    return {"classes": count}


@pytest.mark.parametrize("names", RECIPES.values(), ids=RECIPES)
def test_runs_by_the_recipes_depart_in_nothing(
    names: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the table's differences are shown; the second stage takes from the first what the recipe has."""
    first, second = (find(name, LocalizationRecipe) for name in names)
    stored = SimpleNamespace(localizer=first.localizer.model_dump(mode="json"), size=first.data.size)
    monkeypatch.setattr(
        "residual.localization.weights.read_localizer", lambda path: SimpleNamespace(config=stored)
    )
    begun = start_from(second, Path("first"))
    assert begun.rcnn != second.rcnn
    run = LocalizerRun(names[1], Path(), second, begun, of_classes(1000), [], [])
    assert run.departures == []
    assert len(replace(run, results=of_classes(200)).departures) == 1


@pytest.mark.long
def test_tiny_imagenet_is_run_and_not_compared(here: Path, shown: Shown, refused: Refused) -> None:
    data, weights = write_tiny(here / "tiny", train=2, val=2), write_classifier(here / "weights")
    words = ("reproduce", "localization", "--dataset", "tiny-imagenet", "--out", here / "study")
    # Without a classifier nothing is run, and the table says why.
    assert "no --weights" in shown(*words, "--data-dir", data).out
    for setting in ("localizer.backbone.name=resnet50", "rcnn.proposals=5"):
        assert "cannot change the network" in refused(*words, "--set", setting)
    trained = ("--data-dir", data, "--weights", weights, *set_options(SHORT))
    told = shown(*words, *trained).out
    assert "not comparable" in told
    assert "3 classes, not ImageNet's 1,000" in told
    first, second = (
        json.loads((here / "study" / name / "seed0" / "results.json").read_text())
        for name in RECIPES["tiny-imagenet"]
    )
    found = rows_of(here / "study", TINY)
    measured = [first[key]["localization_error"] for key in ("test", "dense", "guessed", "middle_box")]
    refined = second["guessed"]["localization_error"]
    assert [row["error"] for row in found["rows"]] == [None, *measured[:3], refined, None, measured[3]]
    assert found["rows"][1]["images"] == 6
    assert all("ours at one scale" in row["note"] for row in found["rows"][2:5])
    # A difference is not taken.
    assert "diff." not in found["headings"]
    # What is there is shown again, whatever is asked for.
    shown(*words, "--no-train")
    assert rows_of(here / "study", TINY)["rows"] == found["rows"]
    # ImageNet's table is another one.
    shown("reproduce", "localization", "--no-train", "--out", here / "study")
    assert rows_of(here / "study", TINY)["rows"] == found["rows"]
    # A study that was moved goes on: its second stage was begun with where the first one was.
    shutil.move(here / "study", here / "moved")
    (here / "moved" / RECIPES["tiny-imagenet"][1] / "seed0" / "results.json").unlink()
    shown(*words[:-1], here / "moved", *trained)
    assert rows_of(here / "moved", TINY)["rows"] == found["rows"]
    # A classifier that was moved between the stages is found where it is said to be.
    shutil.rmtree(here / "moved" / RECIPES["tiny-imagenet"][1])
    now = shutil.move(weights, here / "elsewhere")
    words, short = (*words[:-1], here / "moved"), set_options(SHORT)
    shown(*words, *short)
    rows = rows_of(here / "moved", TINY)["rows"]
    assert (rows[3]["error"], rows[4]["error"], rows[4]["note"]) == (measured[2], None, "no --weights")
    told = shown(*words, *short, "--weights", now)
    assert f"{weights} is not there any more, and {now} is taken for it" in told.err
    assert rows_of(here / "moved", TINY)["rows"] == found["rows"]
    for again in ((), ("--weights", now)):
        shown(*words, *short, *again)
        assert rows_of(here / "moved", TINY)["rows"] == found["rows"]
