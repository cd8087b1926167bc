"""A run shared: a card that says what its files say, in a folder and on a Hub on this machine, and back."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from conftest import TINY, Call, Refused, Shown, save_network, sentence_of, set_options, smooth_image
from servers import HubServer

import residual
from residual.files import without_home
from residual.models.weights import load_weights
from residual.run.sharing import _without_places, model_card, write_shared


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, call: Call) -> Path:
    out = tmp_path_factory.mktemp("shared") / "run"
    short = ("schedule.iterations=8", "evaluate_every=8", "seed=3")
    assert call("train", *TINY, *set_options(short), "--out", out) == 0
    return out


def test_a_run_is_written_and_used_again_by_its_name(
    run: Path, hub: HubServer, tmp_path: Path, shown: Shown
) -> None:
    shared = tmp_path / "shared"
    told = shown("push", run, "somebody/digits", "--license", "mit", "--dry-run", shared).out
    assert told == f"wrote {shared}: what would be uploaded to hf:somebody/digits; read its README.md\n"
    assert {path.name for path in shared.iterdir()} == {
        *("README.md", "config.json", "model.safetensors", "preprocessing.safetensors"),
    }
    assert hub.asked == []
    hub.put("somebody/digits", shared)
    network = residual.load("hf:somebody/digits")
    assert network.predict(smooth_image()) == residual.load(run).predict(smooth_image())


def test_a_card_says_what_the_files_say(run: Path) -> None:
    card = model_card(run, "somebody/digits", "mit")
    _, front, body = card.split("---\n", 2)
    assert yaml.safe_load(front) == {
        "license": "mit",
        "library_name": "residual",
        "pipeline_tag": "image-classification",
        "tags": ["residual", "resnet", "pytorch"],
    }
    results = json.loads((run / "results.json").read_text())
    for split, images in (("train", "1,438"), ("test", "359")):
        found = results[split]
        row = f"| {split} | {images} | {found['top1_error']:.2f} % | {found['top5_error']:.2f} % |"
        assert f"{row} {found['loss']:.3f} |" in body
    assert "One run, seed 3." in body
    assert "Of the weights after the last iteration, 8, never of the best" in body
    assert "- model.name: cifar_resnet20 -> cifar_resnet8" in body
    assert "- seed: 0 -> 3" in body
    (session,) = json.loads((run / "environment.json").read_text())
    # Where it lies is nobody's affair.
    assert f"\n{session['command'].replace(str(run), run.name)}\n" in body
    assert f"torch {torch.__version__}" in body
    assert "residual predict hf:somebody/digits image.jpg" in body
    recipe = body.partition("```yaml\n")[2].partition("```")[0]
    assert yaml.safe_load(recipe)["schedule"]["iterations"] == 8
    assert "license" not in model_card(run, "somebody/digits").split("---\n")[1]


def test_a_card_invents_nothing(run: Path, tmp_path: Path) -> None:
    """Of the weights folder alone, command, machine and data are not known."""
    shutil.copytree(run / "weights", tmp_path / "elsewhere" / "weights")
    card = model_card(tmp_path / "elsewhere" / "weights", "somebody/digits")
    for word in ("residual train", "torch ", "images in train", "process"):
        assert word not in card.replace("trained by the recipe", "")
    assert "One run, seed 3." in card


@pytest.mark.parametrize(
    ("marked", "expected"),
    [
        ({"complete": False, "of_iterations": 900}, "Of a run that was stopped after 8 of 900 iterations."),
        (
            # As a line of the log has it, which has no top-5 error of the training images.
            {"chosen_by": "validation", "train": {"loss": 1.5, "top1_error": 50.0, "images": 640}},
            "lowest validation error, after 8 iterations: chosen by these images",
        ),
    ],
)
def test_weights_that_are_no_runs_result_say_so(
    marked: dict[str, object], expected: str, run: Path, tmp_path: Path
) -> None:
    shutil.copytree(run / "weights", tmp_path / "w")
    config = json.loads((tmp_path / "w" / "config.json").read_text())
    # All that is said of them.
    config["results"] = {key: config["results"][key] for key in ("recipe", "iterations", "test")} | marked
    (tmp_path / "w" / "config.json").write_text(json.dumps(config))
    card = model_card(tmp_path / "w", "somebody/digits")
    assert expected in card
    assert "after the last iteration" not in card
    # Images that were seen on the way, by other weights, are no test of these.
    assert "| train |" not in card


def test_the_network_that_a_recipe_takes_from_the_weights_is_no_departure(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "weights", tmp_path / "w")
    config = json.loads((tmp_path / "w" / "config.json").read_text())
    network = {"name": "cifar_resnet8", "shortcut": "A", "weights": "~/w", "freeze": 2}
    config["recipe"] = residual.recipe("finetune", epochs=5).model_dump(mode="json")
    config["recipe"]["model"] |= network
    (tmp_path / "w" / "config.json").write_text(json.dumps(config))
    card = model_card(tmp_path / "w", "somebody/digits")
    assert "name:\n\n- model.freeze: 0 -> 2\n- schedule.epochs: 15 -> 5\n\n" in card


def test_paths_do_not_tell_who_somebody_is(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shown: Shown
) -> None:
    monkeypatch.setenv("HOME", str(run.parent))
    shown("push", run, "somebody/digits", "--dry-run", tmp_path / "shared")
    card = (tmp_path / "shared" / "README.md").read_text()
    # Where pytest's folder lies in the tester's own home, that is what is left out.
    assert re.search(r"--out ~/\S*run", card)
    assert str(run.parent) not in card


def test_paths_of_another_machine_are_told_by_their_last_name_alone(run: Path, tmp_path: Path) -> None:
    """A run that was copied from a cluster, say, where home was another."""
    there = Path(shutil.copytree(run, tmp_path / "run"))
    file = there / "weights" / "config.json"
    config = json.loads(file.read_text())
    config["recipe"]["model"]["weights"] = "/home/alice/secret/resnet8"
    config["results"]["guessed"] = {"classifier": "C:\\Users\\Alice\\net"}
    file.write_text(json.dumps(config | {"classes": ["/zero", *"123456789"]}))
    write_shared(there, "somebody/digits", tmp_path / "shared")
    card, shared = ((tmp_path / "shared" / name).read_text() for name in ("README.md", "config.json"))
    for text in (card, shared):
        assert "alice" not in text.lower()
        assert "/zero" in text
    assert json.loads(shared)["recipe"]["model"]["weights"] == "resnet8"
    assert json.loads(shared)["results"]["guessed"] == {"classifier": "net"}
    assert "weights: resnet8" in card


def test_a_card_does_not_tell_where_a_run_was_made(run: Path, tmp_path: Path) -> None:
    there = Path(shutil.copytree(run, tmp_path / "run"))
    file = there / "environment.json"
    sessions = json.loads(file.read_text())
    sessions[0]["command"] = "residual train --data-dir /home/alice/data --set model.teacher=/home/alice/t"
    # What a path may have in it, and what may stand before one.
    sessions += [
        sessions[0] | {"command": command}
        for command in (
            "residual train '--out=/mnt/Lab of Alice/b' --set 'data.train=[/home/alice/c, /home/alice/d]'",
            "residual train --weights /scratch/alice/lr=0.1/e --data-dir file:///home/alice/f",
            "residual train --data-dir '/home/alice/g",
            "residual train --set 'model.teacher=\"/mnt/alice of Lab/h\"' --set 'data.mean=[0.1, 0.2]'",
            "residual train --weights ../l --data-dir runs/mnt --set data.train=2007/test",
            "residual train --set 'model={name: cifar_fitnet, teacher: /mnt/alice/i}'",
            "residual train --set \"data.train=['/home/alice of Lab/j', '/home/alice/k']\" a/b https://a.b/c",
        )
    ]
    place = "/mnt/Lab of Alice/lr=0.1/secret/resnet8"
    sessions[0]["started_from"] = f"all of {place} but its classifier"
    config = json.loads((there / "weights" / "config.json").read_text())
    config["recipe"]["model"]["weights"] = place
    (there / "weights" / "config.json").write_text(json.dumps(config))
    file.write_text(json.dumps(sessions))
    card = model_card(there, "somebody/digits")
    assert "alice" not in card.lower()
    assert "Lab" not in card
    assert "residual train --out=b --set 'data.train=[c, d]'" in card
    assert "residual train --weights e --data-dir file:f" in card
    assert "teacher: i}'" in card
    assert "a/b https://a.b/c" in card
    assert "residual train --weights ../l --data-dir runs/mnt --set data.train=2007/test" in card
    assert "residual train --data-dir data --set model.teacher=t" in card
    assert "Started from all of resnet8 but its classifier" in card


def test_no_part_of_a_config_tells_where_something_lay(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    config = {
        "classes": ["/zero"],
        "localizer": {"backbone": {"name": "/home/alice/mine.py:build", "weights": "/home/alice/a"}},
        "rcnn": {"localizer": f"{tmp_path}/runs/b", "numbers": [1, None, "2007/test"]},
        "recipe": {
            "description": "A / with model.teacher: t -> /mnt/Lab of Alice/c and/or 2/3, from D:\\Alice\\d",
            "model": {"teacher": "/mnt/Lab of Alice/c"},
        },
    }
    assert _without_places(config) == {
        "classes": ["/zero"],
        "localizer": {"backbone": {"name": "mine.py:build", "weights": "a"}},
        "rcnn": {"localizer": "~/runs/b", "numbers": [1, None, "2007/test"]},
        "recipe": {
            "description": "A / with model.teacher: t -> c and/or 2/3, from d",
            "model": {"teacher": "c"},
        },
    }


def test_a_path_that_is_no_utf8_is_shared_somehow(run: Path, tmp_path: Path) -> None:
    there = Path(shutil.copytree(run, tmp_path / "run"))
    file = there / "environment.json"
    sessions = json.loads(file.read_text())
    sessions[0]["command"] = "residual train --data-dir caf\udce9"
    file.write_text(json.dumps(sessions))
    write_shared(there, "somebody/digits", tmp_path / "shared")
    assert "caf\\xe9" in (tmp_path / "shared" / "README.md").read_text()


def test_a_home_is_nobodys_affair_whatever_it_is_called(
    run: Path, tmp_path: Path, shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    """YAML writes letters as numbers and folds lines, and runs note where links lead to."""
    disk = tmp_path / "disk" / "Jörg Müller"
    disk.mkdir(parents=True)
    (tmp_path / "home").symlink_to(disk)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    weights = shutil.copytree(run / "weights", tmp_path / "weights")
    config = json.loads((weights / "config.json").read_text())
    config["recipe"]["model"]["weights"] = str(disk / "weights")
    (weights / "config.json").write_text(json.dumps(config, ensure_ascii=False), encoding="utf-8")
    shown("push", weights, "somebody/digits", "--dry-run", tmp_path / "shared")
    for file in ("README.md", "config.json"):
        text = (tmp_path / "shared" / file).read_text(encoding="utf-8")
        assert "~/weights" in text
        assert "rg M" not in text


def test_home_itself_and_what_only_looks_like_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    told = "--data-dir /home/ann --out '/home/ann/my run' \"/home/ann\", file:///home/ann/a, in /home/ann."
    assert without_home(told) == "--data-dir ~ --out '~/my run' \"~\", file://~/a, in ~."
    others = "/mnt/home/ann/a /home/anna/a /home/ann-2 /home/ann.old/a https://a.org/home/ann/"
    assert without_home(others) == others


def test_the_card_of_a_detector(begun_detector: Path, hub: HubServer, tmp_path: Path, shown: Shown) -> None:
    shown("push", begun_detector, "somebody/shapes", "--dry-run", tmp_path / "shared")
    card = (tmp_path / "shared" / "README.md").read_text()
    assert "pipeline_tag: object-detection" in card
    assert "| test | 5 |" in card
    assert "residual detect predict hf:somebody/shapes image.jpg" in card
    assert "(10 images)" in card
    hub.put("somebody/shapes", tmp_path / "shared")
    same = residual.load_detector(begun_detector)
    assert residual.load_detector("hf:somebody/shapes").classes == same.classes
    smooth_image().save(tmp_path / "a.png")
    shown("detect", "predict", "hf:somebody/shapes", tmp_path / "a.png")


def test_pushed_to_a_hub_and_loaded_again(run: Path, hub: HubServer, shown: Shown, refused: Refused) -> None:
    told = shown("push", run, "somebody/digits", "--private").out
    assert told == f"{hub.address}/somebody/digits: use it as hf:somebody/digits\n"
    assert hub.created[0].get("private") is True or hub.created[0]["visibility"] == "private"
    mine = load_weights(run).model.state_dict()
    theirs = load_weights(Path("hf:somebody/digits")).model.state_dict()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    said = refused("push", run, "somebody/digits")
    assert f"cannot push to somebody/digits at {hub.address}: it exists already; --update adds to it" in said
    shown("push", run, "somebody/digits", "--update")
    hub.files["/api/models/somebody/digits"] = b'{"id": "somebody/digits", "private": false}'
    said = refused("push", run, "somebody/digits", "--private", "--update")
    assert "it exists and everybody can see it; leave --private out, or make it private there; --dry" in said
    hub.files["/api/models/somebody/digits"] = b'{"id": "somebody/digits", "private": true}'
    shown("push", run, "somebody/digits", "--private", "--update")
    hub.refuses = True
    assert "it wants somebody who may write there (hf auth login)" in refused("push", run, "somebody/other")
    hub.stop()
    assert "--dry-run FOLDER writes what would be uploaded" in refused("push", run, "somebody/other")


def test_what_cannot_be_shared(run: Path, tmp_path: Path, refused: Refused) -> None:
    assert "there is no folder" in refused(
        "push", tmp_path / "none", "somebody/a", "--dry-run", tmp_path / "s"
    )
    name = refused("push", run, "digits", "--dry-run", tmp_path / "s")
    assert "hf:digits is not a name of weights on the Hugging Face Hub; write hf:OWNER/NAME" in name
    save_network(tmp_path / "untrained")
    said = refused("push", tmp_path / "untrained", "somebody/a", "--dry-run", tmp_path / "s")
    assert "does not say how it was trained" in said
    (tmp_path / "full").mkdir()
    assert "full exists already" in refused("push", run, "somebody/a", "--dry-run", tmp_path / "full")
    assert "is published already" in sentence_of(lambda: model_card(Path("cifar:resnet20"), "somebody/a"))
    assert not (tmp_path / "s").exists()
