"""What is on the package index: its name, what it needs, and that the wheel is whole."""

import ast
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

import pytest
from conftest import ROOT

from residual import __version__
from residual.errors import EXTRAS, needs

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SOURCES = {path: path.read_text(encoding="utf-8") for path in (ROOT / "residual").rglob("*.py")}

#: What packages are called where that is not what is imported.
CALLED = {"PIL": "pillow", "yaml": "pyyaml", "sklearn": "scikit-learn"}


def test_the_name_on_the_index_is_one() -> None:
    assert PROJECT["name"] == "deep-residual"
    assert PROJECT["scripts"].keys() == {"residual"}
    assert str(needs("ONNX export", "onnx", "onnx")) == (
        "ONNX export needs the package onnx: pip install onnx onnxruntime onnxscript"
    )


def test_messages_name_extras_that_are_there() -> None:
    ours = PROJECT["optional-dependencies"]
    packages = {extra: [re.match(r"[\w-]+", text)[0] for text in ours[extra]] for extra in EXTRAS}  # type: ignore[index]
    assert {extra: text.split() for extra, text in EXTRAS.items()} == packages
    assert ours.keys() - EXTRAS.keys() == {"docs", "dev"}
    extras = {extra for text in SOURCES.values() for extra in re.findall(r'needs\(.*"(\w+)"\)', text)}
    assert {"onnx", "tensorboard", "detection"} <= extras <= EXTRAS.keys()


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_module_imports_at_once_is_installed_with_it(path: Path) -> None:
    """Extras are imported by what needs them, when it needs them."""
    wanted = {re.match(r"[\w-]+", text)[0].lower() for text in PROJECT["dependencies"]}  # type: ignore[index]
    for node in ast.parse(SOURCES[path]).body:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [str(node.module)] if isinstance(node, ast.ImportFrom) and not node.level else []
        for top in {name.partition(".")[0] for name in names} - sys.stdlib_module_names:
            # jinja2's own part, and it says so.
            assert CALLED.get(top, top) in wanted | {"markupsafe", "residual"}, f"{path} imports {top}"


@pytest.mark.slow
def test_the_wheel_is_whole(tmp_path: Path) -> None:
    """Built, and used in an environment that has our dependencies and nothing else of this folder."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    source = tmp_path / "source"
    tracked = subprocess.run(
        ["git", "ls-files", "-z", "residual", "pyproject.toml", "README.md", "LICENSE"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in tracked.strip("\0").split("\0"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path), str(source)]
    subprocess.run([*pip, *build], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name == f"deep_residual-{__version__}-py3-none-any.whl"
    bare = tmp_path / "bare"
    venv.create(bare, with_pip=False, symlinks=True)
    python = bare / "bin" / "python"
    subprocess.run(
        [*pip, "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)], check=True
    )
    # A path in a .pth file brings packages, but not the .pth files beside them: not the one of this folder.
    (site,) = (bare / "lib").glob("python*/site-packages")
    (site / "ours.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def run(*words: str) -> str:
        done = subprocess.run(
            words,
            cwd=tmp_path,
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    command = str(bare / "bin" / "residual")
    assert run(command, "--version") == f"residual {__version__}\n"
    where = "import residual, importlib.metadata as m; print(residual.__file__, m.version('deep-residual'))"
    assert run(str(python), "-c", where) == f"{site / 'residual' / '__init__.py'} {__version__}\n"
    # What lies beside the modules: the names of classes, the templates of pages and cards.
    run(str(python), "-c", "from residual.class_names import imagenet_classes; imagenet_classes()")
    short = ("--set", "model.name=cifar_resnet8", "--set", "schedule.iterations=4")
    run(command, "train", "digits-resnet20", *short, "--set", "evaluate_every=4", "--out", "run")
    run(command, "push", "run", "somebody/digits", "--dry-run", "shared")
    assert (tmp_path / "shared" / "README.md").is_file()
    templates = {path.name for path in (ROOT / "residual").rglob("*.jinja")}
    assert templates == {path.name for path in (site / "residual").rglob("*.jinja")}
