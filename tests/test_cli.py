"""The command: what it prints, and one sentence with exit code 2 for every wrong input."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from conftest import TINY, Command

from residual import build_model
from residual.cli import main
from residual.models.preprocessing import Preprocessing
from residual.models.weights import save_weights
from residual.recipes import RECIPES, read


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A network for the digits, not trained."""
    folder = tmp_path / "weights-of-digits"
    torch.manual_seed(0)
    options = {"in_channels": 1}
    save_weights(
        folder,
        build_model("cifar_resnet8", classes=10, **options),
        name="cifar_resnet8",
        options=options,
        preprocessing=Preprocessing(torch.zeros(1, 8, 8)),
        classes=list("0123456789"),
    )
    return folder


def test_recipes_are_listed_and_printed(residual: Command, tmp_path: Path) -> None:
    listed = residual("recipes").stdout
    assert all(name in listed for name in RECIPES)
    printed = residual("recipes", "cifar10-resnet110", "--set", "seed=3").stdout
    assert yaml.safe_load(printed)["schedule"]["warmup"] == {"learning_rate": 0.01, "iterations": 400}
    (tmp_path / "mine.yaml").write_text(printed)
    assert read(tmp_path / "mine.yaml").seed == 3


def test_train_my_own_yaml_then_evaluate(residual: Command, tmp_path: Path) -> None:
    text = residual("recipes", *TINY).stdout.replace("iterations: 240", "iterations: 20")
    (tmp_path / "mine.yaml").write_text(text.replace("digits-resnet20", "mine"))
    done = residual("train", "mine.yaml", "--tensorboard")
    assert done.returncode == 0, done.stderr
    assert "everything is in runs/mine" in done.stdout
    # Not a terminal: plain lines.
    assert "mine: iteration 20 of 20" in done.stderr
    assert "left" in done.stderr
    assert "\x1b[" not in done.stderr
    assert list((tmp_path / "runs/mine/tensorboard").glob("events.*"))

    shown = residual("evaluate", "runs/mine")
    assert "359 images" in shown.stdout
    measured = json.loads(residual("evaluate", "runs/mine/weights", "--dataset", "digits", "--json").stdout)
    expected = json.loads((tmp_path / "runs/mine/results.json").read_text())["test"]
    assert measured["images"] == 359
    for name in ("top1_error", "top5_error", "loss"):
        assert measured[name] == pytest.approx(expected[name], rel=1e-5)
    assert measured["images_per_second"] > 0


def test_complexity(residual: Command) -> None:
    counted = json.loads(residual("complexity", "cifar_resnet20", "--json").stdout)
    assert counted["parameters"] == 269_722
    assert "conv2_x" in residual("complexity", "cifar_resnet20").stdout


def test_import_and_export(residual: Command, tmp_path: Path) -> None:
    state = build_model("cifar_resnet8").state_dict()
    torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, tmp_path / "a.th")
    done = residual(
        *("import", "a.th", "--model", "cifar_resnet8", "--out", "w"),
        *("--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225"),
    )
    assert done.returncode == 0, done.stderr
    assert residual("export-weights", "w", "b.pth").returncode == 0
    back = torch.load(tmp_path / "b.pth", weights_only=True)
    assert all(torch.equal(back[name], state[name]) for name in state)


@pytest.mark.parametrize(
    "command",
    [
        "train",
        "evaluate",
        "recipes",
        "predict",
        "ensemble",
        "complexity",
        "import",
        "export-weights",
        "export",
    ],
)
def test_help_has_examples(command: str, residual: Command) -> None:
    shown = residual(command, "--help")
    assert shown.returncode == 0
    assert "Examples:" in shown.stdout
    assert f"\n    residual {command}" in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "cifar10-resnet21"], ["no recipe 'cifar10-resnet21'", "cifar10-resnet20"]),
        (["train", "nowhere.yaml"], ["nowhere.yaml", "there is no file"]),
        (["train"], ["name a recipe"]),
        (["train", "--resume"], ["--resume --out FOLDER"]),
        (["train", "--resume", "--out", "nothing"], ["nothing holds no run to resume"]),
        ([*("train", "digits-resnet20"), *("--set", "sed=1")], ["no key 'sed'", "seed"]),
        ([*("train", "digits-resnet20"), *("--set", "model.name=resnet19")], ["resnet19", "18, 34, 50"]),
        (
            [*("train", "digits-resnet20"), *("--set", "model.name=cifar_resnet21")],
            ["6n+2", "cifar_resnet20", "cifar_resnet26"],
        ),
        (
            [*("train", "digits-plain20"), *("--set", "model.shortcut=A")],
            ["cifar_plain20 has no option 'shortcut'"],
        ),
        ([*("train", "digits-resnet20"), *("--set", "model.name=vgg16")], ["vgg16", "8 x 8", "too small"]),
        ([*("train", "digits-resnet20"), *("--set", "data.validation=1438")], ["1,438"]),
        (["train", "digits-resnet20", "--device", "tpu"], ["--device tpu", "cpu"]),
        (["train", "digits-resnet20", "--out", "a-file/run"], ["a-file/run", "cannot write"]),
        (["train", "digits-resnet20", "--out", "full"], ["full is not an empty folder"]),
        (["train", "cifar10-resnet20", "--data-dir", "nowhere"], ["nowhere"]),
        (["train", "cifar10-resnet20", "--data-dir", "truncated"], ["data_batch_2.bin", "30,730,000"]),
        (["evaluate", "nowhere"], ["nowhere"]),
        (["evaluate", "full"], ["full"]),
        (["evaluate", "weights-of-digits"], ["--dataset"]),
        (["evaluate", "weights-of-digits", "--dataset", "cifar100"], ["cifar100", "cifar10"]),
        (
            ["evaluate", "weights-of-digits", "--dataset", "cifar10", "--data-dir", "zeros"],
            ["1 channels", "3"],
        ),
        (["recipes", "nothing-like-it"], ["no recipe"]),
        (["complexity", "resnet51"], ["resnet51"]),
        (["complexity", "vgg16", "--shortcut", "A"], ["vgg16 has no option 'shortcut'"]),
        (["complexity", "resnet50", "--variant", "v2"], ["v2", "v1.5"]),
        (["complexity", "resnet50", "--clases", "3"], ["--clases"]),
        (["import", "nowhere.pth", "--model", "resnet18", "--out", "w"], ["nowhere.pth"]),
        (["import", "a-file", "--model", "resnet18", "--out", "w", "--mean", "a,b"], ["--mean a,b"]),
        (["export-weights", "weights-of-digits", "a-file"], ["a-file"]),
    ],
    ids=lambda value: "-".join(value)[:50] if isinstance(value, list) else None,
)
def test_wrong_input(
    arguments: list[str],
    words: list[str],
    tmp_path: Path,
    weights: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "a-file").write_text("precious")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("precious")
    for folder, sizes in (("truncated", (30_730_000, 12_345)), ("zeros", (30_730_000,) * 5)):
        batches = tmp_path / folder / "cifar-10-batches-bin"
        batches.mkdir(parents=True)
        for number, size in enumerate(sizes, start=1):
            with (batches / f"data_batch_{number}.bin").open("wb") as file:
                file.truncate(size)  # sparse: takes no room
        with (batches / "test_batch.bin").open("wb") as file:
            file.truncate(30_730_000)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file() and p.stat().st_size < 1_000_000}

    # In this process: importing PyTorch anew for every case would take minutes.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["residual", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    stdout, stderr = capsys.readouterr()
    assert ended.value.code == 2, (stdout, stderr)
    assert stdout == ""
    for word in words:
        assert word in stderr
    sentence = stderr.strip().splitlines()[-1]
    assert sentence.startswith(("residual: ", "Error: "))
    assert {path: path.read_bytes() for path in before} == before


def test_weights_of_another_number_of_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_weights(
        tmp_path / "seven",
        build_model("cifar_resnet8", classes=7, in_channels=1),
        name="cifar_resnet8",
        options={"in_channels": 1},
        preprocessing=Preprocessing(torch.zeros(1)),
        classes=list("ABCDEFG"),
    )
    monkeypatch.setattr("sys.argv", ["residual", "evaluate", str(tmp_path / "seven"), "--dataset", "digits"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "has 7 classes and digits has 10" in capsys.readouterr().err


def test_wrong_input_of_the_real_command(residual: Command) -> None:
    done = residual("train", "cifar10-resnet21")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("residual: there is no recipe 'cifar10-resnet21'; did you mean")
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu(residual: Command) -> None:
    done = residual("train", "digits-resnet20", "--device", "cuda")
    assert done.returncode == 2
    assert "sees 0 GPUs here; use --device cpu" in done.stderr


def test_a_wrong_recipe_leaves_no_folder_behind(residual: Command, tmp_path: Path) -> None:
    for wrong in ("model.name=cifar_resnet21", "data.validation=1438", "model.shortcut=D"):
        assert residual("train", "digits-resnet20", "--set", wrong, "--out", "new").returncode == 2
        assert not (tmp_path / "new").exists(), wrong
    done = residual("train", "cifar10-resnet20", "--data-dir", "nowhere", "--out", "new")
    assert done.returncode == 2
    assert not (tmp_path / "new").exists()
