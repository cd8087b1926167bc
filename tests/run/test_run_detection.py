"""Whole detection runs: a problem learned, killed, continued, shared by two ranks; and damaged data."""

import json
import re
import shutil
import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import (
    BEGUN,
    SHAPES,
    Call,
    Refused,
    Shown,
    assert_same_run,
    environment,
    metrics_of,
    precisions_of_convolutions,
    results_of,
    sentence_of,
    set_options,
    signalled_after,
    torchrun,
)
from PIL import Image
from shapes import CLASSES, write_shapes

import residual as package
from residual import load_detector, run
from residual.class_names import Form
from residual.detection.inference import DetectionOptions
from residual.distributed import World
from residual.environment import describe
from residual.recipes import DetectionRecipe, find, override
from residual.run import detection
from residual.run.run import check_same_data, task_of
from residual.training.folder import RunFolder

START = ["detect", "train", "voc-finetune", *set_options(BEGUN)]


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("data") / "shapes")


@pytest.fixture(scope="module")
def learned(shapes: Path, tmp_path_factory: pytest.TempPathFactory, call: Call) -> Path:
    out = tmp_path_factory.mktemp("runs") / "learned"
    arguments = ("voc-finetune", *set_options(SHAPES), "--data-dir", shapes, "--out", out)
    assert call("detect", "train", *arguments) == 0
    return out


def test_moved_boxes_are_another_run(few_shapes: Path, tmp_path: Path) -> None:
    data = shutil.copytree(few_shapes, tmp_path / "data")
    recipe = override(find("voc-finetune", DetectionRecipe), BEGUN)

    def now(form: Form = "NFC") -> dict[str, Any]:
        return task_of(recipe, data, World()).fingerprint(form)

    begun = now()
    for split in ("train", "test"):
        file = next(p for p in (data / "Annotations").glob(f"{split}*") if "<xmin>" in p.read_text())
        whole = file.read_text()
        found = re.search(r"<xmin>(\d+)", whole)
        assert found
        file.write_text(whole.replace(found[0], f"<xmin>{int(found[1]) + 1}", 1))
        assert begun | {"content": None, "labels": None} == now() | {"content": None, "labels": None}
        assert begun["content"] != now()["content"]
        assert begun["labels"] != now()["labels"]
        file.write_text(whole)
        assert begun == now()
    # Where an image that cannot be read ends the run, it may be mended when that goes on; its boxes may not.
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    task: Any = SimpleNamespace(fingerprint=now, mends=True)
    folder.add_session(describe(torch.device("cpu"), 1) | {"iteration": 0, "departures": [], "data": begun})
    image = next((data / "JPEGImages").iterdir())
    image.write_bytes(image.read_bytes() + b"mended")
    assert check_same_data(folder, task, resume=True) == now()
    file.write_text(whole.replace(found[0], f"<xmin>{int(found[1]) + 1}", 1))
    assert "boxes, or what is tested on" in sentence_of(lambda: check_same_data(folder, task, resume=True))


@pytest.mark.long
def test_coloured_shapes_are_learned(learned: Path) -> None:
    results = results_of(learned)
    assert results["test"]["ap50"] > 90
    assert results["test"]["images"] == 40
    assert results["train_images"] == 120
    assert {p.name for p in learned.iterdir()} >= {
        "recipe.yaml",
        "environment.json",
        "metrics.jsonl",
        "weights",
    }
    (last,) = metrics_of(learned)
    assert last["train"]["images"] == 1200
    assert last["train"]["loss"] == pytest.approx(sum(last["train"]["losses"].values()))


@pytest.mark.long
def test_a_trained_detector_is_tested_and_used(
    learned: Path, shapes: Path, tmp_path: Path, shown: Shown
) -> None:
    recorded = results_of(learned)["test"]["ap50"]
    plain = json.loads(shown("detect", "evaluate", learned, "--json").out)
    # One path, one number.
    assert 100 * plain["map"] == recorded
    assert plain["coco"]["AP50"] > 0.85
    assert plain["images"] == 40
    refined = json.loads(shown("detect", "evaluate", learned, "--refine", "--json").out)
    # Nothing is to be gained at an overlap of 0.5 here; tighter boxes are what refinement is for.
    assert refined["coco"]["AP75"] > plain["coco"]["AP75"] - 0.05

    told = shown(
        *("detect", "evaluate", learned, "--split", "test", "--data-dir", shapes),
        *("--figure", tmp_path / "pr.svg", "--submission", tmp_path / "voc"),
    )
    assert all(name in told.out for name in CLASSES)
    assert "recall" in (tmp_path / "pr.svg").read_text()
    names = {path.name for path in (tmp_path / "voc").iterdir()}
    assert names == {f"comp4_det_test_{name}.txt" for name in CLASSES}
    image, score, *box = (tmp_path / "voc/comp4_det_test_disc.txt").read_text().split("\n")[0].split()
    assert (shapes / "JPEGImages" / f"{image}.png").is_file()
    assert 0 < float(score) <= 1
    assert len(box) == 4

    annotated = shapes / "JPEGImages/test000.png"
    told = shown("detect", "predict", learned, annotated, "--json", "--out", tmp_path / "drawn")
    objects = json.loads(told.out)["images"][0]["objects"]
    assert objects
    assert Image.open(tmp_path / "drawn/test000.png").size == (480, 480)
    detector = package.load_detector(learned, device="cpu")
    found = detector.predict(annotated, score_threshold=0.5)
    assert [detector.classes[label] for label in found.labels] == [item["class"] for item in objects]
    assert found.boxes.flatten().tolist() == pytest.approx(
        [value for item in objects for value in item["box"]], abs=0.01
    )


@pytest.mark.long
def test_masks_are_learned_from_a_detector_without_them(
    learned: Path, tmp_path: Path, shown: Shown, refused: Refused
) -> None:
    data = write_shapes(tmp_path / "data", train=40, test=12, seed=3, masks=True)
    out, few = (
        tmp_path / "run",
        ["schedule.iterations=90", "schedule.learning_rate=0.01", "evaluate_every=90"],
    )
    arguments = ["voc-finetune", *set_options([*SHAPES, *few]), "--data-dir", data, "--weights", learned]
    told = shown("detect", "train", "--masks", *arguments, "--out", out)
    measured = results_of(out)["test"]
    assert measured["coco_mask"]["AP50"] > 70
    assert measured["coco_box"]["AP50"] > 80
    assert f"mask AP {measured['coco_mask']['AP']:.2f} %" in told.out
    assert "have no mask" not in told.err
    assert metrics_of(out)[-1]["train"]["losses"]["mask"] > 0
    again = json.loads(shown("detect", "evaluate", out, "--json").out)
    assert 100 * again["coco_masks"]["AP"] == pytest.approx(measured["coco_mask"]["AP"], abs=0.5)
    assert set(again["coco_masks"]["classes"]) == set(CLASSES)
    assert "mask AP" in shown("detect", "evaluate", out).out

    image, masks = data / "JPEGImages/test000.png", tmp_path / "masks"
    told = shown("detect", "predict", out, image, "--json", "--out", tmp_path / "drawn", "--masks", masks)
    objects = json.loads(told.out)["images"][0]["objects"]
    with Image.open(masks / "test000.png") as written:
        numbers = torch.from_numpy(np.asarray(written).copy())
    assert set(numbers.unique().tolist()) <= {0, *range(1, len(objects) + 1)}
    for place, item in enumerate(objects, start=1):
        assert item["mask"]["size"] == [48, 48]
        assert (numbers == place).any()
    with Image.open(tmp_path / "drawn/test000.png") as drawn, Image.open(image) as plain:
        # Colour lies on objects, not beside their boxes alone.
        undrawn = plain.convert("RGB").resize(drawn.size, Image.Resampling.NEAREST)
        inside = numbers.numpy().repeat(10, axis=0).repeat(10, axis=1) > 0
        assert (np.asarray(drawn) != np.asarray(undrawn))[inside].any(axis=1).mean() > 0.9
    found = package.load_detector(out, device="cpu").predict(image, score_threshold=0.5)
    assert found.pixels((48, 48)).shape == (len(objects), 48, 48)
    # What has no masks: another detector, and other images.
    assert "gives no masks" in refused("detect", "predict", learned, image, "--masks", tmp_path / "none")
    assert "an ensemble" in refused("detect", "evaluate", out, learned)
    same = ("--out", tmp_path / "one", "--masks", tmp_path / "one")
    assert "give each a folder of its own" in refused("detect", "predict", out, image, *same)
    for folder, words in ((image.parent, "holds the images themselves"), (out / "recipe.yaml", "is a file")):
        assert words in refused("detect", "predict", out, image, "--masks", folder)
    # VOC's list of images with masks is what such a detector is tested on; what a server is sent is of all.
    (data / "ImageSets/Segmentation").mkdir()
    (data / "ImageSets/Segmentation/test.txt").write_text("test000\ntest001\n")
    for more, images in (([], 2), (["--no-boxes"], 12)):
        assert json.loads(shown("detect", "evaluate", out, "--json", *more).out)["images"] == images
    assert json.loads(shown("detect", "evaluate", learned, "--json", "--data-dir", data).out)["images"] == 12
    shutil.rmtree(data / "SegmentationObject")
    said = refused("detect", "train", *arguments, "--masks", "--out", tmp_path / "none")
    assert not (tmp_path / "none").exists()
    assert "no object of train has a mask; add images of instances in SegmentationObject" in said
    assert json.loads(shown("detect", "evaluate", out, "--json").out)["coco_masks"] is None


def test_evaluations_come_every_few_epochs_and_the_rate_rises(
    few_shapes: Path, tmp_path: Path, shown: Shown
) -> None:
    """As by voc-finetune's own settings, for a folder whose size the recipe does not know."""
    own = ["schedule.epochs=6", "evaluate_every=null", "evaluate_epochs=2", "data.scale_range=[0.8,1.4]"]
    own += ["schedule.warmup={learning_rate: 0.001, shape: linear, iterations: 2}"]
    out = tmp_path / "run"
    shown(*START, *set_options(own), "--data-dir", few_shapes, "--out", out)
    # Ten images are three batches of four, rounded up, and six epochs of them fifteen.
    assert results_of(out)["train_images"] == 10
    lines = metrics_of(out)
    assert [line["iteration"] for line in lines] == [6, 12, 15]
    assert [line["train"]["images"] for line in lines] == [24, 24, 12]


@pytest.mark.slow
def test_objects_of_three_sizes_are_found_by_the_defaults(tmp_path: Path, shown: Shown) -> None:
    """What voc-finetune sets, at 48 pixels in place of 600: discs of 5, squares of 14, triangles of 32."""
    data = write_shapes(tmp_path / "data", sides=((4, 6), (12, 16), (28, 36)))
    changed = ("detector.a", "detector.min", "data.scale", "schedule.w")
    small = [setting for setting in SHAPES if not setting.startswith(changed)]
    settings = set_options([*small, "detector.anchor_sizes=[2.5,5,10,20,40]", "schedule.iterations=400"])
    told = shown("detect", "train", "voc-finetune", *settings, "--data-dir", data, "--out", tmp_path / "run")
    assert "will hardly be found" not in told.err
    found = results_of(tmp_path / "run")["test"]["classes"]
    assert set(found) == set(CLASSES)
    assert min(found.values()) > 90, found


@pytest.mark.long
def test_killed_and_resumed_is_the_same_run(
    begun_detector: Path, few_shapes: Path, tmp_path: Path, shown: Shown
) -> None:
    out = tmp_path / "killed"
    words = [*START, "--data-dir", few_shapes, "--out", out]
    signalled_after("checkpoint", 5, signal.SIGKILL, *words)
    told = signalled_after("checkpoint", 10, signal.SIGTERM, *words, "--resume").stderr
    assert "continue with: residual detect train --resume" in told
    assert "12 iterations" in shown("detect", "train", "--resume", "--out", out).out
    assert_same_run(out, begun_detector)


@pytest.mark.long
def test_two_ranks_compute_what_one_process_computes(few_shapes: Path, tmp_path: Path, shown: Shown) -> None:
    arguments = [*START, "--set", "schedule.iterations=6", "--data-dir", few_shapes]
    one, two = tmp_path / "one", tmp_path / "two"
    shown(*arguments, "--out", one)
    done = subprocess.run(
        torchrun(*arguments, "--out", two), capture_output=True, text=True, env=environment(), timeout=300
    )
    assert done.returncode == 0, done.stderr
    for a, b in zip(metrics_of(one), metrics_of(two), strict=True):
        assert a["train"]["images"] == b["train"]["images"]
        assert a["test"]["images"] == b["test"]["images"] == 5
        # Rounding decides which of two nearly equal proposals is the better, but not what anchors learn.
        ours, theirs = a["train"]["losses"], b["train"]["losses"]
        assert ours["rpn_class"] == pytest.approx(theirs["rpn_class"], rel=2e-3)
        assert a["train"]["loss"] == pytest.approx(b["train"]["loss"], rel=2e-2)
        assert a["test"]["ap50"] == pytest.approx(b["test"]["ap50"], abs=2)


@pytest.mark.long
def test_two_ranks_test_as_one_process(begun_detector: Path, shown: Shown, tmp_path: Path) -> None:
    """Each looks at half of the images, and one prints and writes."""
    one = json.loads(shown("detect", "evaluate", begun_detector, "--json").out)
    words = torchrun("detect", "evaluate", begun_detector, "--json", "--sheet", tmp_path / "sheet.png")
    done = subprocess.run(words, capture_output=True, text=True, env=environment(), timeout=300)
    assert done.returncode == 0, done.stderr
    two = json.loads(done.stdout)
    assert two["environment"]["ranks"] == 2
    for told in (one, two):
        del told["environment"], told["images_per_second"]
    assert one == two
    assert (tmp_path / "sheet.png").exists()


@pytest.mark.long
def test_four_step_alternating_training(few_shapes: Path, tmp_path: Path, shown: Shown) -> None:
    """A run that is killed in the middle of a step goes on as if it had not been."""
    settings = ["training=alternating", "steps.lengths=[3,3,3,3]", "checkpoint_every=1"]
    arguments = [*START, *set_options(settings), "--data-dir", few_shapes]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    shown(*arguments, "--out", whole)
    # Steps of 3 iterations: the head's rate is divided after half of them, the proposals' later.
    assert [line["learning_rate"] for line in metrics_of(whole)] == [0.02, 0.02, 0.002]
    # Four images an iteration for the proposals, twice as many for the head.
    assert [line["train"]["images"] for line in metrics_of(whole)] == [20, 24, 28]
    assert metrics_of(whole)[0]["train"]["losses"]["rpn_class"] > 0
    # After 7 of 12 iterations the second of the third step's three is next.
    signalled_after("checkpoint", 7, signal.SIGKILL, *arguments, "--out", killed)
    shown("detect", "train", "--resume", "--out", killed)
    assert_same_run(killed, whole)


def test_a_run_survives_bad_files_and_reports_them(tmp_path: Path, shown: Shown, refused: Refused) -> None:
    data = write_shapes(tmp_path / "data", train=8, test=4)
    (data / "JPEGImages/train001.png").write_bytes(b"\x89PNG and no more")
    Image.new("RGB", (30, 20)).save(data / "JPEGImages/train002.png")
    (data / "Annotations/train003.xml").write_text("<annotation>")
    (data / "Annotations/test001.xml").unlink()
    (data / "JPEGImages/test002.png").write_bytes(b"")
    out = tmp_path / "run"
    assert "train003.xml is damaged" in shown(*START, "--data-dir", data, "--out", out).err
    assert "test001.xml is missing" in (out / "left-out.txt").read_text()
    unreadable = (out / "unreadable.txt").read_text()
    assert "train001.png" in unreadable
    assert "train002.png has 30 x 20 pixels and its annotation says 48 x 48" in unreadable
    assert "test002.png" in unreadable
    results = results_of(out)
    assert (results["left_out"], results["unreadable_images"]) == (2, 3)
    assert results["test"]["images"] == 3
    strict = ["--set", "data.damaged=fatal", "--data-dir", data, "--out", tmp_path / "strict"]
    assert "with data.damaged=skip" in refused(*START, *strict)


def test_a_damaged_image_to_test_on_leaves_a_checkpoint(
    few_shapes: Path, tmp_path: Path, refused: Refused
) -> None:
    data = shutil.copytree(few_shapes, tmp_path / "data")
    (data / "JPEGImages" / "test001.png").write_bytes(b"\x89PNG and no more")
    settings = set_options(["data.damaged=fatal", "evaluate_every=4", "checkpoint_every=100"])
    assert "test001.png" in refused(*START, *settings, "--data-dir", data, "--out", tmp_path / "run")
    assert (tmp_path / "run" / "checkpoint-0000004.safetensors").is_file()


def test_a_precision_that_is_none_is_no_point_of_tensorboards(
    few_shapes: Path, tmp_path: Path, shown: Shown
) -> None:
    """Without images to test on."""
    settings = set_options(["data.test=[]", "schedule.iterations=4"])
    shown(*START, *settings, "--data-dir", few_shapes, "--out", tmp_path / "run", "--tensorboard")
    assert list((tmp_path / "run" / "tensorboard").glob("events.*"))


def rename(data: Path, pattern: str, old: str, new: str, count: int = -1) -> None:
    """Give objects of a class another name, ``count`` a file at most."""
    for file in (data / "Annotations").glob(pattern):
        file.write_text(file.read_text().replace(f"<name>{old}<", f"<name>{new}<", count))


def test_the_classes_are_told_before_training(few_shapes: Path, tmp_path: Path, shown: Shown) -> None:
    """A table by class; a class that only the test split has, and one that looks misspelt."""
    data = tmp_path / "data"
    shutil.copytree(few_shapes, data)
    rename(data, "test*.xml", "disc", "other")
    rename(data, "test*.xml", "square", "triangle")
    # All squares but one are triangles now, and that one is misspelt.
    rename(data, "train*.xml", "square", "triangle")
    first = next(
        f for f in sorted((data / "Annotations").glob("train*.xml")) if ">triangle<" in f.read_text()
    )
    rename(data, first.name, "triangle", "triangel", 1)
    box = "<xmin>5</xmin><ymin>5</ymin><xmax>18</xmax><ymax>18</ymax>"
    more = f"<object><name>triangle</name><bndbox>{box}</bndbox></object>" * 20
    first.write_text(first.read_text().replace("</annotation>", f"{more}</annotation>"))
    with (data / "ImageSets/Main/test.txt").open("a") as listing:
        listing.write("train003\n")
    told = shown(*START, "--data-dir", data, "--out", tmp_path / "run")
    assert "note: 1 of 6 images to test on are learned from as well" in told.err
    assert re.search(r"class +┃ +images ┃ +objects ┃", told.err)
    assert re.search(r"│ triangel │ +1 │ +1 │", told.err)
    assert "the class 'triangel' has 1 object and 'triangle' has" in told.err
    assert "of the class 'other' left out, which is none of disc, triangel, triangle" in told.err
    assert "of the class 'other'" in (tmp_path / "run/left-out.txt").read_text()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            ["detector.anchor_sizes=[64]", "detector.ignore_cross_boundary_anchors=true"],
            ["no anchor of 64 pixels lies on the images", "detector.anchor_sizes"],
        ),
        (
            ["data.classes=[disc, sqare]"],
            ["no object of train is a 'sqare'", "left out, which is none of disc, sqare"],
        ),
        (
            [
                *(f"detector.backbone.{key}" for key in ("name=resnet18", "shortcut=null", "variant=null")),
                *("data.shorter_side=32", "data.longer_side=32"),
            ],
            ["32 x 32 is too small for a network from scratch", "set data.shorter_side to more"],
        ),
        (["data.classes=[bird]"], ["no object is of the classes bird", "disc, square, triangle"]),
        (
            ["detector.freeze=2"],
            ["detector.freeze keeps what weights have learned", "--weights", "detector.freeze=0"],
        ),
    ],
)
def test_what_cannot_be_learned_is_refused_before_training(
    settings: list[str], words: list[str], few_shapes: Path, tmp_path: Path, refused: Refused
) -> None:
    out = tmp_path / "run"
    said = refused(*START, *set_options(settings), "--data-dir", few_shapes, "--out", out)
    assert all(word in said for word in words), said
    assert not out.exists()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_detector_learns_in_its_recipes_precision_and_at_its_sides(
    precision: str, few_shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []
    real = detection.detect_dataset

    def detect_dataset(members: Any, dataset: Any, how: DetectionOptions, *more: Any, **named: Any) -> Any:
        seen.append((how.shorter_side, how.longer_side))
        return real(members, dataset, how, *more, **named)

    monkeypatch.setattr(detection, "detect_dataset", detect_dataset)
    settings = [*BEGUN, "data.shorter_side=40", "data.longer_side=64", "schedule.iterations=1"]
    recipe = override(find("voc-finetune", DetectionRecipe), [*settings, f"precision={precision}"])
    with precisions_of_convolutions() as found:
        run.train(recipe, tmp_path / "run", data_dir=few_shapes, device="cpu")
    assert getattr(torch, precision) in {dtype for training, dtype in found if training}
    assert (torch.bfloat16 in {dtype for _, dtype in found}) == (precision == "bfloat16")
    assert set(seen) == {(40, 64)}
    assert load_detector(tmp_path / "run").least_sides == (40, 64)


def test_difficult_objects_are_learned_and_asked_for_on_request(
    few_shapes: Path, tmp_path: Path, shown: Shown, refused: Refused
) -> None:
    data = tmp_path / "data"
    shutil.copytree(few_shapes, data)
    for file in (data / "Annotations").iterdir():
        file.write_text(file.read_text().replace("<bndbox>", "<difficult>1</difficult><bndbox>"))
    short = [*START, "--set", "schedule.iterations=1", "--data-dir", data]
    assert "there is no object to learn in train" in refused(*short, "--out", tmp_path / "none")
    shown(*short, "--set", "data.use_difficult=true", "--out", tmp_path / "run")
    results = results_of(tmp_path / "run")
    assert sum(results["classes"].values()) > 10
    assert results["test"]["ap50"] is not None
    counted = {}
    for switch in ("--difficult", "--no-difficult", ""):
        arguments = ["detect", "evaluate", tmp_path / "run", "--json", *([switch] if switch else [])]
        counted[switch] = json.loads(shown(*arguments).out)["classes"]
    objects = {key: sum(row["objects"] for row in value.values()) for key, value in counted.items()}
    assert objects["--difficult"] == objects[""] > objects["--no-difficult"] == 0


def test_images_are_held_out_to_choose_by(
    few_shapes: Path, tmp_path: Path, shown: Shown, refused: Refused
) -> None:
    """A folder as labelImg leaves it: images and annotations together, and no lists."""
    data = tmp_path / "labelled"
    data.mkdir()
    for file in [*few_shapes.glob("JPEGImages/*"), *few_shapes.glob("Annotations/*")]:
        shutil.copy(file, data)
    settings = set_options([setting for setting in BEGUN if not setting.startswith("data.train=")])
    whole = ("detect", "train", "voc-finetune", *settings, "--data-dir", data)
    assert (
        "to train, hold a share of them out: --set data.train=trainval --set data.validation=0.2"
        in refused(*whole, "--out", tmp_path / "no")
    )
    out = tmp_path / "run"
    told = shown(*whole, "--set", "data.validation=0.2", "--out", out)
    assert "validation   mAP" in told.out

    results, lines = results_of(out), metrics_of(out)
    assert results["train_images"] == 12
    assert results["validation"]["images"] == 3
    assert results["test"] is None
    found = [line["validation"]["ap50"] for line in lines]
    assert results["best_validation_ap50"] == pytest.approx(max(found))
    best = json.loads((out / "best" / "config.json").read_text())["results"]
    assert best["validation"]["ap50"] == pytest.approx(max(found))
    assert best["iterations"] == lines[found.index(max(found))]["iteration"]
    rows = [row.split(",") for row in (out / "split.csv").read_text().splitlines()[1:]]
    held_out = {name for name, _, split in rows if split == "validation"}
    assert len(rows) == 15
    assert len(held_out) == 3
    assert {name for _, names, _ in rows for name in names.split("+")} == set(CLASSES)

    # What was held out is what is tested, here and by the page.
    tested = shown("detect", "evaluate", out, "--json")
    assert "has learned from" not in tested.err
    measured = json.loads(tested.out)
    assert measured["images"] == 3
    assert measured["data"] == "voc trainval (3 for validation)"
    assert 100 * measured["map"] == pytest.approx(results["validation"]["ap50"])
    shown("report", out)
    assert "voc trainval (3 for validation)" in (out / "report.html").read_text()
    tested = shown("detect", "evaluate", out, "--split", "trainval", "--json")
    assert json.loads(tested.out)["images"] == 15
    assert f"{out} has learned from 12 of these 15 images, so the precision says little" in tested.err

    # Images that have come in since would be dealt out otherwise; what was held out stays what it was.
    shutil.copy(few_shapes / "JPEGImages" / "train000.png", data / "new.png")
    shutil.copy(few_shapes / "Annotations" / "train000.xml", data / "new.xml")
    again = json.loads(shown("detect", "evaluate", out, "--json").out)
    for told in (again, measured):
        del told["images_per_second"], told["environment"]
    assert again == measured
    shown("report", out)
    assert "of other images than there are now" in (out / "report.html").read_text()
    (data / min(held_out)).unlink()
    assert f"{min(held_out)} was held out, which is not" in refused("detect", "evaluate", out)
    shutil.copytree(out / "weights", tmp_path / "weights")
    alone = refused("detect", "evaluate", tmp_path / "weights", "--data-dir", data)
    assert "only its run folder says which (split.csv)" in alone


def test_held_out_images_are_not_looked_at_by_the_tables(tmp_path: Path, refused: Refused) -> None:
    held = ("--set", "data.validation=0.2", "--out", tmp_path, "--data-dir", tmp_path)
    said = refused("reproduce", "table8", "--weights-vgg16", tmp_path, *held)
    assert "leave data.validation at 0" in said


def test_members_that_have_learned_what_another_held_out_are_not_tested_on_it(
    few_shapes: Path, tmp_path: Path, shown: Shown, refused: Refused
) -> None:
    short = ["data.validation=0.3", "schedule.iterations=2"]
    runs = []
    for name, more in (
        ("a", []),
        ("b", ["seed=1"]),
        ("c", ["data.split_seed=1"]),
        ("d", ["data.validation=0"]),
    ):
        runs.append(tmp_path / name)
        arguments = ("--data-dir", few_shapes, "--out", runs[-1])
        shown(*START, *set_options([*short, *more]), *arguments)
    together = json.loads(shown("detect", "evaluate", *runs[:2], "--json").out)
    assert (together["images"], together["data"]) == (3, "voc train (3 for validation)")
    for other in runs[2:]:
        said = refused("detect", "evaluate", runs[0], other)
        assert f"{other} has not held out the images that {runs[0]} has" in said
    assert (
        json.loads(shown("detect", "evaluate", runs[0], runs[3], "--split", "test", "--json").out)["images"]
        == 5
    )
    # A card of the weights that validation chose.
    shown("push", runs[0] / "best", "somebody/shapes", "--dry-run", tmp_path / "card")
    card = (tmp_path / "card" / "README.md").read_text()
    assert "Of the weights with the highest validation precision" in card
    assert "| validation | 3 |" in card
    # The line that is seen in training: of a detector's training there is no precision.
    told = shown(*START, *set_options(short), "--data-dir", few_shapes, "--out", tmp_path / "e")
    assert "validation" in told.err
    assert "mAP: training" not in told.err
    assert "mAP: " in told.err


def test_images_outside_of_the_folder_are_known_by_their_whole_paths(tmp_path: Path) -> None:
    from residual.data.boxes import AnnotatedImage, path_from

    def of(path: Path) -> AnnotatedImage:
        none = torch.empty(0)
        return AnnotatedImage("a", path, (1, 1), none, none, none, none, none)

    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there")
    for folder in (tmp_path / "there", tmp_path / "link"):
        for inside in (folder / "a.png", tmp_path / "there" / "a.png"):
            assert path_from(folder, of(inside)) == "a.png"
        assert path_from(folder, of(tmp_path / "b.png")) == (tmp_path / "b.png").resolve().as_posix()
