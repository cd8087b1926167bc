"""``residual detect``: wrong input, and recipes."""

from pathlib import Path

import pytest
from conftest import BEGUN, Refused, Shown, set_options
from PIL import Image

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
        ([*START, "--set", "detector.pool=1"], ["no key 'detector.pool'", "detector.pooling"]),
        ([*START, "--set", "schedule.plateau={}"], ["schedule.plateau is for classification"]),
        ([*START, "--set", "data.longer_side=20"], ["longer_side 20 is less than shorter_side 48"]),
        (["evaluate", "nowhere"], ["there is no folder nowhere"]),
        (["evaluate", "{begun_detector}", "--figure", "x.pdf"], [".svg or .png"]),
        (["evaluate", "{begun_detector}", "--scales", "a"], ["--scales a", "400,600,800"]),
        (["predict", "{begun_detector}", "gone.jpg"], ["there is no file gone.jpg"]),
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
    assert said.startswith("residual: ")
    assert all(word in said for word in words), said
    assert not (tmp_path / "runs").exists()


def test_the_recipes_are_listed_and_printed(tmp_path: Path, shown: Shown) -> None:
    listed = shown("detect", "recipes").out
    for name in ("voc07+12", "voc07++12", "coco"):
        assert f"{name}-resnet101 " in listed
        assert f"{name}-vgg16 " in listed
    (tmp_path / "mine.yaml").write_text(shown("detect", "recipes", "coco-vgg16").out)
    assert "seed: 3" in shown("detect", "recipes", tmp_path / "mine.yaml", "--set", "seed=3").out
