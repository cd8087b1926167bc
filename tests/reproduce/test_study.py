"""The CIFAR-10 study, every experiment of it, on digits and for a few iterations."""

import json
import re
import shutil
import statistics
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import Call, Refused, Shown, sentence_of, set_options
from PIL import Image

from residual import InputError, run
from residual.analysis.figures import Panel
from residual.analysis.layers import Response, Signal
from residual.environment import describe
from residual.errors import Interrupted
from residual.inference import layers
from residual.models import highway
from residual.recipes import DetectionRecipe, Recipe, find, override
from residual.reproduce import curves
from residual.reproduce.layer_studies import responses_in, signals_in
from residual.reproduce.paper import TABLE6, TABLE6_OTHERS
from residual.reproduce.study import CIFAR10, ClassifierRun, Study, TrainedRun
from residual.reproduce.table6 import CifarRow, duration

SETTINGS = [
    "data.dataset=digits",
    "data.pad=0",
    "data.flip=false",
    "batch.size=64",
    "schedule.iterations=4",
    "evaluate_every=2",
]
SET = set_options(SETTINGS)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, call: Call) -> Path:
    """A study in which every experiment was run, as the commands leave it."""
    out = tmp_path_factory.mktemp("study") / "cifar10"
    assert call("reproduce", "table6", "--depths", "20", "--seeds", "2", *SET, "--out", out) == 0
    assert call("reproduce", "figure1", *SET, "--out", out) == 0
    assert call("reproduce", "figure6", "--depths", "20", "56", *SET, "--out", out) == 0
    assert call("reproduce", "figure7", "--depths", "20,56", *SET, "--out", out) == 0
    assert call("reproduce", "signals", "--depths", "20", *SET, "--out", out) == 0
    assert call("reproduce", "report", "--out", out) == 0
    return out


def results_of(out: Path, network: str, seed: int = 0) -> dict[str, Any]:
    return json.loads((out / f"cifar10-{network}" / f"seed{seed}" / "results.json").read_text())


def svg_texts(path: Path) -> list[str]:
    root = ET.fromstring(path.read_text(encoding="utf-8"))
    return [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]


def test_each_network_and_seed_was_run_once(study: Path) -> None:
    runs = sorted(str(path.parent.relative_to(study)) for path in study.glob("*/*/results.json"))
    assert runs == [
        "cifar10-plain20/seed0",
        "cifar10-plain56/seed0",
        "cifar10-resnet20/seed0",
        "cifar10-resnet20/seed1",
        "cifar10-resnet56/seed0",
    ]
    sessions = [json.loads(path.read_text()) for path in study.glob("*/*/environment.json")]
    assert all(len(session) == 1 for session in sessions)


def test_table6_is_what_the_runs_measured(study: Path) -> None:
    table = json.loads((study / "table6.json").read_text())
    quoted = [row for row in table["rows"] if row["quoted"]]
    assert [row["published"]["error"] for row in quoted] == [other.error for other in TABLE6_OTHERS]
    (ours,) = (row for row in table["rows"] if not row["quoted"])
    errors = [results_of(study, "resnet20", seed)["test"]["top1_error"] for seed in (0, 1)]
    assert list(ours["errors"].values()) == errors
    assert ours["mean"] == pytest.approx(statistics.mean(errors))
    assert ours["std"] == pytest.approx(statistics.stdev(errors))
    # Four iterations on digits say nothing about 64,000 on CIFAR-10, and the files say so.
    assert ours["difference"] is None
    assert "schedule.iterations: 64000 -> 4" in table["departures"]
    text = (study / "table6.md").read_text()
    assert "Test error on handwritten digits" in text
    assert "not comparable: " in text
    assert f"{min(errors):.2f} ({statistics.mean(errors):.2f} ± {statistics.stdev(errors):.2f})" in text
    assert "| ResNet | 20 | 0.27M | 8.75 |" in text
    assert text.count("quoted") == len(TABLE6_OTHERS)


def test_a_comparable_row_shows_the_difference() -> None:
    row = CifarRow(TABLE6[110], False, 110, {0: 6.5, 1: 6.7, 2: 6.45})
    assert row.ours == "6.45 (6.55 ± 0.13)"
    assert row.difference == pytest.approx(6.55 - 6.61)
    assert CifarRow(TABLE6[20], False, 20, {0: 8.7}).ours == "8.70"
    assert CifarRow(TABLE6[20], False, 20, {}).ours == "not run"
    assert [duration(s) for s in (45, 600, 9000)] == ["45 s", "10 min", "2.5 h"]


def test_the_papers_numbers_are_table_6() -> None:
    """Read off the table a second time, with its parameters checked against the networks themselves."""
    errors = {depth: row.error for depth, row in TABLE6.items()}
    assert errors == {
        20: "8.75",
        32: "7.51",
        44: "7.17",
        56: "6.97",
        110: "6.43 (6.61 ± 0.16)",
        1202: "7.93",
    }
    assert [(row.method, row.layers, row.parameters, row.error, row.mean) for row in TABLE6_OTHERS] == [
        ("Maxout", None, None, "9.38", 9.38),
        ("NIN", None, None, "8.81", 8.81),
        ("DSN", None, None, "8.22", 8.22),
        ("FitNet", 19, 2.5, "8.39", 8.39),
        ("Highway", 19, 2.3, "7.54 (7.72 ± 0.16)", 7.72),
        ("Highway", 32, 1.25, "8.80", 8.80),
    ]


def test_highway_networks_take_their_rows_and_a_panel(
    study: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    for depth in (19, 32):
        monkeypatch.setitem(highway.LAYERS, depth, highway.Layers((4, 4, 4), (1, 1, 1), (3,)))
    out = tmp_path / "cifar10"
    shutil.copytree(study, out)
    assert call("reproduce", "table6", "--depths", "20", "--highway", *SET, "--out", out) == 0
    rows = {(row["published"]["method"], row["depth"]): row for row in table_rows(out)}
    for depth, published in ((19, 7.72), (32, 8.80)):
        row = rows["Highway", depth]
        assert row["published"]["mean"] == published
        assert not row["quoted"]
        assert row["errors"] == {"0": results_of(out, f"highway{depth}")["test"]["top1_error"]}
    assert rows["FitNet", 19]["quoted"]
    # A ResNet of as many layers is another row.
    assert list(rows["ResNet", 20]["errors"]) == ["0"]
    assert call("reproduce", "figure6", "--depths", "20", "--highway", *SET, "--out", out) == 0
    texts = svg_texts(out / "figure6.svg")
    assert {"highway networks", "19-layer", "32-layer", "residual networks"} <= set(texts)
    networks = json.loads((out / "figure6.json").read_text())["networks"]
    assert list(networks) == ["plain-20", "ResNet-20", "Highway-19", "Highway-32"]
    # They stay in the table that does not ask for them; nothing else of it changes.
    assert call("reproduce", "table6", "--depths", "20", "--seeds", "2", *SET, "--out", out) == 0
    assert len([row for row in table_rows(out) if row["errors"]]) == 3


def table_rows(out: Path) -> list[dict[str, Any]]:
    return json.loads((out / "table6.json").read_text())["rows"]


@pytest.mark.parametrize("name", ["figure1", "figure6", "figure7", "signals"])
def test_figures_are_well_formed_and_labelled(study: Path, name: str) -> None:
    texts = svg_texts(study / f"{name}.svg")
    expected = {
        "figure1": ["training error", "test error", "iterations", "error (%)", "20-layer", "56-layer"],
        "figure6": ["plain networks", "residual networks", "iterations", "error (%)", "20-layer", "56-layer"],
        "figure7": ["std of the response", "plain-20", "plain-56", "ResNet-20", "ResNet-56"],
        "signals": ["at initialisation", "after training", "gradient's norm", "plain-20", "ResNet-20"],
    }[name]
    assert [text for text in expected if text not in texts] == []
    with Image.open(study / f"{name}.png") as image:
        assert min(image.size) > 600


def test_curves_are_the_logs(study: Path) -> None:
    stored = json.loads((study / "figure6.json").read_text())
    assert list(stored["networks"]) == ["plain-20", "plain-56", "ResNet-20", "ResNet-56"]
    log = study / "cifar10-plain56" / "seed0" / "metrics.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    drawn = stored["networks"]["plain-56"]
    assert drawn["iterations"] == [2, 4]
    assert drawn["training_curve"] == [line["train"]["top1_error"] for line in lines]
    assert drawn["test_curve"] == [line["test"]["top1_error"] for line in lines]
    # Four iterations: nothing can be said about depth, and nothing is.
    assert all("have not learned yet" in sentence for sentence in stored["statements"])


def test_responses_and_signals_are_kept_in_the_run_folders(study: Path) -> None:
    figure = json.loads((study / "figure7.json").read_text())
    kept = json.loads((study / "cifar10-plain56" / "seed0" / "responses.json").read_text())
    assert figure["networks"]["plain-56"] == kept["layers"]
    assert len(kept["layers"]) == 55
    assert kept["images"] == 1438
    signals = json.loads((study / "signals.json").read_text())
    assert list(signals["networks"]["plain-20"]) == ["at initialisation", "after training"]
    first = signals["networks"]["plain-20"]["at initialisation"]
    # BN's scale is 1 and its shift 0 at initialisation.
    assert [layer["variance"] for layer in first] == pytest.approx([1.0] * 19, rel=1e-3)
    assert any("ResNet-20 responds" in sentence for sentence in figure["statements"])
    assert "images" not in figure  # of each network's the folder tells


def test_the_report_shows_everything_and_what_is_missing(study: Path) -> None:
    text = (study / "report.html").read_text(encoding="utf-8")
    # Panels of their own: two of Figures 1, 6 and 7 each, six of the signals.
    assert len(re.findall("<svg", text)) == 12
    assert "not run" in text  # ResNet-32 and others
    assert "ResNet-1202" in text
    assert "depart from the paper" in text
    assert "7.54 (7.72 ± 0.16)" in text
    assert "http" not in re.sub(r'"http://www\.w3\.org[^"]*"', "", text)
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))


def test_a_second_call_trains_and_measures_nothing(
    study: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("it was there")

    monkeypatch.setattr(run, "train", never)
    for name in ("layer_responses", "layer_signals"):
        monkeypatch.setattr(layers, name, never)
    before = {path: path.read_bytes() for path in study.glob("*.*")}
    assert call("reproduce", "figure7", "--depths", "20", "56", *SET, "--out", study) == 0
    assert call("reproduce", "signals", "--depths", "20", "--no-train", "--out", study) == 0
    assert call("reproduce", "table6", "--depths", "20", "--seeds", "2", "--no-train", "--out", study) == 0
    assert {path: path.read_bytes() for path in study.glob("*.*")} == before


def test_an_interrupted_study_goes_on(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, trained = run.train, []

    def stop(recipe: Any, out: Path, **options: Any) -> Any:
        trained.append((out.parent.name, options["resume"]))
        if len(trained) == 2:
            raise Interrupted("stopped", 2)
        return original(recipe, out, **options)

    monkeypatch.setattr(run, "train", stop)
    here = Study(tmp_path, CIFAR10, SETTINGS, device="cpu")
    with pytest.raises(Interrupted, match=r"resnet20.seed1; give the same command again to go on"):
        here.runs(["resnet20"], range(2))
    found = here.runs(["resnet20"], range(2))
    assert trained == [("cifar10-resnet20", False)] * 3
    assert [finished.test_error for finished in found] == [
        results_of(study, "resnet20", seed)["test"]["top1_error"] for seed in (0, 1)
    ]


def test_nothing_there_is_not_run(tmp_path: Path, call: Call, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("figure1", "figure6", "figure7", "signals"):
        assert call("reproduce", command, "--no-train", "--out", tmp_path) == 0
        assert "not run" in capsys.readouterr().out
    assert call("reproduce", "table6", "--no-train", "--out", tmp_path) == 0
    assert capsys.readouterr().out.count("not run") == len(TABLE6)
    assert call("reproduce", "report", "--out", tmp_path) == 0
    page = (tmp_path / "report.html").read_text()
    assert "<svg" not in page
    # Into the study that the page is about.
    assert f"<code>residual reproduce figure1 --out {tmp_path}</code>" in page


def test_the_report_is_made_of_what_is_there(tmp_path: Path, shown: Shown) -> None:
    """Of ImageNet alone, say, in no study of CIFAR-10."""
    (tmp_path / "imagenet").mkdir()
    table = {"caption": "Errors.", "headings": ["method", "ours"], "cells": [["plain-18", "31.25"]]}
    (tmp_path / "imagenet" / "table2.json").write_text(json.dumps(table))
    out, others = tmp_path / "cifar10", tmp_path / "detection"
    words = ("reproduce", "report", "--out", out, "--imagenet", tmp_path / "imagenet", "--detection", others)
    told = shown(*words).out
    assert f"0 complete runs on CIFAR-10 in {out}\n" in told
    assert f"no table is there of detection in {others} (--detection)\n" in told
    page = (out / "report.html").read_text()
    assert "<td>31.25</td>" in page
    assert "Table 7: not run." in page


@pytest.mark.parametrize("experiment", ["table6", "figure1", "table2", "table7", "localization"])
def test_a_study_that_is_not_there_is_not_made_where_nothing_is_trained(
    experiment: str, tmp_path: Path, refused: Refused
) -> None:
    said = refused("reproduce", experiment, "--no-train", "--out", tmp_path / "cifar01")
    assert f"there is no folder {tmp_path / 'cifar01'}, and --no-train makes none; name the study's" in said
    assert not list(tmp_path.iterdir())


def test_studies_of_different_settings_do_not_mix(study: Path, tmp_path: Path) -> None:
    mixed = tmp_path / "mixed"
    shutil.copytree(study / "cifar10-resnet20", mixed / "cifar10-resnet20")
    recipe = mixed / "cifar10-resnet20" / "seed1" / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("learning_rate: 0.1", "learning_rate: 0.2"))
    with pytest.raises(InputError, match=r"cannot be compared: .*learning_rate: 0.1 -> 0.2"):
        Study(mixed, CIFAR10, train=False).runs(["resnet20"], range(2))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["table1"], "there is no experiment 'table1'; the experiment is called complexity"),
        (["tabel6"], "there is no experiment 'tabel6'; did you mean table6"),
        (["table6", "--depths", "21"], "--depths 21: a CIFAR network has 6n+2 layers"),
        (["table6", "--depths", "20", "deep"], "--depths deep: a CIFAR network has 6n+2 layers"),
        (["table6", "20"], "did you mean --depths?"),
        (["table6", "--depths", "26"], "there is no recipe 'cifar10-resnet26'"),
        (["figure6", "--set", "model.shortcut=B"], "cannot change the network or the seed"),
        (["figure6", "--set", "seed=3"], "cannot change the network or the seed"),
        (["figure1", "--set", "schedule.iteration=3"], "there is no key 'schedule.iteration'"),
        (["figure1", "--data-dir", "/nonexistent/data"], "no such folder"),
        (["figure1", "--device", "cuda:7"], "--device cuda:7: PyTorch sees"),
        (["report", "--imagenet", "nowhere", "--detection", "nowhere"], "and neither nowhere nor nowhere; "),
    ],
)
def test_wrong_input_is_one_sentence(
    arguments: list[str], sentence: str, tmp_path: Path, call: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    if "--out" not in arguments:
        arguments = [*arguments, "--out", str(tmp_path / "new")]
    assert call("reproduce", *arguments) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert "Traceback" not in error
    assert not (tmp_path / "new").exists() or not list((tmp_path / "new").rglob("recipe.yaml"))


def test_a_run_of_other_settings_is_not_continued(
    study: Path, call: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("reproduce", "table6", "--depths", "20", "--out", study, "--data-dir", study) == 2
    error = capsys.readouterr().err
    assert "schedule.iterations: 4 -> 64000" in error
    assert "another experiment: --out ANOTHER_FOLDER" in error


def test_analyze_does_the_same_for_a_users_network(
    study: Path, tmp_path: Path, call: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = study / "cifar10-resnet20" / "seed0" / "weights"
    assert call("analyze", "responses", weights, "--json", "--out", tmp_path / "responses.svg") == 0
    measured = json.loads(capsys.readouterr().out)
    kept = json.loads((study / "cifar10-resnet20" / "seed0" / "responses.json").read_text())
    assert measured["layers"] == kept["layers"]
    assert "std of the response" in svg_texts(tmp_path / "responses.svg")

    assert call("analyze", "signals", weights, "--json", "--out", tmp_path / "signals.png") == 0
    moments = json.loads(capsys.readouterr().out)["moments"]
    assert (
        moments == json.loads((study / "cifar10-resnet20" / "seed0" / "signals.json").read_text())["moments"]
    )
    assert call("analyze", "responses", weights, "--images", "100") == 0
    assert "layer3.2.conv2" in capsys.readouterr().out
    # Nothing is overwritten, and a wrong file is refused before the work.
    assert call("analyze", "signals", weights, "--out", tmp_path / "signals.png") == 2
    assert "exists already" in capsys.readouterr().err
    assert call("analyze", "responses", weights, "--out", tmp_path / "responses.pdf") == 2
    assert "ends in .svg or .png" in capsys.readouterr().err


def test_recipes_of_the_study_are_the_papers() -> None:
    for depth in TABLE6:
        recipe = find(f"cifar10-resnet{depth}")
        assert (recipe.schedule.iterations, recipe.batch.size, recipe.batch.bn_group) == (64_000, 128, 64)
        assert recipe.data.validation == 0


def test_seeds_are_a_number_or_a_range(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, shown: Shown, refused: Refused
) -> None:
    asked: list[list[int]] = []
    monkeypatch.setattr("residual.reproduce.table6.table6", lambda *given: asked.append(list(given[2])))
    for seeds in ("3", "1-4", "7-7"):
        shown("reproduce", "table6", "--seeds", seeds, "--out", tmp_path)
    assert asked == [[0, 1, 2], [1, 2, 3, 4], [7]]
    for wrong in ("0", "4-1", "-1", "a", "1-", "1.5"):
        said = refused("reproduce", "table6", f"--seeds={wrong}", "--out", tmp_path)
        assert f"--seeds {wrong}: write how many, as 5, or from which to which, as 1-4" in said
    # Of so many nothing is listed; Python takes no number of more than 4,300 digits.
    for slip in ("1001", "5-99999999999", "9" * 18, "9" * 5000):
        assert "at most 1,000 runs" in refused("reproduce", "table6", f"--seeds={slip}", "--out", tmp_path)
    said = refused("reproduce", "table6", "--depths", f"{'2' * 5000}", "--out", tmp_path)
    assert "a CIFAR network has 6n+2 layers" in said


def test_a_study_has_a_time_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, shown: Shown) -> None:
    limits: list[float | None] = []

    @contextmanager
    def limited(minutes: float | None) -> Iterator[None]:
        limits.append(minutes)
        yield

    monkeypatch.setattr("residual.cli.reproduce.limited", limited)
    shown("reproduce", "table6", "--no-train", "--minutes", "9", "--out", tmp_path)
    shown("reproduce", "figure1", "--no-train", "--out", tmp_path)
    assert limits == [9.0, None]


def test_runs_made_on_several_machines_are_copied_together(study: Path, tmp_path: Path, call: Call) -> None:
    for seed in (1, 0):
        run = f"cifar10-resnet20/seed{seed}"
        shutil.copytree(study / run, tmp_path / run)
    assert call("reproduce", "table6", "--depths", "20", "--seeds", "2", "--no-train", "--out", tmp_path) == 0
    assert (tmp_path / "table6.json").read_text() == (study / "table6.json").read_text()


def stand_in(out: Path, network: str, seed: int = 0, *settings: str) -> Path:
    """Write what a study reads of a complete run, without training it, and return its folder."""
    folder = out / f"cifar10-{network}" / f"seed{seed}"
    folder.mkdir(parents=True)
    recipe = override(find(f"cifar10-{network}"), [f"seed={seed}", *settings])
    errors = {"top1_error": 9.0, "top5_error": 1.0, "loss": 0.5, "images": 10_000}
    splits = {"train": errors, "validation": errors if recipe.data.validation else None, "test": errors}
    results = {"recipe": recipe.name, "iterations": 64_000, "seconds": 1.0, "parameters": 1, **splits}
    line = {"iteration": 64_000, "learning_rate": 0.001, "seconds": 1.0}
    line |= {k: v for k, v in splits.items() if v}
    session = describe(torch.device("cpu"), 1) | {"iteration": 0, "departures": [], "data": {"classes": 10}}
    for name, content in (
        ("recipe.yaml", recipe.to_yaml()),
        ("results.json", json.dumps(results)),
        ("metrics.jsonl", json.dumps(line) + "\n"),
        ("environment.json", json.dumps([session])),
    ):
        (folder / name).write_text(content)
    return folder


def stand_in_at(out: Path, recipe: Recipe) -> Path:
    """Have ``stand_in`` make a run of a study where it is to be."""
    network = recipe.name.removeprefix("cifar10-")
    return stand_in(out.parents[1], network, 0, f"schedule.iterations={recipe.schedule.iterations}")


def test_errors_of_deep_plain_networks_are_not_displayed(tmp_path: Path, call: Call) -> None:
    """As in the paper: with them on the axes all others would lie on the floor."""
    for network in ("plain20", "plain110", "resnet20", "resnet110"):
        stand_in(tmp_path, network)
    assert call("reproduce", "report", "--out", tmp_path) == 0
    figure = (tmp_path / "report.html").read_text().partition("<h2>Figure 6")[2].partition("<h2>")[0]
    # In both panels, and in that of the residual networks alone.
    assert figure.count(">20-layer<") == 2 * figure.count(">110-layer<") > 0


def test_what_is_alike_is_said_once_for_a_page(tmp_path: Path) -> None:
    """The demo's few images have errors by the point."""
    for network, error in (("plain20", 9.0), ("plain56", 9.5)):
        file = stand_in(tmp_path, network) / "results.json"
        results = json.loads(file.read_text())
        results["train"]["top1_error"] = error
        file.write_text(json.dumps(results))
    study = Study(tmp_path, CIFAR10, train=False)
    runs = [run for name in ("plain20", "plain56") if (run := study.complete(name))]
    assert "rises with depth: degradation" in curves.sentences(runs)[0]
    assert "does not change with depth" in curves.sentences(runs, alike=1.0)[0]


def test_a_length_in_epochs_is_no_other_length_in_iterations() -> None:
    own, papers = find("tiny-imagenet-resnet18"), find("imagenet-resnet18")
    told = TrainedRun("resnet18", Path(), papers, own, {}, [], []).departures
    assert "schedule.epochs: None -> 16" in told
    assert not any(text.startswith("schedule.iterations") for text in told)


def test_a_run_counts_for_its_own_seed_alone(tmp_path: Path, refused: Refused) -> None:
    """One of seed 0 in the folder of seed 1 would be twice in a mean or an ensemble."""
    first = stand_in(tmp_path, "resnet20")
    second = shutil.copytree(first, first.with_name("seed1"))
    said = f"{second} holds a run of seed 0; move it to {first}"
    for words in (("table6", "--depths", "20", "--seeds", "2", "--no-train"), ("report",)):
        assert said in refused("reproduce", *words, "--out", tmp_path)
    second.rename(first.with_name("seed00"))
    assert [one.path for one in Study(tmp_path, CIFAR10).all_complete("resnet20")] == [first]
    (first / "environment.json").unlink()
    assert f"{first} lacks its environment.json" in refused("reproduce", "report", "--out", tmp_path)


def test_more_is_kept_of_layers_than_is_read_and_nothing_of_none_is_damage(tmp_path: Path) -> None:
    folder = stand_in(tmp_path, "resnet20")
    complete = Study(tmp_path, CIFAR10, train=False).complete("resnet20")
    assert complete
    response = {"layer": "conv1", "std": 1.0, "gate": None, "median": 0.5}
    signal = {
        "layer": "conv1",
        "variance_before": 1.0,
        "variance": 2.0,
        "gradient_norm": 3.0,
        "kurtosis": 4.0,
    }
    for name, whole, empty, read, found in (
        ("responses", {"layers": [response]}, {"layers": []}, responses_in, [Response("conv1", 1.0)]),
        (
            "signals",
            {"moments": {"after": [signal]}},
            {"moments": {"after": []}},
            signals_in,
            {"after": [Signal("conv1", 1.0, 2.0, 3.0)]},
        ),
    ):
        file = folder / f"{name}.json"
        file.write_text(json.dumps(whole))
        assert read(complete) == found
        file.write_text(json.dumps(empty))
        assert f"{file} is damaged (" in sentence_of(lambda read=read: read(complete))


def test_what_one_network_of_a_figure_departs_in_is_said_of_it(tmp_path: Path, shown: Shown) -> None:
    stand_in(tmp_path, "plain20")
    stand_in(tmp_path, "resnet110", 0, "schedule.warmup=null")
    told = shown("reproduce", "figure6", "--no-train", "--out", tmp_path).out
    assert "not the paper's experiment: schedule.warmup" in told
    departures = json.loads((tmp_path / "figure6.json").read_text())["departures"]
    assert "schedule.warmup.iterations: 400 -> None" in departures


def test_seeds_of_one_network_have_one_warm_up(tmp_path: Path, refused: Refused) -> None:
    stand_in(tmp_path, "resnet110")
    stand_in(tmp_path, "resnet110", 1, "schedule.warmup=null")
    assert "cannot be compared" in refused("reproduce", "report", "--out", tmp_path)


def test_what_cannot_stand_beside_the_runs_that_are_there_is_not_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path, "resnet56", 0, "schedule.iterations=2000")
    trained: list[Path] = []
    monkeypatch.setattr(run, "train", lambda recipe, out, **options: trained.append(out))
    networks = ["resnet20", "resnet56"]
    for settings in ([], ["schedule.iterations=3000"]):
        with pytest.raises(InputError, match="cannot be compared"):
            Study(tmp_path, CIFAR10, settings).runs(networks, only=["resnet20"])
    assert trained == []
    Study(tmp_path, CIFAR10, ["schedule.iterations=2000"]).runs(networks, only=["resnet20"])
    assert len(trained) == 1
    # What a session did not do as its recipe says is known of those that are there.
    file = tmp_path / "cifar10-resnet56" / "seed0" / "environment.json"
    content = json.loads(file.read_text())
    content[0]["departures"] = ["BN statistics over 32 images on each of 4 ranks, not over 64"]
    file.write_text(json.dumps(content))
    Study(tmp_path, CIFAR10, ["schedule.iterations=2000"]).runs(networks, only=["resnet20"])
    assert len(trained) == 2
    # One that is trained now and departs otherwise ends it, before the next is trained.
    monkeypatch.setattr(run, "train", lambda recipe, out, **options: trained.append(stand_in_at(out, recipe)))
    with pytest.raises(InputError, match="BN statistics over 32 images"):
        Study(tmp_path, CIFAR10, ["schedule.iterations=2000"]).runs([*networks, "resnet44"])
    assert len(trained) == 3
    shutil.rmtree(trained.pop().parent)
    stand_in(tmp_path, "resnet32", 0, "schedule.iterations=2000")
    for only in (["resnet20"], None):
        with pytest.raises(InputError, match="BN statistics over 32 images"):
            Study(tmp_path, CIFAR10, ["schedule.iterations=2000"]).runs([*networks, "resnet32"], only=only)
    assert len(trained) == 2


def test_drops_are_drawn_where_all_curves_have_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """On ImageNet the rate of each network follows its own plateaus."""
    drawn: list[tuple[int, list[int]]] = []
    monkeypatch.setattr(
        curves, "error_curves", lambda panels, iterations, drops, held_out: drawn.append((iterations, drops))
    )
    runs: list[Any] = [
        SimpleNamespace(results={"iterations": length}, drops=drops, held_out="validation")
        for length, drops in ((600, [100, 400]), (600, [100, 400]), (800, [200, 300]))
    ]
    curves.draw([Panel("", ())], runs[:2])
    curves.draw([Panel("", ())], runs)
    assert drawn == [(600, [100, 400]), (800, [])]


def test_seeds_on_other_images_are_said_to_be(tmp_path: Path, shown: Shown) -> None:
    words = ("reproduce", "table6", "--depths", "20", "--seeds", "3", "--no-train", "--out", tmp_path)
    for seed, train in enumerate((None, 50_000, 40_000)):
        file = stand_in(tmp_path, "resnet20", seed) / "environment.json"
        (session,) = json.loads(file.read_text())
        images = {"images": {"train": train, "test": 10_000}, "content": f"copy {seed}"}
        # The first is of an earlier version, which noted nothing.
        file.write_text(json.dumps([session | {"data": images if train else None}]))
        shown(*words)
        departures = json.loads((tmp_path / "table6.json").read_text())["departures"]
        assert departures == (["the runs are not all on the same images"] if seed == 2 else [])
    (row,) = (row for row in table_rows(tmp_path) if row["errors"])
    assert (row["mean"], row["difference"]) == (9.0, None)


def test_the_report_calls_the_held_out_part_by_its_name(tmp_path: Path, shown: Shown) -> None:
    stand_in(tmp_path, "plain20", 0, "data.validation=5000")
    shown("reproduce", "report", "--out", tmp_path)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Training error and validation error." in text
    assert "bold lines denote validation error" in text


def test_a_run_without_test_images_or_weights_has_its_error_and_its_classes() -> None:
    """Of a folder; and where the weights were not copied with the rest."""
    recipe = find("imagenet-resnet18")
    line = {"iteration": 1, "train": {"top1_error": 9.0}, "validation": {"top1_error": 12.0}}
    results = {"train": None, "test": None, "validation": {"top1_error": 11.0}}
    run = ClassifierRun(
        "resnet18", Path("nowhere"), recipe, recipe, results, [line], [{"data": {"classes": 200}}]
    )
    assert (run.training_error, run.test_error, run.classes) == (9, 11, 200)


def test_a_detector_from_the_papers_own_classifier_is_the_papers(tmp_path: Path) -> None:
    """Its max pooling came with it, and was none of the recipe's."""
    for network in ("resnet101", "vgg16"):
        classifier = find(f"imagenet-{network}").model
        paper = find(f"coco-{network}", DetectionRecipe)
        backbone = classifier.model_copy(update={"weights": "weights"})
        recipe = paper.model_copy(
            update={"detector": paper.detector.model_copy(update={"backbone": backbone})}
        )
        assert TrainedRun(network, Path(), paper, recipe, {}, [], []).departures == []


def test_evaluations_are_a_departure_where_the_rate_follows_them() -> None:
    settings = ["evaluate_every=100", "checkpoint_every=10"]
    for name, changes in (
        ("cifar10-resnet20", []),
        ("imagenet-resnet18", ["evaluate_every: None -> 100"]),
    ):
        paper = find(name)
        made = TrainedRun(name, Path(), paper, override(paper, settings), {}, [], [])
        assert made.departures == changes


@pytest.mark.parametrize(("precision", "departs"), [("float32", False), ("tf32", False), ("bfloat16", True)])
def test_the_papers_own_arithmetic_is_no_departure(precision: str, departs: bool) -> None:
    paper = find("cifar10-resnet20")
    run = ClassifierRun(
        *("resnet20", Path(), paper, override(paper, [f"precision={precision}", "seed=3"])), {}, [{}], []
    )
    assert bool(run.departures) == departs
