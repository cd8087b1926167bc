"""``residual complexity``, ``import`` and ``export``."""

import json
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import TEN, Refused, Shown, results_of, save_network

from residual import InputError, build_model
from residual.models.weights import export_weights, load_weights
from residual.recipes import Recipe, read


def test_complexity(shown: Shown) -> None:
    counted = json.loads(shown("complexity", "cifar_resnet20", "--json").out)
    assert counted["parameters"] == 269_722
    assert "conv2_x" in shown("complexity", "cifar_resnet20").out


def test_complexity_of_a_run(trained_on_images: Path, shown: Shown, refused: Refused) -> None:
    counted = json.loads(shown("complexity", trained_on_images, "--json").out)
    assert counted["parameters"] == results_of(trained_on_images)["parameters"]
    folder = read(trained_on_images / "recipe.yaml", Recipe).data.folder
    assert folder
    side = folder.size
    assert counted["input_size"] == [3, side, side]
    larger = json.loads(shown("complexity", trained_on_images, "--size", 2 * side, "--json").out)
    assert larger["multiply_adds"] > 3 * counted["multiply_adds"]
    assert "--classes: " in refused("complexity", trained_on_images, "--classes", 3)


def test_the_table_of_complexity_has_the_papers_units(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    lines = shown("complexity", "resnet50").out.splitlines()
    total = next(line for line in lines if "total" in line)
    assert [cell.strip() for cell in total.split("│")[3:7]] == ["50", "25,557,032", "3.86 G", "10.59 M"]
    # Right-aligned: the units stand below each other.
    conv1, fc = (next(line for line in lines if f" {name} " in line) for name in ("conv1", "fc"))
    assert conv1.index("118.01 M") + len("118.01 M") == fc.index("2.05 M") + len("2.05 M")


def test_import_and_export(shown: Shown, tmp_path: Path) -> None:
    state = build_model("cifar_resnet8").state_dict()
    torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, tmp_path / "a.th")
    shown(
        *("import", tmp_path / "a.th", "--model", "cifar_resnet8", "--out", tmp_path / "w"),
        *("--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225"),
    )
    shown("export", tmp_path / "w", "--torchvision", tmp_path / "b.pth")
    back = torch.load(tmp_path / "b.pth", weights_only=True)
    assert all(torch.equal(back[name], state[name]) for name in state)


@pytest.mark.parametrize(("variant", "told"), [("v1", True), ("v1.5", False)])
def test_a_stride_that_torchvision_has_elsewhere_is_told(
    variant: str, told: bool, shown: Shown, tmp_path: Path
) -> None:
    """It would load the file, and compute something else."""
    weights = save_network(tmp_path / "w", "resnet50", mean=torch.zeros(3), variant=variant)
    said = shown("export", weights, "--torchvision", tmp_path / "b.safetensors").err
    assert ("their stride on the first 1x1 (v1" in said) == told


def test_what_an_onnx_file_leaves_to_do_is_said(
    shown: Shown, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It takes images of any size, and gives others' scores for those that are not resized."""
    monkeypatch.setattr("residual.models.onnx.export_onnx", lambda *_: 0.0)
    weights = save_network(tmp_path / "w", "resnet18", mean=torch.zeros(3))
    said = shown("export", weights, "--onnx", tmp_path / "a.onnx").out
    assert "resized to shorter side 256 and cut to their middle 224 x 224 before" in said


def test_the_size_that_weights_were_trained_at(
    images: Path, shown: Shown, refused: Refused, tmp_path: Path
) -> None:
    torch.save(build_model("resnet18", classes=3).state_dict(), tmp_path / "a.pth")
    (tmp_path / "names.txt").write_text("ant\nbee\ncow\n")
    start = ["import", tmp_path / "a.pth", "--model", "resnet18", "--classes", tmp_path / "names.txt"]
    assert (
        "images of 224 x 224 pixels, cut from a shorter side of 256; --size says another\n"
        in shown(*start, "--out", tmp_path / "w").out
    )
    told = shown(*start, "--out", tmp_path / "small", "--size", "64").out
    assert "images of 64 x 64 pixels, cut from a shorter side of 73\n" in told
    test = ["--dataset", "folder", "--data-dir", images, "--json"]
    kept = json.loads(shown("evaluate", tmp_path / "small", *test).out)
    asked = json.loads(shown("evaluate", tmp_path / "w", *test, "--size", "64").out)
    assert kept["views"] == asked["views"] == "center (64 of shorter side 73)"
    assert kept["loss"] == asked["loss"]
    said = refused("evaluate", tmp_path / "w", "--dataset", "digits", "--size", "64")
    assert "the images of digits are tested whole" in said
    # Networks of Section 4.2 see the whole image.
    torch.save(build_model("cifar_resnet8", classes=3).state_dict(), tmp_path / "b.pth")
    start = [
        "import",
        tmp_path / "b.pth",
        "--model",
        "cifar_resnet8",
        "--mean",
        "0.5,0.5,0.5",
        "--std",
        "1,1,1",
    ]
    told = shown(*start, "--out", tmp_path / "cifar", "--size", "64").out
    assert "images of 64 x 64 pixels, cut from a shorter side of 64" in told


def test_a_size_that_is_too_small_for_the_network(refused: Refused, tmp_path: Path) -> None:
    torch.save({}, tmp_path / "a.pth")
    start = ("import", tmp_path / "a.pth", "--model", "vgg16", "--out", tmp_path / "w", "--size", "16")
    assert "vgg16 cannot take images of 16 x 16 pixels; they are too small for it" in refused(*start)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("\n".join(TEN), ""),
        ("\ufeff" + "\r\n".join(TEN) + "\r\n", ""),
        ("\n".join([*TEN, "eleven"]), "11 names are given for 10 classes"),
        ("\n" * 10, "line 1 is empty"),
        ("\n".join([*TEN[:4], " ", *TEN[5:]]), "line 5 is empty"),
        (
            "\n".join([*TEN[:9], "cat"]),
            "two of the classes are called 'cat'; give each class a name of its own",
        ),
    ],
)
def test_files_of_class_names(
    content: str, words: str, tmp_path: Path, shown: Shown, refused: Refused
) -> None:
    network = load_weights(save_network(tmp_path / "w", mean=torch.zeros(3)))
    export_weights(network, tmp_path / "w.safetensors")
    (tmp_path / "names.txt").write_text(content, encoding="utf-8", newline="")
    arguments = (
        *("import", tmp_path / "w.safetensors", "--model", "cifar_resnet8", "--out", tmp_path / "new"),
        *("--mean", "0.5,0.5,0.5", "--std", "1,1,1", "--classes", tmp_path / "names.txt"),
    )
    if words:
        assert words in refused(*arguments)
    else:
        shown(*arguments)
        assert load_weights(tmp_path / "new").classes == TEN


def test_the_true_reason_where_nothing_may_be_written(tmp_path: Path, refused: Refused) -> None:
    network = load_weights(save_network(tmp_path / "w"))
    with pytest.raises(InputError, match=r"w\.pth cannot be written: File too large"):
        within(1000, lambda: export_weights(network, tmp_path / "w.pth"))
    assert not list(tmp_path.glob("*w.pth*"))


def within(size: int, action: Callable[[], object]) -> None:
    """Do something while no file may be larger than so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        action()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
