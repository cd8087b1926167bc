"""``residual detect``: wrong input, recipes, and what is printed of results."""

import csv
import io
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from conftest import BEGUN, Call, Refused, Shown, set_options
from PIL import Image
from torch import Tensor

import residual as package
from residual.analysis.detection_figures import BoxDrawing
from residual.analysis.sheet import BOXED_SIDE, FRAME, LINE, SPACE
from residual.cli.boxes import Drawings
from residual.detection.faster_rcnn import FasterRCNN
from residual.environment import commit as environment_commit

START = ["train", "voc-finetune", *set_options(BEGUN)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train"], ["name a recipe", "residual detect recipes"]),
        (["train", "voc07+12-resnet10"], ["no detection recipe", "did you mean voc07+12-resnet101"]),
        (["train", "voc-finetune"], ["--data-dir"]),
        (["train", "voc-finetune", "--data-dir", "{few_shapes}", "--set", "data.train=train"], ["--weights"]),
        ([*START, "--data-dir", "nowhere"], ["there is no folder nowhere", "--data-dir"]),
        (
            [*START, "--data-dir", "{few_shapes}", "--set", "data.train=val"],
            ["no split", "test, train"],
        ),
        ([*START, "--set", "detector.poolng=1"], ["no key 'detector.poolng'", "detector.pooling"]),
        (["train", "voc07+12-resnet101-4step", "--masks"], ["detector.masks is for joint training"]),
        (
            [*START, "--masks", "--set", "detector.masks=false"],
            ["--masks and --set detector.masks=false say"],
        ),
        (["train", "imagenet-det-resnet101", "--masks"], ["ImageNet DET has no masks"]),
        ([*START, "--set", "schedule.plateau={}"], ["schedule.plateau is for classification"]),
        ([*START, "--set", "data.classes=[disc,disc]"], ["classes has 'disc' twice"]),
        ([*START, "--set", "data.longer_side=20"], ["longer_side 20 is less than shorter_side 48"]),
        (["evaluate", "nowhere"], ["there is no folder nowhere"]),
        (["evaluate", "{begun_detector}", "--figure", "x.pdf"], [".svg or .png"]),
        (["evaluate", "{begun_detector}", "--figure", "gone/x.png"], ["there is no folder gone; make it"]),
        (["evaluate", "gone", "--no-boxes", "--figure", "x.png"], ["leave --figure out, or --no-boxes"]),
        (["evaluate", "gone", "--no-boxes", "--no-difficult"], ["leave --difficult out, or --no-boxes"]),
        (["evaluate", "gone", "--no-boxes", "--area"], ["leave --11-points and --area out, or --no-boxes"]),
        (["evaluate", "{begun_detector}", "--submission", "long.png"], ["long.png is not an empty folder"]),
        (["evaluate", "{begun_detector}", "--scales", "a"], ["--scales a", "400,600,800"]),
        (
            ["evaluate", "{begun_detector}", "--scales", "400,600", "--multi-scale"],
            ["leave one of the two out"],
        ),
        (
            ["evaluate", "{begun_detector}", "--split", "test", "--split", "train", "--submission", "new"],
            ["VOC's server takes the results of one split", "test and train"],
        ),
        (
            [
                *("train", "voc-finetune", "--weights", "{begun_detector}", "--data-dir", "{few_shapes}"),
                *("--set", "data.train=train", "--set", "detector.anchor_sizes=[8,16,32,64]"),
            ],
            ["4 are asked for", "keep the number of detector.anchor_sizes"],
        ),
        (["predict", "{begun_detector}", "gone.jpg"], ["there is no file gone.jpg"]),
        (["predict", "{begun_detector}", "x" * 5000], ["xxx ... is too long a name for a file"]),
        (["predict", "{begun_detector}", "long.png", "--out", "x" * 5000], ["too long"]),
        (["predict", "{begun_detector}", "long.png", "--masks", "x" * 5000], ["gives no masks"]),
        (["predict", "{begun_detector}", "long.png"], ["10 x 4000 is too long", "cut it into parts"]),
        (["recipes", "voc-finetuned"], ["no detection recipe", "voc-finetune"]),
    ],
)
def test_wrong_input_of_detect(
    arguments: list[str],
    words: list[str],
    begun_detector: Path,
    few_shapes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    refused: Refused,
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (10, 4000)).save("long.png")
    known = {"begun_detector": begun_detector, "few_shapes": few_shapes}
    filled = [text.format(**known) if text.startswith("{") else text for text in arguments]
    said = refused("detect", *filled)
    assert said.splitlines()[-1].startswith("residual: ")
    assert all(word in said for word in words), said
    assert not (tmp_path / "runs").exists()


def test_the_recipes_are_listed_and_printed(tmp_path: Path, shown: Shown) -> None:
    listed = shown("detect", "recipes").out
    for name in ("voc07+12", "voc07++12", "coco"):
        assert f"{name}-resnet101 " in listed
        assert f"{name}-vgg16 " in listed
    (tmp_path / "mine.yaml").write_text(shown("detect", "recipes", "coco-vgg16").out)
    assert "seed: 3" in shown("detect", "recipes", tmp_path / "mine.yaml", "--set", "seed=3").out


def test_predict_draws_images_with_their_boxes_on_one_sheet(
    begun_detector: Path, few_shapes: Path, tmp_path: Path, shown: Shown, refused: Refused
) -> None:
    images = sorted((few_shapes / "JPEGImages").glob("*.png"))[:4]
    sheet = tmp_path / "found.png"
    arguments = ("detect", "predict", begun_detector, *images, "--score-threshold", "0.05", "--sheet", sheet)
    assert f"drawn: {sheet}" in shown(*arguments).err
    columns = 3
    with Image.open(sheet) as drawn:
        assert drawn.width == SPACE + columns * (BOXED_SIDE + SPACE)
        # Each image is there, as large as fits, its boxes in their classes' colours on some.
        middles = []
        for number in range(4):
            x = SPACE + number % columns * (BOXED_SIDE + SPACE)
            y = SPACE + number // columns * drawn.height // 2
            middles.append(drawn.crop((x, y, x + BOXED_SIDE, y + BOXED_SIDE // 2)))
        seen = {colour for part in middles for _, colour in part.getcolors(maxcolors=1 << 18) or []}
        assert len(seen) > 100
        assert all(part.getextrema() != ((255, 255),) * 3 for part in middles)
    assert "exists already" in refused(*arguments)


def test_a_sheet_says_how_many_images_it_shows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("residual.analysis.sheet.BOXED_MOST", 2)
    for count, told in ((2, ""), (3, ", the first 2 of 3 images")):
        sheet = tmp_path / f"{count}.png"
        images = [Path(f"{number}.png") for number in range(count)]
        drawings = Drawings(images, None, sheet)
        for image in images:
            drawings.add(image, Image.new("RGB", (8, 8)), [], "nothing")
        drawings.write_sheet()
        assert capsys.readouterr().err == f"drawn: {sheet}{told}\n"


def test_captions_on_a_sheet_are_as_high_whatever_the_images_size(tmp_path: Path) -> None:
    heights = []
    for width in (480, 4800):
        drawings = Drawings([Path("a.png")], None, tmp_path / f"{width}.png")
        image = Image.new("RGB", (width, 9 * width // 16))
        box = (width / 4, width / 4, width / 2, width / 2)
        drawings.add(Path("a.png"), image, [BoxDrawing(box, "#2f66c8", "raccoon 0.97")], "1 raccoon")
        drawings.write_sheet()
        with Image.open(tmp_path / f"{width}.png") as sheet:
            beside = SPACE + BOXED_SIDE // 4 + 1
            column = [sheet.getpixel((beside, y)) for y in range(SPACE, SPACE + BOXED_SIDE // 4 - 1)]
        heights.append(column.count((0x2F, 0x66, 0xC8)))
    assert heights[0] == heights[1] > 10


@pytest.mark.parametrize(
    ("recipe", "settings", "told"),
    [
        ("voc-finetune", (), True),
        ("voc-finetune", ("name=mine", "detector.freeze=0"), True),
        ("voc-finetune", ("detector.roi_size=8",), False),
        ("voc-finetune", ("detector.regions=64",), False),
        ("voc-finetune", ("detector.backbone.name=vgg16",), False),
        ("voc07+12-resnet101", (), False),
    ],
)
def test_training_on_a_cpu_is_told_what_takes_less_time(
    recipe: str,
    settings: tuple[str, ...],
    told: bool,
    tmp_path: Path,
    call: Call,
    capsys: pytest.CaptureFixture[str],
) -> None:
    network = () if recipe != "voc-finetune" else ("detector.backbone.name=resnet18",)
    arguments = (*set_options((*network, *settings)), "--device", "cpu", "--data-dir", tmp_path / "none")
    assert call("detect", "train", recipe, *arguments, "--out", tmp_path / "run") == 2
    said = capsys.readouterr().err
    assert ("regions of 14 x 14 cells, 128 an image" in said) == told


def test_evaluate_draws_what_was_found_beside_the_truth(
    begun_detector: Path,
    few_shapes: Path,
    tmp_path: Path,
    shown: Shown,
    refused: Refused,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sheet = tmp_path / "mistakes.png"
    arguments = ("detect", "evaluate", begun_detector, "--data-dir", few_shapes, "--sheet", sheet)
    said = shown(*arguments, "--json")
    images = json.loads(said.out)["images"]
    assert f"drawn: {sheet}\n" in said.err
    with Image.open(sheet) as drawn:
        # Each image twice, two of them in a row and apart from each other.
        assert drawn.width == SPACE + 4 * (BOXED_SIDE + SPACE) + SPACE
        assert drawn.height == SPACE + -(-images // 2) * (BOXED_SIDE + FRAME + LINE + 2 * SPACE)
    assert "exists already" in refused(*arguments)
    for score in (0.0, 2.0):
        monkeypatch.setattr("residual.detection.drawing.SCORE", score)
        told = shown(*arguments[:-1], tmp_path / f"{score}.png").err
        assert ("no detection has a score of 2.0 and more" in told) == (score == 2)
    assert "ends in .png" in refused(*arguments[:-1], tmp_path / "mistakes.jpg")
    both = ("--figure", tmp_path / "x.png", "--sheet", tmp_path / "x.png")
    assert f"--figure and --sheet both name {tmp_path / 'x.png'}" in refused(*arguments[:-2], *both)
    assert "leave --sheet out" in refused(*arguments[:-1], tmp_path / "other.png", "--no-boxes")


def test_evaluate_says_how_the_detector_was_used(
    begun_detector: Path, few_shapes: Path, shown: Shown
) -> None:
    arguments = ("detect", "evaluate", begun_detector, "--data-dir", few_shapes)
    plain, better = (
        json.loads(shown(*arguments, *more, "--json").out) for more in ((), ("--refine", "--scales", "64,48"))
    )
    assert (plain["refine"], plain["scales"]) == (False, [])
    assert (better["refine"], better["scales"]) == (True, [48, 64])
    assert "images, boxes refined, shorter sides 48, 64" in " ".join(
        shown(*arguments, "--refine", "--scales", "64,48").out.split()
    )
    assert "refined" not in shown(*arguments).out


def test_without_pycocotools_the_other_precision_is_measured(
    begun_detector: Path, shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("residual.inference.detector.has_pycocotools", lambda: False)
    told = shown("detect", "evaluate", begun_detector)
    assert "note: COCO AP needs the package pycocotools: pip install pycocotools; without it" in told.err
    assert "VOC AP, area" in told.out
    assert "COCO" not in told.out
    assert json.loads(shown("detect", "evaluate", begun_detector, "--json").out)["coco"] is None
    unlabelled = shown("detect", "evaluate", begun_detector, "--no-boxes")
    assert "COCO AP" not in unlabelled.err


def test_images_that_were_learned_from_are_told(
    begun_detector: Path, few_shapes: Path, tmp_path: Path, shown: Shown
) -> None:
    data = shutil.copytree(few_shapes, tmp_path / "data")
    run = shutil.copytree(begun_detector, tmp_path / "run")
    noted = run / "environment.json"
    noted.write_text(noted.read_text().replace(str(few_shapes.resolve()), str(data)))
    lists = data / "ImageSets" / "Main"
    names = [(lists / f"{split}.txt").read_text() for split in ("train", "test")]
    (lists / "trainval.txt").write_text("".join(names))

    def said(*words: object) -> str:
        return shown("detect", "evaluate", run, *words, "--json").err

    told = f"{run} has learned from {{}} images, so the precision says little of other images"
    assert told.format("these") in said("--split", "train")
    assert told.format("some of these") in said("--split", "trainval", "--data-dir", data)
    assert told.format("some of these") in said("--split", "train", "--split", "test")
    other = shown("detect", "evaluate", run, begun_detector, "--split", "train", "--json").err
    assert f"{begun_detector} has learned" not in other
    for words in ((), ("--split", "test"), ("--split", "train", "--data-dir", few_shapes)):
        assert "has learned" not in said(*words)
    assert "has learned" not in said("--split", "train", "--no-boxes")


def test_where_no_object_is_found_weaker_ones_are_offered(
    begun_detector: Path, few_shapes: Path, shown: Shown
) -> None:
    image = few_shapes / "JPEGImages" / "test000.png"
    said = shown("detect", "predict", begun_detector, image, "--score-threshold", "1")
    assert said.out == f"{image}: 0 objects\n"
    assert "no object has a score of 1; --score-threshold 0.05 shows weaker ones" in said.err


def test_predict_prints_csv(begun_detector: Path, few_shapes: Path, shown: Shown, refused: Refused) -> None:
    images = sorted((few_shapes / "JPEGImages").glob("test*.png"))
    arguments = ("detect", "predict", begun_detector, *images, "--score-threshold", "0.05")
    heading, *rows = csv.reader(io.StringIO(shown(*arguments, "--csv").out))
    assert heading == ["image", "class", "score", "x1", "y1", "x2", "y2"]
    found = json.loads(shown(*arguments, "--json").out)["images"]
    assert rows == [
        [image["image"], item["class"], str(item["score"]), *map(str, item["box"])]
        for image in found
        for item in image["objects"]
    ]
    assert "choose one" in refused(*arguments, "--json", "--csv")


def test_some_classes_are_tested_in_a_folder_of_any_name(
    begun_detector: Path, few_shapes: Path, tmp_path: Path, shown: Shown, refused: Refused
) -> None:
    run = tmp_path / "runs" / "[/x] :cat:"
    shutil.copytree(begun_detector, run)
    data = tmp_path / "data"
    shutil.copytree(few_shapes, data)
    # An object of a class that the detector does not know: told, and no reason to stop.
    for file in (data / "Annotations").glob("test*.xml"):
        file.write_text(file.read_text().replace("<name>disc</name>", "<name>[ship]</name>"))
    known = json.loads(shown("detect", "evaluate", run, "--data-dir", few_shapes, "--json").out)["classes"]
    told = shown("detect", "evaluate", run, "--data-dir", data, "--classes", "square").out
    # A table's title is wrapped anywhere.
    assert "runs/[/x]:cat:" in "".join(told.split())
    assert re.search(rf"square +│ +{known['square']['objects']} ", told)
    assert "of the class '[ship]' left out, which is none of square" in told
    report = json.loads(shown("detect", "evaluate", run, "--data-dir", data, "--json").out)
    (note,) = report["left_out"]
    assert f"{known['disc']['objects']} objects of the class '[ship]' left out" in note
    assert report["classes"]["disc"]["objects"] == 0
    assert report["environment"]["commit"] == environment_commit()
    assert report["classes"]["square"] == known["square"] | {"ap": report["classes"]["square"]["ap"]}
    said = refused("detect", "evaluate", run, "--data-dir", data, "--classes", "sqare")
    assert "does not know the class 'sqare'; did you mean square?" in said


def test_images_that_cannot_be_looked_at_are_told_apart_from_what_is_left_out(
    begun_detector: Path, few_shapes: Path, tmp_path: Path, shown: Shown, refused: Refused
) -> None:
    data = Path(shutil.copytree(few_shapes, tmp_path / "data"))
    files = sorted((data / "Annotations").glob("test*.xml"))
    for file in files:
        file.write_text(file.read_text().replace("<name>disc</name>", "<name>ship</name>"))
    first = data / "JPEGImages" / f"{files[0].stem}.png"
    first.write_bytes(first.read_bytes()[:100])
    told = shown("detect", "evaluate", begun_detector, "--data-dir", data).out
    assert re.search(r"left out or cut: 1\n .*of the class 'ship' left out", told)
    assert re.search(rf"could not be looked at; their objects count as missed: 1\n +{first.stem}: ", told)
    for file in files:
        image = data / "JPEGImages" / f"{file.stem}.png"
        image.write_bytes(image.read_bytes()[:100])
    said = refused("detect", "evaluate", begun_detector, "--data-dir", data)
    assert f"no image can be looked at; the first: {first.stem}: " in said


def test_what_was_measured_is_shown_before_files_are_written(
    begun_detector: Path, few_shapes: Path, tmp_path: Path, call: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    arguments = ("detect", "evaluate", begun_detector, "--data-dir", few_shapes)
    assert call(*arguments, "--submission", blocked / "voc") == 2
    printed = capsys.readouterr()
    assert "VOC AP" in printed.out
    assert "cannot be written" in printed.err


def test_a_submission_leaves_out_what_the_json_has_no_category_for(
    begun_detector: Path, few_shapes: Path, tmp_path: Path, shown: Shown
) -> None:
    (tmp_path / "val").mkdir()
    shutil.copy(few_shapes / "JPEGImages/test000.png", tmp_path / "val")
    content = {
        "images": [{"id": "7", "file_name": "test000.png", "width": 48, "height": 48}],
        "annotations": [{"id": 1, "image_id": "7", "category_id": 4, "bbox": [5, 5, 20, 20]}],
        "categories": [{"id": 4, "name": "square"}],
    }
    (tmp_path / "val.json").write_text(json.dumps(content))
    data = ("--layout", "coco", "--data-dir", tmp_path, "--split", "val")
    written = tmp_path / "out" / "detections_val_residual_results.json"
    told = shown("detect", "evaluate", begun_detector, *data, "--submission", written.parent)
    assert f"what is found of disc, triangle is not in {written.parent}" in told.err
    found = json.loads(written.read_text())
    assert {(item["image_id"], item["category_id"]) for item in found} == {("7", 4)}


def test_a_detector_may_find_more_than_a_hundred_objects(
    begun_detector: Path, few_shapes: Path, tmp_path: Path, shown: Shown
) -> None:
    run = tmp_path / "run"
    shutil.copytree(begun_detector, run)
    config = run / "weights" / "config.json"
    stored = json.loads(config.read_text())
    arguments = ("detect", "evaluate", run, "--data-dir", few_shapes)
    assert "detections an image" not in shown(*arguments).out
    for most in (2, 150):
        stored["detector"]["max_detections"] = most
        config.write_text(json.dumps(stored))
        image = few_shapes / "JPEGImages/test000.png"
        found = package.load_detector(run).predict(image, score_threshold=0.0)
        assert (len(found) <= 2) == (most == 2)
    assert (
        "up to 150 detections an image: VOC AP counts all of them, COCO AP the best 100"
        in shown(*arguments).out
    )


def test_an_ensembles_members_see_images_at_their_own_sides(
    begun_detector: Path, few_shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = shutil.copytree(begun_detector / "weights", tmp_path / "other")
    stored = json.loads((other / "config.json").read_text())
    stored |= {"shorter_side": 96, "longer_side": 112}
    stored["detector"]["max_detections"] = 150
    (other / "config.json").write_text(json.dumps(stored))
    seen: list[tuple[int, ...]] = []
    original = FasterRCNN.maps

    def watched(self: FasterRCNN, images: Sequence[Tensor]) -> list[Tensor]:
        seen.extend(tuple(image.shape[1:]) for image in images)
        return original(self, images)

    monkeypatch.setattr(FasterRCNN, "maps", watched)
    image = few_shapes / "JPEGImages/test000.png"
    for members, sides in (((begun_detector, other), [48, 96]), ((other, begun_detector), [96, 48])):
        ensemble = package.load_detector(*members, device="cpu")
        ensemble.predict(image)
        assert seen == [(side, side) for side in sides]
        # What is too long for one of them is left out.
        assert ensemble.least_sides == (48, 48)
        assert ensemble.options().max_detections == 150
        seen.clear()
