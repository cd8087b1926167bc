"""``residual train``, ``evaluate``, ``ensemble`` and ``recipes``."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from conftest import (
    SEVEN,
    TINY,
    Call,
    Command,
    Refused,
    Shown,
    results_of,
    save_network,
    sentence_of,
    set_options,
    write_images,
)

from residual.environment import commit as environment_commit
from residual.errors import InputError
from residual.evaluation.scores import load_scores
from residual.inference.ensemble import evaluate_ensemble
from residual.inference.evaluation import EvaluationOptions, evaluate
from residual.recipes import RECIPES, read


def test_recipes_are_listed_and_printed(shown: Shown, tmp_path: Path) -> None:
    listed = shown("recipes").out
    assert all(name in listed for name in RECIPES)
    printed = shown("recipes", "cifar10-resnet110", "--set", "seed=3").out
    assert yaml.safe_load(printed)["schedule"]["warmup"] == {
        "learning_rate": 0.01,
        "shape": "constant",
        "iterations": 400,
    }
    (tmp_path / "mine.yaml").write_text(printed)
    assert read(tmp_path / "mine.yaml").seed == 3


@pytest.mark.long
def test_train_my_own_yaml_then_evaluate(residual: Command, shown: Shown, tmp_path: Path) -> None:
    text = shown("recipes", *TINY).out.replace("iterations: 240", "iterations: 20")
    (tmp_path / "mine.yaml").write_text(text.replace("digits-resnet20", "mine"))
    done = residual("train", "mine.yaml", "--tensorboard")
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "mine"
    assert "everything is in runs/mine" in done.stdout
    # Not a terminal: plain lines.
    assert "mine: iteration 20 of 20" in done.stderr
    assert "left" in done.stderr
    assert "\x1b[" not in done.stderr
    assert list(run.glob("tensorboard/events.*"))

    assert "359 images" in shown("evaluate", run).out
    measured = json.loads(shown("evaluate", run / "weights", "--dataset", "digits", "--json").out)
    expected = results_of(run)["test"]
    assert measured["images"] == 359
    for name in ("top1_error", "top5_error", "loss"):
        assert measured[name] == pytest.approx(expected[name], rel=1e-5)
    assert measured["images_per_second"] > 0
    # Which is a result only with what it was made by.
    about = measured["environment"]
    assert about.keys() == json.loads((run / "environment.json").read_text())[0].keys() & about.keys()
    assert (about["commit"], about["ranks"]) == (environment_commit(), 1)
    assert about["versions"]["torch"] == torch.__version__


@pytest.mark.parametrize(
    ("capabilities", "settings", "told", "warned"),
    [
        ({"avx512_bf16": True}, (), True, False),
        ({"avx512_bf16": True}, ("--set", "precision=bfloat16"), False, False),
        ({"avx512_bf16": False, "avx512_f": True}, ("--set", "precision=bfloat16"), False, False),
        ({"avx2": True}, (), False, False),
        ({"avx2": True}, ("--set", "precision=bfloat16"), False, True),
    ],
)
def test_what_bfloat16_is_worth_on_this_machine_is_told(
    monkeypatch: pytest.MonkeyPatch,
    shown: Shown,
    tmp_path: Path,
    capabilities: dict[str, bool],
    settings: tuple[str, ...],
    told: bool,
    warned: bool,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    monkeypatch.setattr("residual.device._kernels_take_bfloat16", lambda: "avx2" not in capabilities)
    short = ("--set", "schedule.iterations=1", "--device", "cpu", "--out", str(tmp_path / "run"))
    said = shown("train", *TINY, *short, *settings).err
    assert said.count("--set precision=bfloat16") == told
    assert said.count("no instructions for bfloat16") == warned


def test_a_wrong_recipe_leaves_no_folder_behind(
    refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for wrong in ("model.name=cifar_resnet21", "data.validation=1438", "model.shortcut=D"):
        refused("train", "digits-resnet20", "--set", wrong, "--out", "new")
        assert not (tmp_path / "new").exists(), wrong
    refused("train", "cifar10-resnet20", "--data-dir", "nowhere", "--out", "new")
    assert not (tmp_path / "new").exists()


def test_damaged_images_are_skipped_and_counted(tmp_path: Path, shown: Shown, refused: Refused) -> None:
    data = write_images(tmp_path / "data", SEVEN, val=14)
    weights = save_network(tmp_path / "w", classes=SEVEN)
    damaged = data / "val" / "cat" / "02.png"
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 2])
    saved = tmp_path / "a.safetensors"
    arguments = ("evaluate", weights, "--dataset", "folder", "--data-dir", data)
    printed = shown(*arguments, "--save-scores", saved, "--json")
    assert "cat/02.png" in printed.err
    assert json.loads(printed.out)["skipped"] == 1
    assert "  skipped      1 damaged image\n" in shown(*arguments).out
    assert json.loads(printed.out)["images"] == len(load_scores(saved)) == 13
    assert not any("cat/02.png" in name for name in load_scores(saved).ids)
    for file in data.rglob("*.png"):
        file.write_bytes(b"nothing")
    assert "no image" in refused(*arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["evaluate", "w", "--dataset", "folder"], "--data-dir"),
        (["evaluate", "w", "--dataset", "folder", "--data-dir", "nowhere"], "nowhere"),
        (["evaluate", "w", "--dataset", "digits", "--views", "ten-crop"], "tested whole"),
        (["evaluate", "w", "--dataset", "folder", "--data-dir", "data", "--crop", "99"], "does not fit"),
        (["evaluate", "w", "--dataset", "folder", "--data-dir", "data", "--scales", "a,b"], "--scales a,b"),
        (["evaluate", "w", "--dataset", "folder", "--data-dir", "data", "--scales", "0"], "a side is 1 to"),
        (
            ["evaluate", "w", "--dataset", "folder", "--data-dir", "data", "--save-scores", "w"],
            ".safetensors",
        ),
        (
            [
                *("evaluate", "w", "--dataset", "folder", "--data-dir", "data"),
                *("--save-scores", "s.safetensors"),
            ],
            "s.safetensors exists already",
        ),
        (
            [
                *("evaluate", "w", "--dataset", "folder", "--data-dir", "data"),
                *("--save-scores", "scoress/a.safetensors"),
            ],
            "there is no folder scoress",
        ),
        (["ensemble", "s.safetensors"], "damaged or no file of scores"),
        (["ensemble", "nowhere"], "nowhere"),
        (["ensemble", "w"], "--dataset"),
        (
            [
                *("evaluate", "w", "--dataset", "folder", "--data-dir", "data"),
                *("--views", "multi-scale", "--crop", "9"),
            ],
            "leave the crop out",
        ),
        (["import", "theirs.pth", "--model", "vgg16", "--classes", "nowhere", "--out", "v"], "theirs.pth"),
    ],
    ids=lambda value: "-".join(value)[-40:] if isinstance(value, list) else None,
)
def test_wrong_input_of_evaluate(
    arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    monkeypatch.chdir(tmp_path)
    save_network(Path("w"), classes=SEVEN)
    write_images(Path("data"), SEVEN, train=7, val=7)
    Path("s.safetensors").write_text("precious")
    said = refused(*arguments)
    assert words in said
    assert said.count("\n") == 1
    assert Path("s.safetensors").read_text() == "precious"


def test_tests_tell_how_far_they_are(tmp_path: Path, shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("residual.terminal.PLAIN_SECONDS", 0.0)
    members = [
        save_network(tmp_path / f"{seed}", classes="0123456789", mean=torch.rand(1), seed=seed)
        for seed in range(2)
    ]
    said = shown("evaluate", members[0], "--dataset", "digits").err
    assert said.endswith("images: 359 of 359, 0:00:00 left\n")
    said = shown("ensemble", *members, "--dataset", "digits").err
    assert "images: 359 of 718, " in said
    assert said.endswith("images: 718 of 718, 0:00:00 left\n")
    assert shown("evaluate", members[0], "--dataset", "digits", "--json").err == ""


def test_ensembles_of_runs_and_scores(tmp_path: Path, shown: Shown, refused: Refused) -> None:
    data = write_images(tmp_path / "data", SEVEN, val=14)
    a = save_network(tmp_path / "a", classes=SEVEN, seed=1)
    b = save_network(tmp_path / "b", classes=SEVEN[::-1], seed=2)
    folder = ("--dataset", "folder", "--data-dir", data)
    saved = tmp_path / "a.safetensors"
    shown("evaluate", a, *folder, "--save-scores", saved)
    printed = json.loads(shown("ensemble", saved, b, *folder, "--json").out)
    options = EvaluationOptions("folder", "test", data)
    members, together = evaluate_ensemble([a, b], options)
    assert [entry["member"] for entry in printed["members"]] == [str(saved), str(b)]
    assert printed["environment"]["commit"] == environment_commit()
    assert printed["members"][1]["loss"] == pytest.approx(members[1][1].loss, rel=1e-5)
    assert printed["ensemble"]["loss"] == pytest.approx(together.metrics().loss, rel=1e-5)
    scores = [evaluate(weights, options, keep_scores=True).scores for weights in (a, b)]
    mean = (scores[0].probabilities + scores[1].probabilities.flip(1)) / 2  # type: ignore[union-attr]
    torch.testing.assert_close(together.probabilities, mean)
    told = shown("ensemble", saved, b, *folder, "--save-scores", tmp_path / "c.safetensors").out
    assert "ensemble of 2, 14 images" in told
    torch.testing.assert_close(load_scores(tmp_path / "c.safetensors").probabilities, mean)
    # Scores that were saved say nothing of where, and nothing is measured here.
    alone = json.loads(shown("ensemble", saved, tmp_path / "c.safetensors", "--json").out)
    assert alone.keys() == {"members", "ensemble"}

    other = write_images(tmp_path / "other", SEVEN, val=7)
    said = refused("ensemble", saved, b, "--dataset", "folder", "--data-dir", other)
    sentence = said.splitlines()[-1]
    assert f"{b} lacks the image" in sentence
    assert "and 6 more" in sentence


def test_a_slip_in_the_last_member_costs_no_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def evaluated(*_: object, **__: object) -> None:
        raise AssertionError("a member was tested before all were read")

    monkeypatch.setattr("residual.inference.ensemble.evaluate", evaluated)
    network = save_network(tmp_path / "a", classes=SEVEN)
    (tmp_path / "empty").mkdir()
    for last in ("b.safetensor", "empty"):
        said = sentence_of(
            lambda last=last: evaluate_ensemble([network, tmp_path / last], EvaluationOptions())
        )
        assert last in said


def test_short_forms_of_settings(tmp_path: Path, shown: Shown, refused: Refused) -> None:
    short = ["--epochs", "1", "--lr", "0.02", "--batch", "719"]
    for name, said in (
        ("short", short),
        ("long", set_options(["schedule.epochs=1", "schedule.learning_rate=0.02", "batch.size=719"])),
    ):
        small = set_options(["model.name=cifar_resnet8", "evaluate_every=10", "batch.bn_group=719"])
        words = ["train", "digits-resnet20", *small, *said, "--out", tmp_path / name]
        shown(*words)
    assert (tmp_path / "short" / "recipe.yaml").read_text() == (tmp_path / "long" / "recipe.yaml").read_text()
    assert results_of(tmp_path / "short")["iterations"] == 2
    both = refused("train", *TINY, "--lr", "0.1", "--set", "schedule.learning_rate=0.2")
    assert "--lr and --set schedule.learning_rate=0.2 say the same; leave one of them out" in both
    assert "--epochs and --set schedule.iterations=240 say the same" in refused("train", *TINY, "--epochs", 3)
    assert "a run is resumed as it was, without --set, its short forms" in refused(
        "train", "--resume", "--epochs", "3", "--out", tmp_path / "short"
    )
    assert "name the recipe as well" in refused("train", "--epochs", "3", "--out", tmp_path / "new")
    assert "batch.size" in refused("train", *TINY, "--batch", "1")


def test_scores_that_cannot_be_saved_cost_nobody_the_numbers(
    tmp_path: Path, call: Call, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = save_network(tmp_path / "w", classes="0123456789", mean=torch.zeros(1, 8, 8))
    scores = tmp_path / "kept.safetensors"
    tested = ("evaluate", weights, "--dataset", "digits", "--save-scores")
    assert call(*tested, scores) == 0

    def full(*_: object) -> None:
        raise InputError("the disk is full")

    monkeypatch.setattr("residual.evaluation.scores.save_scores", full)
    for words in ((*tested, tmp_path / "new.safetensors"), ("ensemble", scores, scores)):
        capsys.readouterr()
        saving = () if words[0] == "evaluate" else ("--save-scores", tmp_path / "new.safetensors")
        assert call(*words, *saving) == 2
        told = capsys.readouterr()
        assert "top-1 error" in told.out
        assert "the disk is full" in told.err
