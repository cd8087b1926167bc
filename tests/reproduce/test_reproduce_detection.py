"""Tables 7 to 12 in miniature: coloured shapes laid out as the datasets are, and tiny networks."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import BEGUN, Call, Refused, save_network, set_options
from shapes import CLASSES, write_coco, write_devkit, write_imagenet_det

from residual import run
from residual.recipes import DETECTION, find, override
from residual.reproduce import detection
from residual.reproduce.detection import DETECTION as FAMILY
from residual.reproduce.detection import DetectionRow
from residual.reproduce.paper import TABLE7, TABLE8, TABLE9, TABLE10, TABLE11, TABLE12
from residual.reproduce.study import Study

#: What every run here is like; the networks are those of --weights.
LEFT_OUT = ("name=", "detector.backbone", "data.train=", "schedule.epochs=", "checkpoint_every=")
SETTINGS = [setting for setting in BEGUN if not setting.startswith(LEFT_OUT)]
NINTH = "coco-resnet101-context"
SET = set_options([*SETTINGS, "schedule.iterations=4", "evaluate_every=4"])
#: A little longer: Table 9's rows are to differ.
LONGER = set_options([*SETTINGS, "schedule.iterations=36", "evaluate_every=36"])


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> list[str | Path]:
    """Two tiny classifiers in the place of ImageNet's."""
    folder = tmp_path_factory.mktemp("weights")
    options: list[str | Path] = []
    for option, name in (("--weights-vgg16", "cifar_resnet14"), ("--weights-resnet101", "cifar_resnet8")):
        options += [option, save_network(folder / name, name, classes="ab")]
    return options


@pytest.fixture(scope="module")
def devkit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_devkit(tmp_path_factory.mktemp("VOCdevkit"))


@pytest.fixture(scope="module")
def coco(devkit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same images in COCO's layout."""
    return write_coco(tmp_path_factory.mktemp("coco") / "coco", devkit)


@pytest.fixture(scope="module")
def voc_study(
    devkit: Path, weights: list[str | Path], tmp_path_factory: pytest.TempPathFactory, call: Call
) -> Path:
    out = tmp_path_factory.mktemp("study") / "voc"
    assert call("reproduce", "table7", *weights, *SET, "--data-dir", devkit, "--out", out) == 0
    return out


@pytest.fixture(scope="module")
def coco_study(
    coco: Path, weights: list[str | Path], tmp_path_factory: pytest.TempPathFactory, call: Call
) -> Path:
    out = tmp_path_factory.mktemp("study") / "coco"
    common = [*weights, *LONGER, "--data-dir", coco, "--out", out]
    assert call("reproduce", "table8", *common) == 0
    assert call("reproduce", "table9", "--ensemble", "2", "--scales", "32,48,64", *common) == 0
    return out


@pytest.fixture(scope="module")
def det_study(
    devkit: Path, weights: list[str | Path], tmp_path_factory: pytest.TempPathFactory, call: Call
) -> Path:
    folder = tmp_path_factory.mktemp("det")
    write_imagenet_det(folder / "ILSVRC2015", devkit)
    data = ["--data-dir", folder, "--ensemble", "2", "--scales", "32,48"]
    assert call("reproduce", "table12", *weights[2:], *LONGER, *data, "--out", folder / "study") == 0
    return folder / "study"


def cells(row: DetectionRow) -> list[str]:
    """What a row says of the paper's number and ours."""
    (line,) = row.lines(by_class=False)
    return list(line.cells[2:])


def rows_of(study: Path, number: int) -> list[dict[str, Any]]:
    return json.loads((study / f"table{number}.json").read_text())["rows"]


def results_of(study: Path, recipe: str) -> dict[str, Any]:
    return json.loads((study / recipe / "seed0" / "results.json").read_text())


def test_table7_is_what_the_runs_measured(voc_study: Path, devkit: Path) -> None:
    rows = rows_of(voc_study, 7)
    assert [row["published"]["recipe"] for row in rows] == [row.recipe for row in TABLE7]
    for row, recipe in zip(rows[:2], ("voc07+12-vgg16", "voc07+12-resnet101"), strict=True):
        results = results_of(voc_study, recipe)
        assert row["ap50"] == results["test"]["ap50"]
        assert (row["images"], results["train_images"]) == (4, 12)
    assert [row["instead"] for row in rows[2:]] == ["not public"] * 2
    assert results_of(voc_study, "voc07++12-vgg16")["train_images"] == 16
    text = (voc_study / "table7.md").read_text()
    assert "| ResNet-101 | VOC 12 test | 73.8 | not public |" in text
    assert "submission to be written" in text
    # Four iterations of tiny networks on shapes say nothing about the paper's, and the files say so.
    assert "not comparable: " in text
    assert "schedule.iterations: 110000 -> 4" in text
    assert "detector.backbone.name: vgg16 -> cifar_resnet14" in text
    assert "3 classes, not 20" in text
    assert "vgg16 from the classifier /" in text


def test_the_command_that_table7_names_writes_the_submission(
    voc_study: Path, call: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("reproduce", "table7", "--no-train", "--out", voc_study) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    command = next(line for line in lines if line.startswith("residual detect") and "vgg16" in line)
    assert call(*command.split()[1:]) == 0
    assert call("reproduce", "table7", "--no-train", "--out", voc_study) == 0
    notes = [row["note"] for row in rows_of(voc_study, 7)]
    assert notes == [
        *("", ""),
        "submission written: voc07++12-vgg16/seed0/submission",
        "submission to be written",
    ]


@pytest.fixture(scope="module")
def named(devkit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The devkit, its shapes called by names of VOC's own."""
    folder = shutil.copytree(devkit, tmp_path_factory.mktemp("named") / "VOCdevkit")
    for file in folder.glob("*/Annotations/*.xml"):
        text = file.read_text()
        for shape, name in zip(CLASSES, ("bird", "sofa", "tvmonitor"), strict=True):
            text = text.replace(shape, name)
        file.write_text(text)
    return folder


@pytest.fixture(scope="module")
def coco_detector(
    coco: Path, weights: list[str | Path], tmp_path_factory: pytest.TempPathFactory, call: Call
) -> Path:
    """A detector with context."""
    out = tmp_path_factory.mktemp("detector") / "coco"
    started = ("coco-resnet101-context", "--weights", weights[3], *SET)
    assert call("detect", "train", *started, "--data-dir", coco, "--out", out) == 0
    return out


@pytest.fixture(scope="module")
def by_class(
    named: Path,
    weights: list[str | Path],
    coco_detector: Path,
    tmp_path_factory: pytest.TempPathFactory,
    call: Call,
) -> Path:
    out = tmp_path_factory.mktemp("study") / "by-class"
    started = [*weights, "--weights-coco", coco_detector, *SET, "--data-dir", named, "--out", out]
    for number in (10, 11):
        assert call("reproduce", f"table{number}", "--scales", "32,48", *started) == 0
    return out


@pytest.mark.long
def test_table10_is_by_class(by_class: Path, call: Call, capsys: pytest.CaptureFixture[str]) -> None:
    rows = rows_of(by_class, 10)
    assert all(list(row["classes"]) == ["bird", "sofa", "tvmonitor"] for row in rows)
    for row in rows[:2]:
        test = results_of(by_class, row["published"]["recipe"])["test"]
        assert (row["ap50"], row["classes"]) == (test["ap50"], test["classes"])
    capsys.readouterr()
    tuned = by_class / "voc07+12-resnet101-coco" / "seed0"
    assert call("detect", "evaluate", tuned, "--refine", "--scales", "32,48", "--json") == 0
    measured = json.loads(capsys.readouterr().out)
    assert rows[2]["ap50"] == pytest.approx(100 * measured["map"])
    text = (by_class / "table10.md").read_text()
    assert "| baseline, VGG-16 | mean | VOC 07 test | 73.2 |" in text
    assert (
        f"| baseline+++, ResNet-101 | sofa | VOC 07 test | 85.6 | {rows[2]['classes']['sofa']:.1f} |" in text
    )
    assert "resnet101 from the detector /" in text
    assert "not from a detector" not in text


@pytest.mark.long
def test_the_command_that_table11_names_has_the_improvements(
    by_class: Path, call: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    assert [row["instead"] for row in rows_of(by_class, 11)] == ["not public"] * 3
    text = (by_class / "table11.md").read_text()
    assert "aeroplane" not in text
    command = next(line.strip() for line in text.splitlines() if "resnet101-coco/seed0 --split" in line)
    assert "--no-boxes --refine --scales 32,48 --submission" in command
    assert call(*command.split()[1:]) == 0
    assert call("reproduce", "table11", "--no-train", "--out", by_class) == 0
    note = rows_of(by_class, 11)[2]["note"]
    assert note == "submission written: voc07++12-resnet101-coco/seed0/submission"


@pytest.mark.long
def test_a_run_that_goes_on_keeps_what_its_detector_brought(
    by_class: Path,
    coco_detector: Path,
    named: Path,
    tmp_path: Path,
    call: Call,
    refused: Refused,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(by_class / "voc07+12-resnet101-coco", tmp_path / "voc07+12-resnet101-coco")
    (tmp_path / "voc07+12-resnet101-coco" / "seed0" / "results.json").unlink()
    assert call("reproduce", "table10", *SET, "--out", tmp_path) == 0
    assert "going on with voc07+12-resnet101-coco, seed 0" in capsys.readouterr().err
    # A setting that is not said again is another experiment, as everywhere.
    one = ["--networks", "voc07+12-resnet101-coco", "--weights-coco", coco_detector, *SET]
    one += ["--data-dir", named, "--out", tmp_path / "other"]
    assert call("reproduce", "table10", *one, "--set", "detector.proposals=20", "--scales", "32,48") == 0
    assert "detector.proposals: 300 -> 20" in (tmp_path / "other" / "table10.md").read_text()
    assert "another experiment: --out" in refused("reproduce", "table10", *one)
    assert [row["note"] for row in rows_of(tmp_path, 10)[:2]] == [
        "no --weights-vgg16",
        "no --weights-resnet101",
    ]


@pytest.mark.long
def test_tables_8_and_9_share_their_runs(coco_study: Path) -> None:
    runs = sorted(str(path.parent.relative_to(coco_study)) for path in coco_study.glob("*/*/results.json"))
    assert runs == [
        "coco-resnet101-context/seed0",
        "coco-resnet101-context/seed1",
        "coco-resnet101/seed0",
        "coco-vgg16/seed0",
    ]
    eighth, ninth = rows_of(coco_study, 8), rows_of(coco_study, 9)
    assert [(row["ap50"], row["ap"]) for row in eighth] == [(row["ap50"], row["ap"]) for row in ninth[:2]]
    assert all(row["ap"] is not None and row["images"] == 4 for row in ninth[:5])
    kept = sorted(path.name for path in (coco_study / "coco-resnet101-context" / "seed0").glob("pre*.json"))
    assert kept == ["precision-refine-32-48-64.json", "precision-refine.json"]
    below = coco_study / "coco-resnet101-context"
    ensemble = json.loads((below / "ensemble-refine-32-48-64.json").read_text())
    assert ensemble["detectors"] == ["coco-resnet101-context/seed0", "coco-resnet101-context/seed1"]
    assert ninth[7]["ap"] == ensemble["ap"]
    assert "2 detectors, COCO val" in ninth[7]["note"]
    assert [ninth[5]["instead"], ninth[6]["instead"]] == ["not public"] * 2
    text = (coco_study / "table9.md").read_text()
    assert "multi-scale testing at 32, 48, 64, not 200, 400, 600, 800, 1000" in text
    assert "| + multi-scale testing | COCO test-dev | 55.7 / 34.9 | not public |" in text


@pytest.mark.long
def test_rows_are_what_detect_evaluate_measures(
    coco_study: Path, call: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = rows_of(coco_study, 9)
    run, context = (coco_study / name / "seed0" for name in ("coco-resnet101", "coco-resnet101-context"))
    assert rows[1]["ap"] > 0
    for row, weights, options in (
        (rows[1], run, []),
        (rows[2], run, ["--refine"]),
        (rows[4], context, ["--refine", "--scales", "32,48,64"]),
    ):
        assert call("detect", "evaluate", weights, *options, "--json") == 0
        measured = json.loads(capsys.readouterr().out)["coco"]
        assert (row["ap50"], row["ap"]) == pytest.approx((100 * measured["AP50"], 100 * measured["AP"]))


@pytest.mark.long
def test_table12_is_measured_on_val2_by_imagenets_rule(
    det_study: Path, call: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    quoted, single, ensemble, *secret = rows_of(det_study, 12)
    recipe = "imagenet-det-resnet101"
    results = results_of(det_study, recipe)
    assert (results["train_images"], results["test"]["images"]) == (
        6 + 10 - single["images"],
        single["images"],
    )
    assert list(results["classes"]) == ["bookshelf", "ping-pong ball", "pizza"]
    runs = [det_study / recipe / seed for seed in ("seed0", "seed1")]
    improved = ("--refine", "--scales", "32,48", "--json")
    for row, tested in ((single, runs[:1]), (ensemble, runs)):
        assert call("detect", "evaluate", *tested, *improved) == 0
        measured = json.loads(capsys.readouterr().out)
        assert (measured["ap_rule"], measured["data"]) == ("imagenet", "imagenet-det val2")
        assert row["ap50"] == pytest.approx(100 * measured["map"])
        assert row["ap50"] > 0
        assert row["ap"] is None
    assert [row["instead"] for row in secret] == ["not public"] * 2
    assert quoted["instead"] == "quoted"
    text = (det_study / "table12.md").read_text()
    assert "ImageNet's mean average precision in percent" in text
    assert "| single model | DET test | 58.8 | not public |" in text
    assert "3 classes, not 200" in text
    assert "val1 and val2 are halves of ours" in text
    assert "2 detectors, DET val2" in ensemble["note"]


@pytest.mark.long
def test_a_begun_run_goes_on_with_the_weights_that_it_began_with(
    coco_study: Path, tmp_path: Path, call: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(coco_study / "coco-vgg16", tmp_path / "coco-vgg16")
    (tmp_path / "coco-vgg16" / "seed0" / "results.json").unlink()
    assert call("reproduce", "table8", *LONGER, "--out", tmp_path) == 0
    assert "going on with coco-vgg16, seed 0" in capsys.readouterr().err
    first, second = rows_of(tmp_path, 8)
    assert first["ap"] == rows_of(coco_study, 8)[0]["ap"]
    assert (second["instead"], second["note"]) == ("not run", "no --weights-resnet101")


def test_runs_of_detect_train_count_and_say_how_they_depart(
    coco: Path, weights: list[str | Path], tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(weights[3]).parent)
    tiny = ["detect", "train", "coco-resnet101", *SET, "--data-dir", coco]
    scratch = ["--set", "detector.backbone.name=cifar_resnet8", "--set", "detector.backbone.variant=null"]
    scratch += ["--set", "detector.backbone.shortcut=null", "--set", "detector.backbone.pool=null"]
    for out, start in (("one", scratch), ("two", ["--weights", "cifar_resnet8"])):
        assert call(*tiny, *start, "--out", tmp_path / out / "coco-resnet101" / "seed0") == 0
        # The same weights by another path are the same.
        named = weights[2:] if out == "two" else []
        more = ["--networks", "coco-resnet101", *named, *SET, "--out", tmp_path / out]
        assert call("reproduce", "table8", *more) == 0
        assert rows_of(tmp_path / out, 8)[1]["images"] == 4
    first, second = ((tmp_path / out / "table8.md").read_text() for out in ("one", "two"))
    assert "started from scratch, not from a classifier" in first
    assert f"resnet101 from the classifier {Path(weights[3]).resolve()}" in second
    assert "scratch" not in second


@pytest.mark.long
def test_each_row_is_tested_with_its_own_improvements(
    coco_study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the detectors are loaded with for each row, where no result is kept."""
    out = shutil.copytree(coco_study, tmp_path / "study")
    for path in [*out.rglob("precision*.json"), *out.rglob("ensemble*.json")]:
        path.unlink()
    asked: list[tuple[list[str], bool, tuple[int, ...]]] = []
    original = detection.load_detector

    def watched(*folders: Path, refine: bool, scales: Sequence[int], **more: Any) -> Any:
        asked.append(([str(folder.relative_to(out)) for folder in folders], refine, tuple(scales)))
        return original(*folders, refine=refine, scales=scales, **more)

    monkeypatch.setattr(detection, "load_detector", watched)
    detection.table(Study(out, FAMILY, train=False), 9, scales=(16, 32))
    context = "coco-resnet101-context"
    assert asked == [
        (["coco-vgg16/seed0"], False, ()),
        (["coco-resnet101/seed0"], False, ()),
        (["coco-resnet101/seed0"], True, ()),
        ([f"{context}/seed0"], True, ()),
        ([f"{context}/seed0"], True, (16, 32)),
        ([f"{context}/seed0", f"{context}/seed1"], True, (16, 32)),
    ]


@pytest.mark.long
def test_an_ensemble_is_tested_again_where_a_member_was_trained_again(
    coco_study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = shutil.copytree(coco_study, tmp_path / "study")
    context = out / "coco-resnet101-context"
    file = context / "seed1" / "results.json"
    file.write_text(file.read_text().replace('"seconds": ', '"seconds": 1', 1))
    tested: list[int] = []

    def measured(study: object, runs: Sequence[object], *_: object, **__: object) -> dict[str, Any]:
        tested.append(len(runs))
        return {"ap50": 12.5, "ap": 6.25, "images": 4}

    monkeypatch.setattr(detection, "_measure", measured)
    for _ in range(2):
        detection.table(Study(out, FAMILY, train=False), 9, scales=(32, 48, 64))
        assert tested == [2]
    assert (rows_of(out, 9)[7]["ap50"], rows_of(out, 9)[7]["ap"]) == (12.5, 6.25)
    # What was kept before results were noted counts by the members' names.
    single = context / "seed0" / "precision-refine.json"
    single.write_text(json.dumps({k: v for k, v in json.loads(single.read_text()).items() if k != "results"}))
    detection.table(Study(out, FAMILY, train=False), 9, scales=(32, 48, 64))
    assert tested == [2]


def test_kept_precisions_know_of_which_images_and_boxes_they_are(
    coco: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = shutil.copytree(coco, tmp_path / "data")
    recipe = DETECTION["coco-vgg16"]
    boxes = json.loads((data / "annotations" / f"instances_{recipe.data.test[0]}.json").read_text())
    classes = dict.fromkeys((item["name"] for item in boxes["categories"]), 1)
    out = tmp_path / "study"
    path = out / "coco-vgg16" / "seed0"
    path.mkdir(parents=True)
    (path / "results.json").write_text("{}")
    one = detection.DetectorRun("coco-vgg16", path, recipe, recipe, {"classes": classes}, [], [{}])
    tests = iter((1.0, 2.0, 3.0))
    monkeypatch.setattr(detection, "_measure", lambda *_, **__: {"ap50": next(tests), "ap": 0.0, "images": 4})

    def ap50(data_dir: Path | None) -> float | None:
        study = Study(out, FAMILY, data_dir=data_dir, train=False)
        return detection._of_run(study, TABLE8[0], one, (), detection._identity).ap50

    assert [ap50(folder) for folder in (coco, data, None)] == [1, 1, 1]
    boxes["annotations"][0]["bbox"][2] -= 1
    (data / "annotations" / f"instances_{recipe.data.test[0]}.json").write_text(json.dumps(boxes))
    assert [ap50(folder) for folder in (data, data, None, coco)] == [2, 2, 2, 3]


@pytest.mark.long
def test_a_second_call_trains_and_tests_nothing(
    coco_study: Path, coco: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("it was there")

    monkeypatch.setattr(run, "train", never)
    monkeypatch.setattr(detection, "evaluate_detector", never)
    before = {path: path.read_bytes() for path in coco_study.glob("*.*")}
    # The weights need not be named again.
    assert call("reproduce", "table8", *LONGER, "--data-dir", coco, "--out", coco_study) == 0
    assert call("reproduce", "table9", "--no-train", "--scales", "64,48,32", "--out", coco_study) == 0
    assert {path: path.read_bytes() for path in coco_study.glob("*.*")} == before


def test_what_is_missing_is_not_run_and_says_why(
    devkit: Path, weights: list[str | Path], tmp_path: Path, call: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in (7, 8, 9):
        assert call("reproduce", f"table{number}", "--data-dir", devkit, "--out", tmp_path) == 0
        said = capsys.readouterr().out
        assert "no --weights-vgg16: " in said
        assert "no --weights-resnet101: " in said
        assert all(row["instead"] == "not run" and row["ap50"] is None for row in rows_of(tmp_path, number))
    # Of an ensemble the first member that cannot be trained says it.
    assert call("reproduce", "table9", "--data-dir", devkit, "--ensemble", "3", "--out", tmp_path) == 0
    assert "needs several detectors" not in capsys.readouterr().out
    assert "no --weights-resnet101" in rows_of(tmp_path, 9)[7]["note"]
    assert call("reproduce", "table8", *weights, "--out", tmp_path) == 0
    assert "no --data-dir: VGG-16 (COCO val); ResNet-101 (COCO val)" in capsys.readouterr().out
    assert call("reproduce", "table8", "--no-train", "--out", tmp_path) == 0
    assert "| VGG-16 | COCO val | 41.5 / 21.2 | not run |" in (tmp_path / "table8.md").read_text()


def test_a_table_of_ones_own_images_and_only_one_network(
    devkit: Path, weights: list[str | Path], tmp_path: Path, call: Call
) -> None:
    data = [f"data.{key}" for key in ("layout=voc", "train=trainval", "test=test")]
    assert (
        call(
            *("reproduce", "table8", "--networks", "coco-vgg16", *weights, *SET),
            *(word for setting in data for word in ("--set", setting)),
            *("--data-dir", devkit / "VOC2007", "--out", tmp_path),
        )
        == 0
    )
    first, second = rows_of(tmp_path, 8)
    assert (first["images"], second["ap50"]) == (4, None)
    assert "data.layout: coco -> voc" in (tmp_path / "table8.md").read_text()


@pytest.mark.long
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["table8", "--networks", "coco-resnet50"], "this experiment has coco-vgg16, coco-resnet101"),
        (["table8", "coco-vgg16"], "did you mean --networks?"),
        (["table8", "--weights-vgg16", "nowhere"], "there is no folder nowhere"),
        (["table8", "--weights-vgg16", "{detector}"], "holds a detector, and a classifier is expected"),
        (["table10", "--weights-coco", "{classifier}"], "holds a classifier, and a detector is expected"),
        (["table8", "{weights}", "--data-dir", "/nonexistent"], "there is no folder /nonexistent"),
        (["table7", "{weights}"], "VOC2007"),
        (["table8", "{weights}", "--set", "detector.backbone.name=resnet50"], "cannot change the network"),
        (["table8", "{weights}", "--set", "seed=3"], "cannot change the network, the name or the seed"),
        (["table8", "{weights}", "--set", "schedule.iteration=3"], "there is no key 'schedule.iteration'"),
        (["table7", "--set", "schedule.iteration=3"], "there is no key 'schedule.iteration'"),
        (["table9", "--scales", "a,b"], "--scales a,b: write whole numbers"),
    ],
)
def test_wrong_input_is_one_sentence(
    arguments: list[str],
    sentence: str,
    coco: Path,
    coco_study: Path,
    weights: list[str | Path],
    tmp_path: Path,
    call: Call,
    capsys: pytest.CaptureFixture[str],
) -> None:
    filled: list[str | Path] = []
    for word in arguments:
        filled += weights if word == "{weights}" else [word]
    places = {"{detector}": coco_study / "coco-vgg16" / "seed0", "{classifier}": weights[3]}
    filled = [places.get(str(word), word) for word in filled]
    data = [] if "--data-dir" in filled else ["--data-dir", coco]
    assert call("reproduce", *filled, *data, "--out", tmp_path / "new") == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_a_classifier_may_be_named_that_is_fetched(
    tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name is no path, which would be made absolute."""
    monkeypatch.setattr(detection, "is_detector", lambda named: False)
    words = ("reproduce", "table8", "--weights-resnet101", "torchvision:resnet100")
    said = refused(*words, "--data-dir", tmp_path, "--out", tmp_path / "study")
    assert "there are no weights 'torchvision:resnet100'" in said


@pytest.mark.long
def test_studies_of_different_settings_do_not_mix(
    coco_study: Path, coco: Path, tmp_path: Path, call: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("reproduce", "table8", "--data-dir", coco, "--out", coco_study) == 2
    assert "another experiment: --out ANOTHER_FOLDER" in capsys.readouterr().err
    for recipe in ("coco-vgg16", "coco-resnet101"):
        shutil.copytree(coco_study / recipe, tmp_path / recipe)
    file = tmp_path / "coco-vgg16" / "seed0" / "recipe.yaml"
    file.write_text(file.read_text().replace("learning_rate: 0.02", "learning_rate: 0.01"))
    assert call("reproduce", "table8", "--no-train", "--out", tmp_path) == 2
    assert "cannot be compared" in capsys.readouterr().err


@pytest.mark.long
def test_a_member_of_other_settings_is_refused_before_anything_is_trained(
    coco_study: Path, coco: Path, weights: list[str | Path], tmp_path: Path, refused: Refused
) -> None:
    shutil.copytree(coco_study / NINTH / "seed1", tmp_path / NINTH / "seed1")
    options = [*weights, *SET, "--data-dir", coco, "--out", tmp_path]
    assert "cannot be compared" in refused("reproduce", "table9", *options)
    assert not (tmp_path / "coco-vgg16").exists()


def test_a_run_on_boxes_in_another_layout_departs_from_the_papers() -> None:
    paper = DETECTION["coco-vgg16"]
    recipe = override(paper, ["data.layout=yolo", "data.train=train", "data.test=val"])
    results, sessions = {"classes": {"cat": 1.0}}, [{"started_from": "the classifier weights/vgg16"}]
    one = detection.DetectorRun("coco-vgg16", Path(), paper, recipe, results, [], sessions)
    assert "data.layout: coco -> yolo" in one.departures
    assert "1 classes, not 80" in one.departures


def test_how_the_classifier_of_a_detector_was_trained_is_told(tmp_path: Path) -> None:
    paper, start = DETECTION["coco-resnet101"], find("imagenet-resnet101")
    recipe = override(paper, [f"detector.backbone.weights={tmp_path}"])
    sessions = [{"started_from": f"the classifier {tmp_path}"}]
    one = detection.DetectorRun("coco-resnet101", Path(), paper, recipe, {}, [], sessions)
    from_it = f"resnet101 from the classifier {tmp_path}"
    # What is not there, was imported or cannot be read any more tells nothing.
    for content in (None, {"classes": ["cat"], "recipe": None}, {"classes": ["cat"], "recipe": {"a": 1}}):
        if content:
            (tmp_path / "config.json").write_text(json.dumps(content))
        assert one.origin == from_it
    begun = override(start, ["schedule.learning_rate=0.05", "seed=3"]).model_dump(mode="json")
    for recipe_of, classes, told in (
        (start.model_dump(mode="json"), 1000, ""),
        (begun, 3, " (schedule.learning_rate: 0.1 -> 0.05; 3 classes, not 1,000)"),
    ):
        stored = {"classes": [f"class {number}" for number in range(classes)], "recipe": recipe_of}
        (tmp_path / "config.json").write_text(json.dumps(stored))
        assert one.origin == from_it + told


def test_a_comparable_row_shows_the_difference() -> None:
    assert cells(DetectionRow(TABLE8[1], 48.0, 27.5, 40_000)) == ["48.4 / 27.2", "48.0 / 27.5", "+0.3"]
    assert cells(DetectionRow(TABLE7[0], 72.9, None, 4952)) == ["73.2", "72.9", "-0.3"]
    assert cells(DetectionRow(TABLE7[0], 72.9, None, 4952, departs=True)) == ["73.2", "72.9", ""]


def test_each_class_is_compared_with_the_papers() -> None:
    found = {"bicycle": 81.7, "bird": None, "zebra": 12.0}
    lines = DetectionRow(TABLE10[1], 76.0, None, 4952, found).lines(by_class=True)
    assert [list(line.cells) for line in lines] == [
        ["baseline, ResNet-101", "mean", "VOC 07 test", "76.4", "76.0", "-0.4"],
        ["baseline, ResNet-101", "bicycle", "VOC 07 test", "80.7", "81.7", "+1.0"],
        ["baseline, ResNet-101", "bird", "VOC 07 test", "76.2", "-", ""],
    ]


def test_three_detectors_on_val2_are_compared_with_the_papers() -> None:
    assert cells(DetectionRow(TABLE12[2], 63.0, None, 10_000)) == ["63.6", "63.0", "-0.6"]


def test_the_papers_numbers() -> None:
    """Read off the tables a second time; each has a recipe, and the improvements add up."""
    assert [row.ap50 for row in TABLE7] == [73.2, 76.4, 70.4, 73.8]
    assert [(row.ap50, row.ap) for row in TABLE8] == [(41.5, 21.2), (48.4, 27.2)]
    val = [(row.ap50, row.ap) for row in TABLE9 if row.tested == "COCO val"]
    assert val == [(41.5, 21.2), (48.4, 27.2), (49.9, 29.9), (51.1, 30.0), (53.8, 32.5)]
    assert [(row.ap50, row.ap) for row in TABLE9[5:]] == [(53.3, 32.2), (55.7, 34.9), (59.0, 37.4)]
    assert [row.ap50 for row in (*TABLE10, *TABLE11)] == [73.2, 76.4, 85.6, 70.4, 73.8, 83.8]
    for row in (*TABLE10, *TABLE11):
        assert len(row.classes) == 20
        # As exact as numbers with one decimal are.
        assert sum(row.classes.values()) / 20 == pytest.approx(row.ap50, abs=0.0501)
    quoted, *ours = TABLE12
    assert (quoted.tested, quoted.ap50) == ("DET test", 43.9)
    det = {(row.tested, row.members): row.ap50 for row in ours}
    assert det == {
        ("DET val2", 1): 60.5,
        ("DET val2", 3): 63.6,
        ("DET test", 1): 58.8,
        ("DET test", 3): 62.1,
    }
    tables = (*TABLE7, *TABLE8, *TABLE9, *TABLE10, *TABLE11, *ours)
    assert {row.recipe for row in tables} <= DETECTION.keys()
    assert DETECTION[TABLE9[3].recipe].detector.global_context


@pytest.mark.parametrize("number", [7, 8, 9, 10, 11, 12])
def test_help_has_examples(number: int, call: Call, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("reproduce", f"table{number}", "--help") == 0
    assert f"\n    residual reproduce table{number} --data-dir ~/" in capsys.readouterr().out
