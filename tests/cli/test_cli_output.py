"""What the command prints: strict JSON, names of any bytes, full and closed outputs, faults of our own."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import (
    Call,
    Refused,
    Shown,
    command_line,
    environment,
    save_network,
    smooth_image,
    torchrun,
)
from safetensors.torch import save_file

from residual.cli import classification
from residual.models.statedict import read_state
from residual.table import Table, TableRow


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_network(tmp_path_factory.mktemp("w") / "w")


@pytest.fixture
def strange(tmp_path: Path) -> bytes:
    """An image whose name is no UTF-8."""
    name = os.fsencode(tmp_path) + b"/caf\xe9.png"
    content = io.BytesIO()
    smooth_image().save(content, "png")
    with open(name, "wb") as file:
        file.write(content.getvalue())
    return name


def run(*arguments: "str | Path | bytes", **more: Any) -> "subprocess.CompletedProcess[bytes]":
    line: list[str | bytes | Path] = [*command_line(), *arguments]
    given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": environment()} | more
    return subprocess.run(line, **given)


@pytest.mark.long
def test_names_that_are_no_utf8(weights: Path, strange: bytes, shown: Shown) -> None:
    done = run("predict", weights, strange, "--json")
    assert done.returncode == 0, done.stderr
    entry = json.loads(done.stdout.decode("utf-8"))[0]
    assert os.fsencode(entry["image"]) == strange
    told = shown("predict", weights, os.fsdecode(strange), "--csv")
    rows = list(csv.DictReader(io.StringIO(told.out)))
    assert rows[0]["image"].endswith(r"caf\xe9.png")


@pytest.mark.slow  # it starts the command for each kind of output
def test_terminals_that_know_ascii_only(weights: Path, strange: bytes, tmp_path: Path) -> None:
    names = ("größe", *map(str, range(9)))
    german = save_network(tmp_path / "german", classes=names)
    strict = environment() | {"PYTHONIOENCODING": "ascii:strict"}
    for option in ((), ("--json",), ("--csv",)):
        done = run("predict", german, strange, *option, "--top", "10", env=strict)
        assert done.returncode == 0, done.stderr
        done.stdout.decode("ascii")
    done = run("predict", german, strange, "--json", "--top", "10", env=strict)
    assert {entry["name"] for entry in json.loads(done.stdout)[0]["top"]} == set(names)


def test_scores_of_names_that_are_no_utf8(tmp_path: Path, strange: bytes, shown: Shown) -> None:
    data = os.fsencode(tmp_path) + b"/data"
    for name in (b"\xfc", b"b"):
        os.makedirs(data + b"/val/" + name)
        with open(strange, "rb") as image, open(data + b"/val/" + name + b"/\xff.png", "wb") as copy:
            copy.write(image.read())
    # What training on such folders names their classes.
    network = save_network(tmp_path / "two", classes=("b", "\\xfc"))
    told = shown(
        *("evaluate", network, "--dataset", "folder", "--data-dir", os.fsdecode(data)),
        *("--save-scores", tmp_path / "s.safetensors", "--json"),
    )
    assert json.loads(told.out)["images"] == 2
    shown("ensemble", tmp_path / "s.safetensors", tmp_path / "s.safetensors", "--json")


@pytest.mark.long
def test_outputs_that_take_nothing(weights: Path, tmp_path: Path) -> None:
    smooth_image().save(tmp_path / "a.png")
    full = "residual: the output cannot be written: No space left on device\n"
    for arguments in (("complexity", "resnet18"), ("predict", weights, tmp_path / "a.png", "--json")):
        with open("/dev/full", "w") as output:
            done = run(*arguments, stdout=output)
        assert (done.returncode, done.stderr.decode()) == (2, full)
    line = f"exec {' '.join(command_line('predict', weights, tmp_path / 'a.png', '--csv'))} >&-"
    done = subprocess.run(["sh", "-c", line], capture_output=True, env=environment())
    closed = "residual: the output cannot be written: it is closed\n"
    assert (done.returncode, done.stderr.decode()) == (2, closed)


def test_numbers_that_are_none_are_no_json(weights: Path, tmp_path: Path, refused: Refused) -> None:
    smooth_image().save(tmp_path / "a.png")
    broken = save_network(tmp_path / "broken", classes="0123456789", mean=torch.zeros(1, 8, 8))
    file = broken / "model.safetensors"
    state = read_state(file)
    state["linear.weight"][:] = float("nan")
    save_file(state, file)
    for command in (["predict", broken, tmp_path / "a.png"], ["evaluate", broken, "--dataset", "digits"]):
        assert "linear.weight holds numbers that are not finite" in refused(*command, "--json")


#: A process of a user whom the machine does not know, as containers have them.
NOBODY = """
import os, pwd, sys
def unknown(number):
    raise KeyError(f"getpwuid(): uid not found: {number}")
pwd.getpwuid, os.getuid = unknown, lambda: 54321
from residual.__main__ import main
main()
"""


@pytest.mark.long
def test_who_has_no_home_and_no_name(tmp_path: Path) -> None:
    network = save_network(tmp_path / "two", classes=("a", "b"))
    for name in ("a", "b"):
        (tmp_path / "val" / name).mkdir(parents=True)
        smooth_image().save(tmp_path / "val" / name / "1.png")
    alone = environment() | {"TMPDIR": str(tmp_path)}
    for name in ("HOME", "XDG_CACHE_HOME", "USER", "LOGNAME", "RESIDUAL_CACHE"):
        alone.pop(name, None)
    arguments = ["evaluate", network, "--dataset", "folder", "--data-dir", tmp_path, "--json"]
    done = subprocess.run(
        [sys.executable, "-c", NOBODY, *arguments], capture_output=True, text=True, env=alone
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["images"] == 2


@pytest.mark.long
def test_torchrun_prints_one_document(weights: Path, tmp_path: Path) -> None:
    smooth_image().save(tmp_path / "a.png")
    done = subprocess.run(
        torchrun("predict", weights, tmp_path / "a.png", "--json"), capture_output=True, env=environment()
    )
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)) == 1


@pytest.mark.parametrize("width", [40, 80])
def test_names_stay_in_narrow_terminals(width: int, shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    printed = shown("complexity", "resnet50").out
    assert all(f"│ {name} " in printed for name in ("conv1", "conv2_x", "conv5_x", "fc", "total"))
    assert max(map(len, printed.splitlines())) <= width
    Table("", ("name", "number"), [TableRow(("b" * 90, "1"))]).print()


@pytest.mark.parametrize("width", [40, 80])
def test_a_long_name_leaves_numbers_their_room(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    rows = [TableRow(("images/of/a/long/name.jpg", "triumphal arch", "49.1 %"))]
    Table("", ("image", "class", "probability"), rows, names=2).print()
    printed = capsys.readouterr().out
    assert "49.1 % │" in printed
    assert width < 80 or "│ images/of/a/long/name.jpg │ triumphal arch │" in printed
    assert max(map(len, printed.splitlines())) <= width


def test_names_of_weights_are_whole_in_80_columns(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    printed = shown("weights").out
    assert "│ torchvision:resnet101.v2 │" in printed
    assert max(map(len, printed.splitlines()[:20])) <= 80


def test_a_fault_of_our_own_is_a_sentence_and_a_file(
    call: Call, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(*_: object) -> None:
        raise KeyError("oh")

    monkeypatch.setattr(classification, "show_recipes", broken)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert call("recipes") == 70
    said = capsys.readouterr().err
    (file,) = tmp_path.glob("residual-traceback-*.txt")
    assert said == (
        "residual: this is a fault of residual, not of what you gave it (KeyError); please report it with "
        f"its traceback, which is in {file}\n"
    )
    assert "residual recipes\n" in file.read_text()
    assert file.read_text().endswith("KeyError: 'oh'\n")
    monkeypatch.setenv("RESIDUAL_DEBUG", "1")
    assert call("recipes") == 70
    assert "Traceback (most recent call last)" in capsys.readouterr().err
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    assert call("recipes") == 70
    assert "its traceback cannot be kept (No such file or directory)" in capsys.readouterr().err
