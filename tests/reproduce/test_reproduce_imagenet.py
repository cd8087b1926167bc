"""Tables 2 to 5 and Figure 4, on a few small generated images."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import SMALL, WIDTHS, Call, Refused, Shown, sentence_of, set_options, smooth_image

from residual.evaluation.metrics import Metrics
from residual.evaluation.scores import Scores, load_scores
from residual.models import imagenet as networks
from residual.models.blocks import BasicBlock, BottleneckBlock
from residual.recipes import find
from residual.reproduce import imagenet
from residual.reproduce.curves import unlearned
from residual.reproduce.paper import TABLE2, TABLE3, TABLE4, TABLE5


@pytest.fixture(autouse=True, scope="module")
def narrow() -> Iterator[None]:
    """The paper's depths with few channels: what is tested is what is made of runs, not what they learn."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(networks, "WIDTHS", WIDTHS)
        yield


@pytest.fixture(scope="module")
def study(narrow: None, images: Path, tmp_path_factory: pytest.TempPathFactory, call: Call) -> Path:
    out = tmp_path_factory.mktemp("study") / "imagenet"
    common = [*set_options(SMALL), "--data-dir", images, "--out", out]
    assert call("reproduce", "figure4", *common) == 0
    assert call("reproduce", "signals-imagenet", "--networks", "plain34", "resnet34-a", *common) == 0
    assert call("reproduce", "table2", *common) == 0
    assert call("reproduce", "table3", "--networks", "plain34", "resnet34-a", *common) == 0
    assert call("reproduce", "table4", "--networks", "resnet34-b", *common) == 0
    assert call("reproduce", "table5", "--networks", "resnet34-b", *common) == 0
    return out


def rows_of(study: Path, number: int) -> dict[str, dict[str, Any]]:
    table = json.loads((study / f"table{number}.json").read_text())
    assert any("3 classes, not ImageNet's 1000" in change for change in table["departures"])
    return {row["published"]["method"]: row for row in table["rows"]}


def test_tables_stand_beside_the_paper(study: Path) -> None:
    second, third, fourth, fifth = (rows_of(study, number) for number in (2, 3, 4, 5))
    assert list(second) == [row.method for row in TABLE2]
    assert all(row["top1"] is not None and row["images"] == 8 for row in second.values())
    assert list(third) == [row.method for row in TABLE3]
    assert third["ResNet-34 A"]["top1"] == second["ResNet-34"]["top1"]
    assert third["ResNet-34 B"]["top1"] is None
    assert list(fourth) == [row.method for row in TABLE4]
    assert fourth["ResNet-34 B"]["top5"] is not None
    # An ensemble of one network is that network.
    assert fifth[TABLE5[-1].method]["top1"] == fourth["ResNet-34 B"]["top1"]
    text = (study / "table3.md").read_text()
    assert "| VGG-16 | 28.07 | 9.33 | quoted |" in text
    assert "| ResNet-152 | 21.43 | 5.71 | not run |" in text
    assert "not comparable" in text
    runs = sorted(path.parent.parent.name for path in study.glob("*/*/results.json"))
    expected = ["plain18", "plain34", "resnet18", "resnet34-a", "resnet34-b"]
    assert runs == [f"imagenet-{name}" for name in expected]


def test_the_report_shows_the_tables(study: Path, tmp_path: Path, call: Call) -> None:
    folders = ["--imagenet", study, "--detection", tmp_path / "nothing"]
    assert call("reproduce", "report", "--out", tmp_path, *folders) == 0
    text = (tmp_path / "report.html").read_text()
    top1 = rows_of(study, 2)["plain-18"]["top1"]
    cells = "<td>27.94</td><td>-</td>" + f"<td>{top1:.2f}</td>"
    assert f'<th scope="row">plain-18</th>{cells}' in text
    assert "10 classes" not in text
    assert "3 classes, not ImageNet&#39;s 1000" in text
    assert text.count("data:image/svg+xml;base64,") == 1
    # These are three classes' images: neither headings nor the figure say that they are ImageNet's.
    assert "on ImageNet" not in text.partition("Table 12")[0]
    figure = text.partition("<h2>Figure 4")[2].partition("<h2>")[0]
    assert "Not the paper&#39;s experiment" in figure
    assert "plain networks:" in figure
    command = "residual reproduce table8 --data-dir DIR --weights-resnet101 WEIGHTS"
    assert f"Table 8: not run. <code>{command} --out {tmp_path / 'nothing'}<" in text


def test_the_report_does_not_tell_where_home_is_and_names_the_dataset(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "tiny" / "tiny-imagenet-resnet18").mkdir(parents=True)
    assert call("reproduce", "report", "--out", tmp_path, "--imagenet", tmp_path / "tiny") == 0
    text = (tmp_path / "report.html").read_text()
    assert str(tmp_path) not in text
    assert "residual reproduce table2 --data-dir DIR --out ~/tiny --dataset tiny-imagenet<" in text


def test_an_ensemble_may_have_a_network_twice(
    study: Path, images: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(imagenet.ENSEMBLE) == 6
    assert [seed for name, seed in imagenet.ENSEMBLE if name == "resnet152"] == [0, 1]
    monkeypatch.setattr(imagenet, "ENSEMBLE", (("resnet18", 0), ("resnet18", 1)))
    out = tmp_path / "imagenet"
    shutil.copytree(study, out)
    common = ["--data-dir", images, *set_options(SMALL), "--out", out]
    assert call("reproduce", "table5", *common) == 0
    assert sorted(path.parent.name for path in (out / "imagenet-resnet18").glob("*/results.json")) == [
        "seed0",
        "seed1",
    ]
    table = json.loads((out / "table5.json").read_text())
    assert table["protocol"] == "multi-scale, ensemble of 2"
    scores = [
        load_scores(out / "imagenet-resnet18" / f"seed{seed}" / "scores-multi-scale.safetensors")
        for seed in (0, 1)
    ]
    mean = sum(one.probabilities for one in scores) / 2
    error = 100 * float((mean.argmax(dim=1) != scores[0].targets).double().mean())
    assert table["rows"][-1]["top1"] == pytest.approx(error)


def test_kept_errors_know_of_which_images_they_are(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where these lie is of no matter, and where nobody knows what they are today what is kept counts."""
    recipe = find("imagenet-resnet18")
    run = imagenet.ClassifierRun("resnet18", tmp_path / "run", recipe, recipe, {}, [{}], [])
    run.path.mkdir()
    scores = Scores(("a",), ("x", "y"), torch.tensor([[0.5, 0.5]]), torch.tensor([0]), {})
    tests = iter(range(1, 9))

    def evaluate(*_: object, **__: object) -> SimpleNamespace:
        found = {"top1_error": float(next(tests)), "top5_error": 0.0, "images": 8}
        return SimpleNamespace(scores=scores, summary=lambda: found)

    monkeypatch.setattr(imagenet, "evaluate", evaluate)

    def error(data_dir: Path | None) -> float:
        study = imagenet.Study(tmp_path, imagenet.IMAGENET, data_dir=data_dir, train=False)
        return imagenet.errors_of(study, run, imagenet.TEN_CROP)["top1_error"]

    moved = shutil.copytree(images, tmp_path / "moved")
    assert [error(folder) for folder in (images, moved, None)] == [1, 1, 1]
    smooth_image(seed=99).save(next((moved / "val").rglob("*.png")))
    assert [error(folder) for folder in (moved, moved, None, images)] == [2, 2, 2, 3]
    file = run.path / "errors-ten-crop.json"
    older = {key: value for key, value in json.loads(file.read_text()).items() if key != "content"}
    file.write_text(json.dumps(older))
    assert error(moved) == 3
    assert "no folder" in sentence_of(lambda: error(tmp_path / "nowhere"))


@pytest.fixture
def papers_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Metrics:
    """What a run of ResNet-34 A, which departs in nothing, stands in every study with."""
    recipe = find("imagenet-resnet34-a")
    alone = imagenet.ClassifierRun("resnet34-a", tmp_path, recipe, recipe, {}, [{}], [])
    metrics = Metrics(1.0, 25.0, 7.5, 50_000, 1.0)
    monkeypatch.setattr(imagenet.Study, "members", lambda *_: [alone])
    monkeypatch.setattr(imagenet.ClassifierRun, "classes", 1000)
    monkeypatch.setattr(imagenet, "errors_of", lambda *_: metrics.plain())
    return metrics


def test_an_ensemble_is_not_compared_with_one_on_the_test_set(
    papers_run: Metrics, tmp_path: Path, shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor one of a single network with one of six."""
    found = ([("resnet34-a", papers_run)], SimpleNamespace(metrics=lambda: papers_run))
    monkeypatch.setattr(imagenet, "evaluate_ensemble", lambda *_, **__: found)
    shown("reproduce", "table5", "--no-train", "--out", tmp_path)
    table = json.loads((tmp_path / "table5.json").read_text())
    assert table["departures"] == []
    assert (table["rows"][-1]["top5"], "diff." in table["headings"]) == (7.5, False)


def test_a_table_with_both_errors_says_of_which_its_differences_are(
    papers_run: Metrics, tmp_path: Path, shown: Shown
) -> None:
    for number, difference in ((2, "-0.03"), (3, "-0.26")):
        shown("reproduce", f"table{number}", "--no-train", "--out", tmp_path)
        table = json.loads((tmp_path / f"table{number}.json").read_text())
        place = table["headings"].index("diff.")
        assert [row[place] for row in table["cells"] if row[3] == "25.00"] == [difference]
        assert ("differences are of top-5 errors" in table["caption"]) == (number == 3)


def test_rivals_that_were_run_stand_beside_what_was_published(
    tmp_path: Path, shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = {
        name: imagenet.ClassifierRun(name, tmp_path, recipe, recipe, {}, [{}], [])
        for name in ("vgg16", "prelu_net", "bn_inception")
        for recipe in [find(f"imagenet-{name}")]
    }
    monkeypatch.setattr(imagenet.Study, "complete", lambda _, network, seed=0: runs.get(network))
    monkeypatch.setattr(imagenet.ClassifierRun, "classes", 1000)
    monkeypatch.setattr(imagenet, "errors_of", lambda *_: Metrics(1.0, 25.0, 7.5, 50_000, 1.0).plain())
    found = {}
    for number, dataset in ((3, "imagenet"), (4, "tiny-imagenet")):
        shown("reproduce", f"table{number}", "--no-train", "--dataset", dataset, "--out", tmp_path)
        table = json.loads((tmp_path / f"table{number}.json").read_text())
        assert table["departures"] == []
        found |= {(number, row[0]): row[3:] for row in table["cells"]}
    # Ours of the same network is compared, of another one it is not.
    assert found[3, "VGG-16"] == ["25.00", "7.50", "-1.83", "its authors' weights, tested by the paper's"]
    assert found[3, "GoogLeNet"] == ["quoted", "", "", ""]
    assert found[3, "PReLU-net"][:3] == found[4, "VGG (v5)"][:3] == ["25.00", "7.50", ""]
    assert found[4, "VGG (v5)"][3] == "its 19 layers; ours would be 16"
    assert found[4, "BN-inception"][:3] == ["25.00", "7.50", "+1.69"]
    assert found[4, "ResNet-50"][0] == "not run"


def test_rivals_are_trained_where_they_are_named(
    tmp_path: Path, shown: Shown, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[set[str]] = []
    monkeypatch.setattr(
        imagenet.Study, "train_missing", lambda _, recipes, __: trained.append({name for name, _ in recipes})
    )
    shown("reproduce", "table3", "--networks", "googlenet", "vgg16", "--out", tmp_path)
    shown("reproduce", "table3", "--out", tmp_path)
    assert trained == [{"googlenet", "vgg16"}, {row.network for row in TABLE3[3:]}]
    said = refused("reproduce", "table3", "--networks", "bn_inception", "--out", tmp_path)
    assert "resnet152, vgg16, googlenet, prelu_net" in said
    assert [name for name, _ in imagenet.ENSEMBLE][:2] == ["resnet34-b", "resnet34-c"]


def test_figure4(study: Path) -> None:
    text = (study / "figure4.svg").read_text(encoding="utf-8")
    for word in ("plain networks", "residual networks", "18-layer", "34-layer", "validation", "error (%)"):
        assert word in text
    stored = json.loads((study / "figure4.json").read_text())
    assert list(stored["networks"]) == ["plain-18", "plain-34", "ResNet-18", "ResNet-34 A"]


def test_signals_of_the_networks_that_the_paper_speaks_of(study: Path) -> None:
    stored = json.loads((study / "signals.json").read_text())
    assert list(stored["networks"]) == ["plain-18", "plain-34", "ResNet-18", "ResNet-34 A"]
    assert len(stored["networks"]["plain-34"]["at initialisation"]) == 32
    assert all("non-zero variances" in sentence for sentence in stored["statements"])
    assert (study / "imagenet-plain34" / "seed0" / "signals.json").is_file()


def test_a_network_that_a_table_has_not(
    study: Path, images: Path, call: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("reproduce", "table2", "--networks", "resnet50", "--out", study) == 2
    assert "this experiment has plain18, plain34" in capsys.readouterr().err


def tiny_imagenet(root: Path) -> Path:
    """Write Tiny ImageNet as it is downloaded, with three classes of four images, and return its folder."""
    wnids = ("n01443537", "n02124075", "n07583066")
    (root / "val" / "images").mkdir(parents=True)
    annotations = []
    for k, wnid in enumerate(wnids):
        (root / "train" / wnid / "images").mkdir(parents=True)
        for number in range(4):
            image = smooth_image(64, 64, seed=10 * k + number)
            image.save(root / "train" / wnid / "images" / f"{wnid}_{number}.JPEG")
            image.save(root / "val" / "images" / f"val_{4 * k + number}.JPEG")
            annotations.append(f"val_{4 * k + number}.JPEG\t{wnid}\t0\t0\t62\t63\n")
    (root / "val" / "val_annotations.txt").write_text("".join(annotations))
    (root / "words.txt").write_text("".join(f"{wnid}\tname of {wnid}\n" for wnid in wnids))
    return root


def test_the_study_on_tiny_imagenet(
    tmp_path: Path, call: Call, shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    for depth in (18, 34, 50):
        block = BasicBlock if depth < 50 else BottleneckBlock
        monkeypatch.setitem(networks.TABLE_1, depth, (block, (1, 1, 1, 1)))
    monkeypatch.chdir(tmp_path)
    data = tiny_imagenet(tmp_path / "tiny-imagenet-200")
    short = ["schedule.iterations=2", "batch.size=4", "batch.bn_group=4"]
    common = ["--dataset", "tiny-imagenet", "--data-dir", data, *set_options(short)]
    begun = Path("runs/tiny-imagenet/tiny-imagenet-plain34/seed0")
    begun.mkdir(parents=True)
    begun.joinpath("recipe.yaml").write_text(find("tiny-imagenet-plain34").to_yaml())

    # What is there is drawn, and what is not is named.
    told = shown("reproduce", "figure4", "--networks", "plain18", "resnet18", *common)
    assert (
        "not complete in runs/tiny-imagenet: tiny-imagenet-plain34/seed0 (begun), "
        "tiny-imagenet-resnet34-a/seed0" in told.err
    )
    drawn = json.loads(Path("runs/tiny-imagenet/figure4.json").read_text())
    assert list(drawn["networks"]) == ["plain-18", "ResNet-18"]
    # One crop of ours, beside Table 2's ten crops.
    row = next(line for line in told.out.splitlines() if "ResNet-18" in line and "27.88" in line)
    assert f"{drawn['networks']['ResNet-18']['validation_error']:.2f}" in row
    # Against Section 3.4, not against recipes of our own.
    for change in ("3 classes", "size: 224 -> 64", "batch.size: 256 -> 4", "shorter_side: None -> [64, 88]"):
        assert change in " ".join(drawn["departures"])

    assert call("reproduce", "table2", "--networks", "resnet18", *common) == 0
    assert call("reproduce", "table5", *common) == 0
    assert call("reproduce", "table4", "--no-train", *common[:2]) == 0
    second, fourth, fifth = (rows_of(Path("runs/tiny-imagenet"), number) for number in (2, 4, 5))
    assert second["ResNet-18"]["images"] == 12
    assert second["plain-34"]["top1"] is None
    # Table 5's ensemble is of three here: Table 4's networks that Tiny ImageNet has recipes for.
    assert {name for name, row in fourth.items() if row["top1"] is not None} == {
        "ResNet-34 B",
        "ResNet-34 C",
        "ResNet-50",
    }
    assert json.loads(Path("runs/tiny-imagenet/table5.json").read_text())["protocol"].endswith("of 3")
    assert fifth[TABLE5[-1].method]["top1"] is not None
    run = Path("runs/tiny-imagenet/tiny-imagenet-resnet50/seed0")
    views = json.loads((run / "errors-multi-scale.json").read_text())["views"]
    # The paper's scales, 224 to 640, for 64 in place of 224.
    assert views == "multi-scale (shorter side 64,73,110,137,183)"


def test_a_network_has_learned_that_is_right_about_half_or_five_times_as_often_as_chance() -> None:
    assert [unlearned(classes) for classes in (3, 10, 200)] == [50, 50, 97.5]


def test_the_papers_numbers() -> None:
    """Read off Tables 2 to 5 a second time."""
    assert [row.top1 for row in TABLE2] == [27.94, 28.54, 27.88, 25.03]
    assert {row.method: (row.top1, row.top5) for row in TABLE3} == {
        "VGG-16": (28.07, 9.33),
        "GoogLeNet": (None, 9.15),
        "PReLU-net": (24.27, 7.38),
        "plain-34": (28.54, 10.02),
        "ResNet-34 A": (25.03, 7.76),
        "ResNet-34 B": (24.52, 7.46),
        "ResNet-34 C": (24.19, 7.40),
        "ResNet-50": (22.85, 6.71),
        "ResNet-101": (21.75, 6.05),
        "ResNet-152": (21.43, 5.71),
    }
    assert {row.method: (row.top1, row.top5) for row in TABLE4} == {
        "VGG (ILSVRC'14)": (None, 8.43),
        "GoogLeNet (ILSVRC'14)": (None, 7.89),
        "VGG (v5)": (24.4, 7.1),
        "PReLU-net": (21.59, 5.71),
        "BN-inception": (21.99, 5.81),
        "ResNet-34 B": (21.84, 5.71),
        "ResNet-34 C": (21.53, 5.60),
        "ResNet-50": (20.74, 5.25),
        "ResNet-101": (19.87, 4.60),
        "ResNet-152": (19.38, 4.49),
    }
    assert [row.top5 for row in TABLE5] == [7.32, 6.66, 6.8, 4.94, 4.82, 3.57]
