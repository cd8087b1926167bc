"""The demonstration: four runs, one page, and sentences that say only what the numbers show."""

import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from conftest import metrics_of
from PIL import Image

from residual import run
from residual.errors import InputError, Interrupted
from residual.reproduce.degradation import RUNS, Verdict, reproduce
from residual.training import checkpoint, loop
from residual.training.loop import Run

#: Four iterations: what the networks learn does not matter here.
SHORT = ["schedule.iterations=4", "evaluate_every=2", "checkpoint_every=2", "batch.size=8"]
#: Elements that have no end tag.
VOID = {"meta", "img", "br", "link", "input", "hr"}

BROWSER = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))),
    None,
)


class Page(HTMLParser):
    """What the tests ask of a page: that its tags match, what it loads, its table and its text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.links: list[str] = []
        self.rows: list[list[str]] = []
        self.ids: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.text = ""
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        for name in ("src", "href", "xlink:href", "srcset", "data", "action"):
            if name in given:
                (self.links if tag == "a" else self.loads).append(given[name] or "")
        if given.get("id"):
            self.ids.append(str(given["id"]))
        if tag in ("img", "svg"):
            self.images.append(given)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th") and self.rows:
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.rows and self.open[-1:] in (["td"], ["th"]):
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with four complete runs of four iterations and their page."""
    out = tmp_path_factory.mktemp("degradation")
    assert reproduce(out, seed=0, settings=SHORT, device="cpu") == out / "report.html"
    return out


@pytest.fixture
def again(short: Path, tmp_path: Path) -> Path:
    """A copy of it to change."""
    return Path(shutil.copytree(short, tmp_path / "again"))


def no_training(*_: object) -> None:
    raise AssertionError("a network was trained")


def results(out: Path, name: str) -> dict[str, Any]:
    return json.loads((out / name / "results.json").read_text())


def rewrite(out: Path, errors: dict[str, float]) -> str:
    """Give the runs other training errors, write the page anew and return its text."""
    for name, error in errors.items():
        numbers = results(out, name)
        numbers["train"]["top1_error"] = error
        (out / name / "results.json").write_text(json.dumps(numbers))
    return " ".join(Page(reproduce(out, seed=0, settings=SHORT, device="cpu")).text.split())


# --- the page ---


def test_the_table_has_the_numbers_of_the_run_folders(short: Path) -> None:
    rows = {row[0]: row[1:] for row in Page(short / "report.html").rows}
    for name, label, layers in zip(
        RUNS, ("plain-20", "plain-56", "ResNet-20", "ResNet-56"), ("20", "56", "20", "56"), strict=True
    ):
        numbers = results(short, name)
        assert rows[label] == [
            layers,
            f"{numbers['parameters']:,}",
            f"{numbers['train']['top1_error']:.2f} %",
            f"{numbers['test']['top1_error']:.2f} %",
            f"{numbers['seconds']:.0f}",
        ]


@pytest.mark.long
def test_a_length_in_epochs_is_told_in_iterations(tmp_path: Path) -> None:
    """A recipe of epochs has the usual number of iterations beside them, which nothing follows."""
    # Of 1,438 images 38 are trained on, in batches of 8.
    epoch = ["schedule.epochs=1", "batch.size=8", "data.validation=1400", "evaluate_every=5"]
    text = " ".join(Page(reproduce(tmp_path / "out", seed=0, settings=epoch, device="cpu")).text.split())
    assert "5 iterations of 8 images" in text
    assert "schedule.iterations=15 " in text


def test_a_plain_network_and_its_residual_twin_have_the_same_parameters(short: Path) -> None:
    for depth in ("20", "56"):
        assert results(short, f"plain{depth}")["parameters"] == results(short, f"resnet{depth}")["parameters"]


def test_the_page_is_whole_accessible_and_loads_nothing(short: Path) -> None:
    page = Page(short / "report.html")
    assert page.open == []
    assert page.source.startswith("<!doctype html>")
    assert '<html lang="en">' in page.source
    assert page.loads, "the digits' images are in the page"
    for address in page.loads:
        assert address.startswith(("data:image/png;base64,", "#")), address
    assert not re.search(r"@import|url\((?!#)|<script", page.source)
    assert len(page.images) == 3
    for image in page.images:
        assert image.get("alt") or (image.get("role") == "img" and image.get("aria-label"))
    assert len(page.ids) == len(set(page.ids))
    assert len(page.source) < 500_000
    for link in page.links:
        assert (short / link).is_file(), link


def test_the_page_says_what_was_run(short: Path) -> None:
    text = " ".join(Page(short / "report.html").text.split())
    for expected in (
        "4 iterations of 8 images",
        "ours, not the paper's",
        "iterations: 4",
        "weight decay 0.0001",
    ):
        assert expected in text
    session = json.loads((short / "plain20" / "environment.json").read_text())[0]
    machine = f"{session['device']} ({session['instructions']})"
    for expected in (machine, f"torch {session['versions']['torch']}", session["command"]):
        assert " ".join(expected.split()) in text
    for name in RUNS:
        assert f"residual train cifar10-{name} --data-dir DIR" in text


def test_the_figure_is_well_formed_and_draws_four_curves_a_panel(short: Path) -> None:
    source = (short / "report.html").read_text(encoding="utf-8")
    inline = re.findall(r"<svg.*?</svg>", source, re.DOTALL)
    assert len(inline) == 2
    for text in [*inline, (short / "errors.svg").read_text(encoding="utf-8")]:
        root = ET.fromstring(text)
        labels = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
        for label in ("20-layer", "56-layer", "iterations", "error (%)"):
            assert label in labels
    for text in inline:
        # Each curve once dashed, for training, and once solid; the legend's samples are in the ink's colour.
        for colour in ("#e6981a", "#2f66c8"):
            styles = re.findall(rf'style="([^"]*stroke: {colour}[^"]*)"', text)
            assert sorted("dasharray" in style for style in styles) == [False, True]
    with Image.open(short / "errors.png") as image:
        assert image.width > 1500
        assert {(230, 152, 26), (47, 102, 200)} <= {
            color for _, color in image.convert("RGB").getcolors(10**6)
        }


# --- what the sentences say ---


@pytest.mark.parametrize(
    ("errors", "said", "unsaid"),
    [
        ((0.0, 54.31, 0.0, 0.07), ["Degradation: ", "54.31 % with 56", "cures it"], "No degradation"),
        ((0.0, 54.0, 0.0, 20.0), ["Degradation: ", "lessens it here", "20.00 % with 56"], "cures"),
        ((0.0, 54.0, 0.0, 53.5), ["Degradation: ", "does not cure it"], "cures it"),
        ((0.0, 54.0, 0.0, 90.0), ["Degradation: ", "does not cure it"], "cures it"),
        ((0.0, 0.9, 0.0, 0.0), ["No degradation", "nothing to cure"], "Degradation:"),
        ((10.0, 2.0, 9.0, 1.0), ["No degradation", "2.00 % with 56"], "Degradation:"),
        ((89.0, 91.0, 88.0, 80.0), ["Too early to tell", "89.00 %"], "egradation"),
    ],
)
def test_the_verdict_follows_the_numbers(
    errors: tuple[float, float, float, float], said: list[str], unsaid: str
) -> None:
    text = " ".join(Verdict(*errors).sentences)
    for part in said:
        assert part in text
    assert unsaid not in text


def test_the_page_claims_what_its_numbers_show(again: Path) -> None:
    shown = rewrite(again, {"plain20": 0.0, "plain56": 54.31, "resnet20": 0.0, "resnet56": 0.0})
    assert "Plain-56 gets 54.31 % of its training images wrong, plain-20 0.00 %" in shown
    assert "the training error of the plain networks rises by 54.31 points" in shown
    assert "depth no longer stands in the way" in shown
    lessened = rewrite(again, {"resnet56": 30.0})
    assert "it still trains worse than the shallow one" in lessened
    assert "depth no longer stands in the way" not in lessened
    absent = rewrite(again, {"plain56": 0.0, "resnet56": 0.0})
    assert "do not show what the paper calls degradation" in absent
    unlearned = rewrite(again, {"plain20": 80.0})
    assert "too short to show anything" in unlearned
    for text in (absent, unlearned):
        assert "A network that overfits does the opposite" not in text
        assert "depth no longer stands in the way" not in text


# --- the runs ---


def test_complete_runs_are_read_not_trained_again(
    again: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Run, "train", no_training)
    before = {path: path.read_bytes() for name in RUNS for path in (again / name).iterdir() if path.is_file()}
    page = again / "report.html"
    page.unlink()
    reproduce(again, seed=0, settings=SHORT, device="cpu")
    assert before == {path: path.read_bytes() for path in before}
    printed = capsys.readouterr().out
    assert "were there already: plain20, plain56, resnet20, resnet56" in printed
    assert str(page) in printed
    assert "ResNet-56" in printed


def test_a_run_without_its_curve_is_named(again: Path) -> None:
    (again / "resnet20" / "metrics.jsonl").write_text("")
    with pytest.raises(InputError, match=r"resnet20/metrics\.jsonl: there is nothing to draw; remove"):
        reproduce(again, seed=0, settings=SHORT, device="cpu")


@pytest.mark.long
def test_an_interrupted_experiment_goes_on(
    short: Path, again: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # plain56 was interrupted after two iterations, and the residual networks had not begun.
    shutil.rmtree(again)
    shutil.copytree(short / "plain20", again / "plain20")
    save = checkpoint.save_checkpoint

    def save_and_stop(folder: Path, tensors: Any, progress: checkpoint.Progress) -> Path:
        saved = save(folder, tensors, progress)
        if progress.iteration == 2:
            raise Interrupted("stopped", 15)
        return saved

    monkeypatch.setattr(loop, "save_checkpoint", save_and_stop)
    with pytest.raises(Interrupted, match=r"stopped in .*plain56; give the same command again") as caught:
        reproduce(again, seed=0, settings=SHORT, device="cpu")
    assert caught.value.signal == 15
    assert not (again / "report.html").exists()

    monkeypatch.undo()
    reproduce(again, seed=0, settings=SHORT, device="cpu")
    sessions = {name: json.loads((again / name / "environment.json").read_text()) for name in RUNS}
    assert [session["iteration"] for session in sessions["plain56"]] == [0, 2]
    assert [len(sessions[name]) for name in ("plain20", "resnet20", "resnet56")] == [1, 1, 1]
    for name in RUNS:
        assert metrics_of(again / name) == metrics_of(short / name)
    assert "were there already: plain20\n" in capsys.readouterr().out


def test_another_seed_or_setting_needs_another_folder(again: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "train", no_training)
    with pytest.raises(InputError, match=r"plain20: .*seed: 0 -> 1.*another experiment: --out ANOTHER"):
        reproduce(again, seed=1, settings=SHORT, device="cpu")
    # Found before any training, even when the folder that does not fit is the last one.
    for name in RUNS[:3]:
        shutil.rmtree(again / name)
    with pytest.raises(InputError, match=r"resnet56: .*schedule\.iterations: 4 -> 8"):
        reproduce(again, seed=0, settings=[*SHORT, "schedule.iterations=8"], device="cpu")


@pytest.mark.parametrize("setting", ["model.name=cifar_resnet8", "data.dataset=cifar10", "model.shortcut=B"])
def test_it_stays_the_same_experiment(setting: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="these networks on the digits"):
        reproduce(tmp_path / "new", seed=0, settings=[setting], device="cpu")
    assert not (tmp_path / "new").exists()


def test_the_page_is_replaced_as_a_whole(again: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = again / "report.html"
    page.write_text("the page before")

    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("residual.files.replace_file", full)
    with pytest.raises(InputError, match="cannot be written: No space left on device"):
        reproduce(again, seed=0, settings=SHORT, device="cpu")
    assert page.read_text() == "the page before"


@pytest.mark.slow
def test_the_demo_shows_degradation_and_its_cure(tmp_path: Path) -> None:
    reproduce(tmp_path, seed=0, settings=[], device="cpu")
    verdict = Verdict(**{name: results(tmp_path, name)["train"]["top1_error"] for name in RUNS})
    assert verdict.degrades
    assert verdict.cured
    # Far above and far below, not by a hair.
    assert verdict.plain56 > 30
    assert verdict.resnet56 < 3


# --- in a browser ---


@pytest.fixture
def browse(tmp_path: Path) -> Callable[..., str]:
    if BROWSER is None:
        pytest.skip("there is no Chromium or Chrome here")

    def start(*arguments: str) -> str:
        return subprocess.run(
            [
                str(BROWSER),
                *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
                *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
                f"--user-data-dir={tmp_path / 'profile'}",
                *arguments,
            ],
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        ).stdout

    return start


@pytest.mark.parametrize("width", [1200, 500])
def test_a_browser_shows_the_page(
    short: Path, browse: Callable[..., str], tmp_path: Path, width: int
) -> None:
    image = tmp_path / "page.png"
    browse(f"--screenshot={image}", f"--window-size={width},1400", (short / "report.html").as_uri())
    with Image.open(image) as shot:
        assert shot.size == (width, 1400)
        colours = shot.convert("RGB").getcolors(10**7)
    assert len(colours) > 50
    # Both curves are there, in their colours.
    assert {(230, 152, 26), (47, 102, 200)} <= {colour for _, colour in colours}


def test_a_browser_finds_figure_and_table(short: Path, browse: Callable[..., str]) -> None:
    tree = browse("--dump-dom", (short / "report.html").as_uri())
    assert tree.count("<svg") == 2
    assert 'aria-label="Error against iterations, residual networks.' in tree
    assert '<th scope="row">ResNet-56</th>' in tree
