"""``residual complexity``, ``import`` and ``export``."""

import json
from pathlib import Path

import pytest
import torch
from conftest import Shown

from residual import build_model


def test_complexity(shown: Shown) -> None:
    counted = json.loads(shown("complexity", "cifar_resnet20", "--json").out)
    assert counted["parameters"] == 269_722
    assert "conv2_x" in shown("complexity", "cifar_resnet20").out


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
