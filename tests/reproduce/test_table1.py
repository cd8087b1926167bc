"""Table 1 beside the paper's rivals, by one command."""

import json
from pathlib import Path

import pytest
from conftest import Shown

from residual.reproduce.table1 import agreement


def test_complexity_of_the_papers_networks_and_their_rivals(tmp_path: Path, shown: Shown) -> None:
    printed = shown("reproduce", "complexity", "--out", tmp_path).out
    assert "plain-34 is 18.6 % of VGG-19 (the paper: 18 %)" in printed
    assert "ResNet-152 has lower complexity than VGG-16 and -19" in printed
    rows = {row["network"]: row for row in json.loads((tmp_path / "complexity.json").read_text())["rows"]}
    # By hand from its description; [12] gives PReLU-net A as 178M and 1.90 x 10^10.
    assert rows["GoogLeNet"]["parameters"] == 6_998_552
    assert round(rows["GoogLeNet"]["multiply_adds"] / 1e9, 3) == 1.583
    assert round(rows["PReLU-net A"]["parameters"] / 1e6) == 178
    assert round(rows["PReLU-net A"]["multiply_adds"] / 1e10, 1) == 1.9
    assert rows["BN-inception"]["parameters"] == 11_285_224
    assert rows["VGG-19"]["multiply_adds"] == 19_632_062_464
    assert rows["ResNet-152"]["multiply_adds"] == 11_282_415_616
    text = (tmp_path / "complexity.md").read_text()
    assert "| ResNet-50 | 50 | 25,557,032 | 3.858 | 3.8 | cut off | 19.7 % |" in text


@pytest.mark.parametrize(
    ("exact", "printed", "said"),
    [(3_858_000_000, "3.8", "cut off"), (7_570_000_000, "7.6", "rounded"), (3_640_000_000, "3.6", "yes")],
)
def test_agreement(exact: int, printed: str, said: str) -> None:
    assert agreement(exact, printed) == said
    assert agreement(exact + 10**9, printed) == "no"
