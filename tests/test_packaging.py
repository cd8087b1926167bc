"""What is on the package index: its name, and that the wheel is whole."""

import re
import tomllib

from conftest import ROOT

from residual.errors import DISTRIBUTION, needs

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_name_on_the_index_is_one() -> None:
    assert PROJECT["name"] == DISTRIBUTION == "deep-residual"
    assert PROJECT["scripts"].keys() == {"residual"}
    assert str(needs("ONNX export", "onnx", "onnx")) == (
        "ONNX export needs the package onnx: pip install 'deep-residual[onnx]'"
    )


def test_messages_name_extras_that_are_there() -> None:
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "residual").rglob("*.py")]
    for text in texts:
        for line in text.splitlines():
            assert "pip install '" not in line or "{DISTRIBUTION}[" in line
    extras = {extra for text in texts for extra in re.findall(r'needs\(.*"(\w+)"\)', text)}
    assert {"onnx", "tensorboard", "detection"} <= extras <= PROJECT["optional-dependencies"].keys()
