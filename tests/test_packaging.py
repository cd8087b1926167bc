"""What is on the package index: its name, and that the wheel is whole."""

import re
import tomllib

from conftest import ROOT

from residual.errors import DISTRIBUTION, needs

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_name_on_the_index_is_one() -> None:
    assert PROJECT["name"] == DISTRIBUTION == "deep-residual"
    assert PROJECT["scripts"] == {"residual": "residual.cli:main"}
    assert str(needs("ONNX export", "onnx", "onnx")) == (
        "ONNX export needs the package onnx: pip install 'deep-residual[onnx]'"
    )


def test_messages_name_extras_that_are_there() -> None:
    """``needs(what, package, extra)`` is the one place that says what to install."""
    texts = {path: path.read_text(encoding="utf-8") for path in (ROOT / "residual").rglob("*.py")}
    assert [path.name for path, text in texts.items() if "pip install" in text] == ["errors.py"]
    extras = {extra for text in texts.values() for extra in re.findall(r'needs\(.*"(\w+)"\)', text)}
    assert {"onnx", "tensorboard", "detection"} <= extras <= PROJECT["optional-dependencies"].keys()
