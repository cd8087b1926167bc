"""Where a result came from; and where tests run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import GPU_ONLY, ROOT, environment

from residual import environment as about


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["/usr/bin/residual", "train", "a b"], "residual train 'a b'"),
        (["/lib/residual/__main__.py", "train"], "residual train"),
        (["train.py", "--fast"], "python train.py --fast"),
        (["/lib/ipykernel_launcher.py", "-f", "k.json"], "python /lib/ipykernel_launcher.py -f k.json"),
        ([""], "python"),
    ],
)
def test_what_was_typed_is_noted(argv: list[str], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", argv)
    assert about.describe(torch.device("cpu"), 1)["command"] == said


def test_a_copy_without_history_is_told_its_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESIDUAL_COMMIT", "0123456789ab")
    in_a_checkout = about.commit()

    def no_repository(folder: Path, *arguments: str) -> str:
        raise subprocess.CalledProcessError(128, "git")

    monkeypatch.setattr(about, "_git", no_repository)
    assert about.commit() == "0123456789ab" != in_a_checkout
    monkeypatch.delenv("RESIDUAL_COMMIT")
    assert about.commit() is None


def test_the_commit_of_a_repository_that_holds_us_not_is_none_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the package is installed in the virtual environment of another project."""
    monkeypatch.delenv("RESIDUAL_COMMIT", raising=False)
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / ".gitignore").write_text("site\n")
    for words in (["init", "-q"], ["add", ".gitignore"], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *words], check=True)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "environment.py").touch()
    monkeypatch.setattr(about, "__file__", str(tmp_path / "site" / "environment.py"))
    assert about.commit() is None


def test_tests_see_no_gpu_nor_do_their_processes() -> None:
    assert torch.cuda.device_count() == 0
    assert environment()["CUDA_VISIBLE_DEVICES"] == ""


def test_processes_find_the_package_of_this_checkout_in_any_folder(tmp_path: Path) -> None:
    where = "import residual; print(residual.__file__)"
    told = subprocess.run(
        [sys.executable, "-c", where], cwd=tmp_path, env=environment(), capture_output=True, text=True
    )
    assert Path(told.stdout.strip()) == ROOT / "residual" / "__init__.py"


def test_asking_for_the_tests_of_a_gpu_where_there_is_none_is_an_error() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-m", GPU_ONLY, "tests/training/test_iteration.py"],
        cwd=ROOT,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "PyTorch sees no GPU here" in done.stderr
