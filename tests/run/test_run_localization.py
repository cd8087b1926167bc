"""Whole localization runs: squares found, by one stage and by two, every protocol; and wrong beginnings."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Call, Refused, Shown, assert_same_run, metrics_of, results_of, sentence_of, set_options
from located import SQUARES, WNIDS, write_classifier, write_tiny
from PIL import Image
from servers import HubServer

import residual as package
from residual.distributed import World
from residual.recipes import LocalizationRecipe, find, override
from residual.run import start_from
from residual.run.run import task_of
from residual.tensors import unpack

RECIPE, RCNN = "tiny-imagenet-localization-resnet18", "tiny-imagenet-localization-rcnn-resnet18"
#: Settings of the second that make a run of a few seconds.
REFINED = [
    "name=refined",
    "batch.size=16",
    "batch.at_once=16",
    "schedule.epochs=null",
    "schedule.iterations=80",
    "schedule.learning_rate=0.02",
    "evaluate_every=80",
    "checkpoint_every=40",
    "rcnn.proposals=12",
]


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("data") / "squares", train=16, val=8)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classifier(tmp_path_factory.mktemp("weights") / "classifier")


@pytest.fixture(scope="module")
def learned(squares: Path, classifier: Path, tmp_path_factory: pytest.TempPathFactory, call: Call) -> Path:
    out = tmp_path_factory.mktemp("runs") / "learned"
    arguments = (RECIPE, "--weights", classifier, *set_options(SQUARES), "--data-dir", squares)
    assert call("locate", "train", *arguments, "--out", out) == 0
    return out


@pytest.fixture(scope="module")
def refined(learned: Path, squares: Path, tmp_path_factory: pytest.TempPathFactory, call: Call) -> Path:
    out = tmp_path_factory.mktemp("runs") / "refined"
    arguments = (RCNN, "--weights", learned, *set_options(REFINED), "--data-dir", squares)
    assert call("locate", "train", *arguments, "--out", out) == 0
    return out


def test_squares_are_located(learned: Path) -> None:
    results = results_of(learned)
    # Nine of ten squares are not in the middle.
    assert results["middle_box"]["localization_error"] > 80
    assert results["test"]["localization_error"] < 40
    assert results["dense"]["localization_error"] < 50
    assert results["test"]["images"] == results["dense"]["images"] == 24
    assert results["train_images"] == 48
    # Of three classes all are among five guesses, so that the true one is asked for as well.
    assert results["guessed"]["classification_error"] == 0
    assert results["guessed"]["localization_error"] == results["dense"]["localization_error"]
    (last,) = metrics_of(learned)
    assert last["test"]["localization_error"] == results["test"]["localization_error"]
    assert last["train"]["images"] == 8 * 120
    page = (learned / "report.html").read_text()
    assert "always the middle box of the mean size" in page
    assert page.count("<img src") >= 8


def test_a_localizer_is_shared_with_a_card_of_its_own(
    learned: Path, classifier: Path, squares: Path, hub: HubServer, tmp_path: Path, shown: Shown
) -> None:
    shown("push", learned, "somebody/squares", "--dry-run", tmp_path / "shared")
    card = (tmp_path / "shared" / "README.md").read_text()
    assert "pipeline_tag: object-detection" in card
    assert "A localizer on cifar_resnet8 for 3 classes, by per-class regression (appendix C)" in card
    results = results_of(learned)
    for words, key in (("centre crop, true class", "test"), ("always the middle box", "middle_box")):
        assert f"| {words} | 24 | {results[key]['localization_error']:.2f} % |" in card
    assert "with its boxes: 48 to train on." in card
    assert "residual locate predict hf:somebody/squares image.jpg --classifier CLASSIFIER" in card
    assert 'residual.load_localizer("hf:somebody/squares", classifier="CLASSIFIER")' in card
    hub.put("somebody/squares", tmp_path / "shared")
    image = squares / "val" / "images" / "val_0.JPEG"
    theirs = package.load_localizer("hf:somebody/squares", classifier=classifier, device="cpu")
    assert theirs.predict(image) == package.load_localizer(learned, device="cpu").predict(image)


def test_a_trained_localizer_is_tested_and_used(
    learned: Path, squares: Path, classifier: Path, tmp_path: Path, shown: Shown, refused: Refused
) -> None:
    results = results_of(learned)
    measured = json.loads(shown("locate", "evaluate", learned, "--json").out)["protocols"]
    assert [each["localization_error"] for each in measured] == [
        results[key]["localization_error"] for key in ("test", "dense", "guessed", "middle_box")
    ]
    told = shown("locate", "evaluate", learned, "--no-guesses", "--data-dir", squares).out
    assert "middle" in told
    assert "classification" not in told

    image = squares / "val" / "images" / "val_0.JPEG"
    drawn = ("--out", tmp_path / "drawn", "--sheet", tmp_path / "sheet.png")
    told = shown("locate", "predict", learned, image, "--json", "--top", 2, *drawn).out
    guesses = json.loads(told)["images"][0]["guesses"]
    assert len(guesses) == 2
    assert Image.open(tmp_path / "drawn" / "val_0.png").size == (512, 512)
    assert (tmp_path / "sheet.png").is_file()
    localizer = package.load_localizer(learned, device="cpu")
    found = localizer.predict(image, 2)
    assert [guess.name for guess in found] == [guess["class"] for guess in guesses]
    assert {guess.name for guess in found} <= set(WNIDS)
    assert list(found[0].box) == pytest.approx(guesses[0]["box"], abs=1e-3)
    Image.new("RGB", (10, 10_000)).save(tmp_path / "long.png")
    assert "10 x 10000 is too long" in refused("locate", "predict", learned, tmp_path / "long.png")
    assert "10 x 10000 is too long" in sentence_of(lambda: localizer.predict(tmp_path / "long.png"))
    early = shutil.copytree(learned / "weights", tmp_path / "early")
    config = json.loads((early / "config.json").read_text())
    config["results"] |= {"iterations": 3, "of_iterations": 4, "complete": False}
    (early / "config.json").write_text(json.dumps(config))
    told = shown("locate", "predict", early, image).err
    assert f"note: {early} has the weights of iteration 3 of 4: the run is not complete" in told
    for asked, words in (({"split": "train"}, "leave split out"), ({"precision": "bfloat16"}, "in float32")):
        assert words in sentence_of(lambda: package.evaluate(learned, squares, device="cpu", **asked))  # noqa: B023
    assert "in float32" in sentence_of(lambda: package.FinishedRun(learned, {}).load("cpu", "bfloat16"))
    # The same from Python, of either kind.
    from_python = package.evaluate(learned, squares, device="cpu")
    assert [each.errors.localization for each in from_python.protocols] == pytest.approx(
        [each["localization_error"] for each in measured]
    )


def test_a_stopped_run_goes_on_to_the_same_end(
    squares: Path, classifier: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = [*SQUARES, "schedule.iterations=6", "evaluate_every=3", "checkpoint_every=2"]
    arguments = (RECIPE, "--weights", classifier, *set_options(short), "--data-dir", squares)
    assert call("locate", "train", *arguments, "--out", tmp_path / "whole") == 0
    begun = tmp_path / "begun"
    shutil.copytree(tmp_path / "whole", begun)
    for name in ("results.json", "report.html", "detections.safetensors"):
        (begun / name).unlink()
    shutil.rmtree(begun / "weights")
    (begun / "checkpoint-0000006.safetensors").unlink()
    # The weights that it started from are not needed any more.
    moved = classifier.rename(classifier.with_name("moved"))
    try:
        assert call("locate", "train", "--resume", "--out", begun) == 0
    finally:
        moved.rename(classifier)
    assert_same_run(tmp_path / "whole", begun)
    assert results_of(begun)["guessed"] is None


def test_moved_boxes_are_another_run(squares: Path, classifier: Path, tmp_path: Path) -> None:
    data = shutil.copytree(squares, tmp_path / "data")
    recipe = override(start_from(find(RECIPE, LocalizationRecipe), classifier), SQUARES)

    def now() -> dict[str, Any]:
        return task_of(recipe, data, World()).fingerprint()

    begun = now()
    file = data / "val" / "val_annotations.txt"
    whole = file.read_text()
    first, rest = whole.split("\n", 1)
    *start, last = first.split("\t")
    file.write_text("\t".join([*start, str(int(last) - 1)]) + "\n" + rest)
    names = {"content": None, "labels": None}
    assert begun | names == now() | names
    assert begun != now()
    file.write_text(whole)
    assert begun == now()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["train", RECIPE, "--data-dir", "."], "starts from a trained classifier; name it with --weights"),
        (["train", "voc-finetune"], "voc-finetune is a recipe of residual detect"),
        (["train", "imagenet-localization"], "there is no localization recipe 'imagenet-localization'"),
        (["train", RECIPE, "--set", "data.size=100"], "not a range of sides that hold a crop of size 100"),
        (["evaluate", "train"], "holds no localizer"),
    ],
)
def test_a_wrong_beginning_has_its_sentence(
    words: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    write_tiny(tmp_path / "here", train=1, val=1)
    monkeypatch.chdir(tmp_path / "here")
    assert sentence in refused("locate", *words)


def test_a_classifier_is_no_localizer_and_the_other_way_round(
    learned: Path, classifier: Path, refused: Refused
) -> None:
    assert "holds a classifier, and a localizer is expected" in refused("locate", "evaluate", classifier)
    assert "holds a localizer, and a classifier is expected" in refused("evaluate", learned)
    gone = ("locate", "evaluate", learned, "--classifier", "nowhere")
    assert "what is on an image is said by a classifier" in refused(*gone)


@pytest.mark.long
def test_a_second_stage_refines_what_is_located(refined: Path, learned: Path) -> None:
    before, after = results_of(learned), results_of(refined)
    for key in ("test", "dense", "guessed"):
        assert after[key]["localization_error"] < before[key]["localization_error"]
    assert after["guessed"]["classifier"] == before["guessed"]["classifier"]
    assert after["middle_box"] == before["middle_box"]
    assert metrics_of(refined)[-1]["train"]["images"] == 16 * 80


def test_a_localizer_of_two_stages_is_used_as_any(
    refined: Path, learned: Path, squares: Path, tmp_path: Path, shown: Shown
) -> None:
    """Its weights are all that is needed: the localizer that it was made from may be gone."""
    results = results_of(refined)
    weights = shutil.copytree(refined / "weights", tmp_path / "weights")
    moved = learned.rename(learned.with_name("moved"))
    try:
        told = shown("locate", "evaluate", weights, "--data-dir", squares, "--json").out
        measured = json.loads(told)["protocols"]
        image = squares / "val" / "images" / "val_0.JPEG"
        told = shown("locate", "predict", weights, image, "--json", "--top", 1).out
    finally:
        moved.rename(learned)
    assert [each["localization_error"] for each in measured] == [
        results[key]["localization_error"] for key in ("test", "dense", "guessed", "middle_box")
    ]
    (guess,) = json.loads(told)["images"][0]["guesses"]
    (found,) = package.load_localizer(refined, device="cpu").predict(image, 1)
    assert list(found.box) == pytest.approx(guess["box"], abs=1e-3)
    assert 0 < found.score < 1


@pytest.mark.long
def test_a_stopped_second_stage_goes_on_to_the_same_end(
    squares: Path, learned: Path, classifier: Path, tmp_path: Path, call: Call, refused: Refused
) -> None:
    short = [*REFINED, "schedule.iterations=4", "evaluate_every=3", "checkpoint_every=2", "rcnn.proposals=3"]
    arguments = (RCNN, "--weights", learned, *set_options(short), "--data-dir", squares)
    whole, begun = tmp_path / "whole", tmp_path / "begun"
    assert call("locate", "train", *arguments, "--out", whole) == 0
    shutil.copytree(whole, begun)
    for name in ("results.json", "report.html", "detections.safetensors"):
        (begun / name).unlink()
    shutil.rmtree(begun / "weights")
    (begun / "checkpoint-0000004.safetensors").unlink()
    file = begun / "proposals.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    assert "it is made again" in refused("locate", "train", "--resume", "--out", begun)
    # By the localizer that the checkpoint holds: neither its folder nor the classifier's is needed any more.
    file.unlink()
    places = [(path, path.with_name("away")) for path in (learned, classifier)]
    for path, away in places:
        path.rename(away)
    try:
        assert call("locate", "train", "--resume", "--out", begun) == 0
    finally:
        for path, away in places:
            away.rename(path)
    assert_same_run(whole, begun)
    # The library writes what it says of tensors in any order.
    (tensors, said), (others, also) = (unpack(folder / file.name) for folder in (begun, whole))
    assert said == also
    assert tensors.keys() == others.keys()
    assert all(torch.equal(tensors[name], others[name]) for name in tensors)


def test_a_second_stage_of_another_localizer_has_its_sentence(
    squares: Path, learned: Path, classifier: Path, tmp_path: Path, refused: Refused
) -> None:
    def said(*words: str | Path) -> str:
        return refused("locate", "train", RCNN, "--data-dir", squares, "--out", tmp_path / "out", *words)

    assert "is about the proposals of a trained localizer; name it with --weights" in said()
    assert "holds a classifier, and a localizer is expected" in said("--weights", classifier)
    size = set_options(["data.size=40"])
    assert "has data.size 32 and the recipe 40; leave it to --weights" in said("--weights", learned, *size)
    anchors = set_options(["localizer.anchor_sizes=[9]"])
    assert "has localizer.anchor_sizes" in said("--weights", learned, *anchors)
    gone = set_options(["localizer.backbone.weights=nowhere"])
    assert "say where it is with --set localizer.backbone.weights" in said("--weights", learned, *gone)
    others = shutil.copytree(squares, tmp_path / "others")
    folder = (others / "train" / "n02124075").rename(others / "train" / "n02124076")
    (folder / "n02124075_boxes.txt").rename(folder / "n02124076_boxes.txt")
    for file in (others / "wnids.txt", others / "val" / "val_annotations.txt"):
        file.write_text(file.read_text().replace("n02124075", "n02124076"))
    assert "locates other classes than there are in" in refused(
        *("locate", "train", RCNN, "--data-dir", others, "--out", tmp_path / "out", "--weights", learned)
    )
