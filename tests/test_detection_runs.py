"""Whole detection runs: a problem learned, killed, continued, shared by two ranks; and the command."""

import contextlib
import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import command_line, environment
from PIL import Image
from safetensors.torch import load_file
from shapes import CLASSES, write_shapes

import residual as package
from residual.cli import main
from residual.models.preprocessing import Preprocessing
from residual.models.weights import save_weights
from residual.training.checkpoint import list_checkpoints

#: A residual network of 14 layers from scratch, on pictures of 48 x 48.
SHAPES = [
    "voc-finetune",
    *("--set", "name=shapes"),
    *("--set", "detector.backbone.name=cifar_resnet14"),
    *("--set", "detector.anchor_sides=[14,20]"),
    *("--set", "detector.anchor_ratios=[1]"),
    *("--set", "detector.smallest=4"),
    *("--set", "detector.freeze=0"),
    *("--set", "detector.regions=32"),
    *("--set", "detector.train_proposals=100"),
    *("--set", "detector.proposals=30"),
    *("--set", "data.train=train"),
    *("--set", "data.shorter_side=48"),
    *("--set", "data.longer_side=48"),
    *("--set", "batch.size=4"),
    *("--set", "batch.at_once=4"),
    *("--set", "schedule.epochs=null"),
    *("--set", "schedule.learning_rate=0.02"),
    *("--set", "schedule.iterations=300"),
    *("--set", "evaluate_every=1000"),
]
#: The same problem, only begun: for what does not need to be learned.
SHORT = [
    *SHAPES,
    *("--set", "detector.backbone.name=cifar_resnet8"),
    *("--set", "schedule.iterations=12"),
    *("--set", "evaluate_every=4"),
    *("--set", "checkpoint_every=5"),
]


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("data") / "shapes")


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("data") / "few", train=10, test=5)


@dataclass(frozen=True)
class Done:
    code: int
    stdout: str
    stderr: str


def command(*arguments: str | Path) -> Done:
    """Run the command in this process, which has loaded PyTorch already."""
    out, errors, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["residual", *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
            main()
        code = 0
    except SystemExit as ended:
        code = int(ended.code or 0)
    finally:
        sys.argv = before
    return Done(code, out.getvalue(), errors.getvalue())


def run(*arguments: str | Path) -> Done:
    done = command("detect", *arguments)
    assert done.code == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def learned(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "learned"
    run("train", *SHAPES, "--data-dir", shapes, "--out", out)
    return out


@pytest.fixture(scope="module")
def begun(few: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "begun"
    run("train", *SHORT, "--data-dir", few, "--out", out)
    return out


def metrics(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        del line["seconds"]
        line["test"].pop("images_per_second", None)
    return lines


def test_coloured_shapes_are_learned(learned: Path) -> None:
    results = json.loads((learned / "results.json").read_text())
    assert results["test"]["ap50"] > 90
    assert results["test"]["pictures"] == 40
    assert results["train_pictures"] == 120
    assert {p.name for p in learned.iterdir()} >= {
        "recipe.yaml",
        "environment.json",
        "metrics.jsonl",
        "weights",
    }
    (last,) = metrics(learned)
    assert last["train"]["images"] == 1200
    assert last["train"]["loss"] == pytest.approx(sum(last["train"]["losses"].values()))


def test_a_trained_detector_is_tested_and_used(learned: Path, shapes: Path, tmp_path: Path) -> None:
    recorded = json.loads((learned / "results.json").read_text())["test"]["ap50"]
    shown = json.loads(run("evaluate", learned, "--json").stdout)
    assert 100 * shown["map"] == pytest.approx(recorded, abs=0.5)
    assert shown["coco"]["AP50"] > 0.85
    assert shown["pictures"] == 40
    refined = json.loads(run("evaluate", learned, "--refine", "--json").stdout)
    # Nothing is to be gained at an overlap of 0.5 here; tighter boxes are what refinement is for.
    assert refined["coco"]["AP75"] > shown["coco"]["AP75"] - 0.05

    done = run(
        *("evaluate", learned, "--split", "test", "--data-dir", shapes),
        *("--figure", tmp_path / "pr.svg", "--submission", tmp_path / "voc"),
    )
    assert all(name in done.stdout for name in CLASSES)
    assert "recall" in (tmp_path / "pr.svg").read_text()
    names = {path.name for path in (tmp_path / "voc").iterdir()}
    assert names == {f"comp4_det_test_{name}.txt" for name in CLASSES}
    picture, score, *box = (tmp_path / "voc/comp4_det_test_disc.txt").read_text().split("\n")[0].split()
    assert (shapes / "JPEGImages" / f"{picture}.png").is_file()
    assert 0 < float(score) <= 1
    assert len(box) == 4

    photo = shapes / "JPEGImages/test000.png"
    answer = json.loads(run("predict", learned, photo, "--json", "--out", tmp_path / "drawn").stdout)
    objects = answer["images"][0]["objects"]
    assert objects
    assert Image.open(tmp_path / "drawn/test000.png").size == (48, 48)
    detector = package.load_detector(learned, device="cpu")
    found = detector.predict(photo, score=0.5)
    assert [detector.classes[label] for label in found.labels] == [item["class"] for item in objects]
    assert found.boxes.flatten().tolist() == pytest.approx(
        [value for item in objects for value in item["box"]], abs=0.01
    )


def wait_for(process: "subprocess.Popen[str]", happened: Callable[[], bool]) -> None:
    while not happened():
        time.sleep(0.01)
        assert process.poll() is None, f"the run ended too early: {process.communicate()}"


def test_killed_and_resumed_is_the_same_run(begun: Path, few: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    for number in (signal.SIGKILL, signal.SIGTERM):
        resume = ["--resume"] if out.exists() else []
        before = len(list_checkpoints(out)) if out.exists() else 0
        process = subprocess.Popen(
            command_line("detect", "train", *SHORT, "--data-dir", few, "--out", out, *resume),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        wait_for(process, lambda n=before: len(list_checkpoints(out)) > n)  # type: ignore[misc]
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        if number == signal.SIGTERM and process.returncode:
            assert "continue with: residual detect train --resume" in errors
    done = run("train", "--resume", "--out", out)
    assert "12 iterations" in done.stdout
    assert metrics(out) == metrics(begun)
    mine, theirs = (load_file(folder / "weights/model.safetensors") for folder in (out, begun))
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_two_ranks_compute_what_one_process_computes(few: Path, tmp_path: Path) -> None:
    arguments = ["train", *SHORT, "--set", "schedule.iterations=6", "--data-dir", str(few)]
    one, two = tmp_path / "one", tmp_path / "two"
    run(*arguments, "--out", one)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"),
            *("-m", "residual", "detect", *arguments, "--out", str(two)),
        ],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    for a, b in zip(metrics(one), metrics(two), strict=True):
        assert a["train"]["images"] == b["train"]["images"]
        assert a["test"]["pictures"] == b["test"]["pictures"] == 5
        # Rounding decides which of two nearly equal proposals is the better, but not what anchors learn.
        ours, theirs = a["train"]["losses"], b["train"]["losses"]
        assert ours["proposal_class"] == pytest.approx(theirs["proposal_class"], rel=2e-3)
        assert a["train"]["loss"] == pytest.approx(b["train"]["loss"], rel=2e-2)
        assert a["test"]["ap50"] == pytest.approx(b["test"]["ap50"], abs=2)


def test_four_step_alternating_training(few: Path, tmp_path: Path) -> None:
    """A run that is killed in the middle of a step goes on as if it had not been."""
    arguments = ["train", *SHORT, "--set", "training=alternating", "--data-dir", str(few)]
    whole = tmp_path / "whole"
    every = ["--set", "checkpoint_every=1"]
    run(*arguments, *every, "--out", whole)
    assert [line["learning_rate"] for line in metrics(whole)] == [0.02, 0.02, 0.002]
    assert metrics(whole)[0]["train"]["losses"]["proposal_class"] > 0
    # After 7 of 12 iterations the second of the third step's three is next.
    process = subprocess.Popen(
        command_line("detect", *arguments, *every, "--out", tmp_path / "killed"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    reached = lambda: any("0000007" in path.name for path in list_checkpoints(tmp_path / "killed"))  # noqa: E731
    wait_for(process, reached)
    process.kill()
    process.communicate()
    run("train", "--resume", "--out", tmp_path / "killed")
    mine, theirs = (load_file(f / "weights/model.safetensors") for f in (tmp_path / "killed", whole))
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train"], ["name a recipe", "residual detect recipes"]),
        (["train", "voc07+12-resnet10"], ["no detection recipe", "did you mean voc07+12-resnet101"]),
        (["train", "voc-finetune"], ["--data-dir"]),
        (["train", "voc-finetune", "--data-dir", "{few}", "--set", "data.train=train"], ["--weights"]),
        (["train", *SHORT, "--data-dir", "nowhere"], ["there is no folder nowhere", "--data-dir"]),
        (["train", *SHORT, "--data-dir", "{few}", "--set", "data.train=val"], ["no split", "test, train"]),
        (["train", *SHORT, "--set", "detector.pool=1"], ["no key 'detector.pool'", "detector.pooling"]),
        (["train", *SHORT, "--set", "schedule.plateau={}"], ["schedule.plateau is for classification"]),
        (["train", *SHORT, "--set", "data.longer_side=20"], ["longer_side 20 is less than shorter_side 48"]),
        (["evaluate", "nowhere"], ["there is no folder nowhere"]),
        (["evaluate", "{begun}", "--figure", "x.pdf"], [".svg or .png"]),
        (["evaluate", "{begun}", "--scales", "a"], ["--scales a", "400,600,800"]),
        (["predict", "{begun}", "gone.jpg"], ["there is no file gone.jpg"]),
        (["predict", "{begun}", "long.png"], ["10 x 4000 is too long", "cut it into parts"]),
        (["recipes", "voc-finetuned"], ["no detection recipe", "voc-finetune"]),
    ],
)
def test_wrong_input_is_one_sentence(
    arguments: list[str],
    words: list[str],
    begun: Path,
    few: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (10, 4000)).save("long.png")
    filled = [text.format(begun=begun, few=few) if text.startswith("{") else text for text in arguments]
    done = command("detect", *filled)
    assert done.code == 2
    assert done.stderr.startswith("residual: ")
    assert all(word in done.stderr for word in words), done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_classifier_is_no_detector_and_the_reverse(begun: Path, few: Path, tmp_path: Path) -> None:
    save_weights(
        tmp_path / "classifier",
        package.build_model("cifar_resnet8", classes=2),
        name="cifar_resnet8",
        options={},
        preprocessing=Preprocessing(torch.full((3, 32, 32), 0.5)),
        classes=["a", "b"],
    )
    Image.new("RGB", (40, 40)).save(tmp_path / "x.png")
    done = command("detect", "predict", tmp_path / "classifier", tmp_path / "x.png")
    assert done.code == 2
    assert "holds a classifier, and a detector is expected" in done.stderr
    done = command("evaluate", begun)
    assert done.code == 2
    assert "holds a detector, and a classifier is expected" in done.stderr
    # From the classifier, and then from that detector.
    settings = [s for s in SHORT if "backbone" not in s and s != "--set"][1:]
    more = [part for setting in settings for part in ("--set", setting)]
    start = ["train", "voc-finetune", *more, "--set", "schedule.iterations=2", "--data-dir", few]
    done = run(*start, "--weights", tmp_path / "classifier", "--out", tmp_path / "first")
    assert f"starting from the classifier {tmp_path / 'classifier'}" in done.stderr
    done = run(*start, "--weights", tmp_path / "first", "--out", tmp_path / "second")
    assert f"starting from the detector {tmp_path / 'first'}" in done.stderr
    first, second = (
        load_file(tmp_path / f"{name}/weights/model.safetensors") for name in ("first", "second")
    )
    name = "backbone.network.bn1.scale"
    assert torch.equal(first[name], second[name])
    assert first["preprocessing.mean"].flatten().tolist() == [0.5] * 3


def test_a_run_survives_bad_files_and_reports_them(few: Path, tmp_path: Path) -> None:
    data = write_shapes(tmp_path / "data", train=8, test=4)
    (data / "JPEGImages/train001.png").write_bytes(b"\x89PNG and no more")
    Image.new("RGB", (30, 20)).save(data / "JPEGImages/train002.png")
    (data / "Annotations/train003.xml").write_text("<annotation>")
    (data / "Annotations/test001.xml").unlink()
    (data / "JPEGImages/test002.png").write_bytes(b"")
    out = tmp_path / "run"
    done = run("train", *SHORT, "--data-dir", data, "--out", out)
    assert "train003.xml is damaged" in done.stderr
    assert "test001.xml is missing" in (out / "left-out.txt").read_text()
    unreadable = (out / "unreadable.txt").read_text()
    assert "train001.png" in unreadable
    assert "train002.png has 30 x 20 pixels and its annotation says 48 x 48" in unreadable
    assert "test002.png" in unreadable
    results = json.loads((out / "results.json").read_text())
    assert (results["left_out"], results["unreadable_pictures"]) == (2, 3)
    assert results["test"]["pictures"] == 3
    failed = command(
        *("detect", "train", *SHORT, "--set", "data.damaged=fatal"),
        *("--data-dir", data, "--out", tmp_path / "strict"),
    )
    assert failed.code == 2
    assert "set data.damaged=skip" in failed.stderr


def test_the_recipes_are_listed_and_printed(tmp_path: Path) -> None:
    listed = run("recipes").stdout
    for name in ("voc07+12", "voc07++12", "coco"):
        assert f"{name}-resnet101 " in listed
        assert f"{name}-vgg16 " in listed
    (tmp_path / "mine.yaml").write_text(run("recipes", "coco-vgg16").stdout)
    assert "seed: 3" in run("recipes", tmp_path / "mine.yaml", "--set", "seed=3").stdout
    for name in ("train", "evaluate", "predict", "recipes"):
        assert f"\n    residual detect {name}" in run(name, "--help").stdout
