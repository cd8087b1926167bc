"""State dicts of other libraries as files: what is never executed, and what is refused."""

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import sentence_of
from safetensors.torch import save_file
from torch import nn

from residual import build_model
from residual.models.statedict import read_state, write_state
from residual.models.weights import import_weights


class Malicious:
    """Unpickling it creates a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


def test_pickled_code_is_not_executed(tmp_path: Path) -> None:
    target = tmp_path / "executed"
    saved = {"state_dict": build_model("cifar_resnet20").state_dict(), "args": Malicious(target)}
    torch.save(saved, tmp_path / "new.pth")
    torch.save(saved, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "bare.pt").write_bytes(pickle.dumps(Malicious(target), protocol=2))
    for name in ("new.pth", "old.pth", "bare.pt"):
        file = tmp_path / name
        message = sentence_of(lambda file=file: import_weights(file, "cifar_resnet20", tmp_path / "out"))
        assert message.startswith(f"{file} holds pickled code (posix.mkdir), which is never executed here")
        assert not target.exists()
    # The files are what they should be: read carelessly, they do execute.
    pickle.loads((tmp_path / "bare.pt").read_bytes())
    assert target.exists()


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("part", [0, 0.001, 0.5, 0.99])
def test_truncated_foreign_files(tmp_path: Path, suffix: str, part: float) -> None:
    file = tmp_path / f"a.{suffix}"
    if suffix == "pth":
        torch.save(build_model("cifar_resnet20").state_dict(), file)
    else:
        save_file(build_model("cifar_resnet20").state_dict(), file)
    file.write_bytes(file.read_bytes()[: int(part * file.stat().st_size)])
    message = sentence_of(lambda: import_weights(file, "cifar_resnet20", tmp_path / "out"))
    assert message.startswith(f"{file} is damaged or no ")
    assert "\n" not in message


def test_files_without_a_state_dict(tmp_path: Path) -> None:
    def message(file: Path) -> str:
        return sentence_of(lambda: import_weights(file, "cifar_resnet20", tmp_path / "out"))

    assert message(tmp_path / "no.pth") == f"there is no file {tmp_path}/no.pth"
    for content, expected in [
        ({"epoch": 3, "lr": 0.1}, "holds no state dict, only epoch, lr; save"),
        ({}, "holds no state dict; save"),
        ({"state_dict": {}}, "holds no state dict; save"),
        (torch.zeros(3), "holds no state dict; save"),
    ]:
        file = tmp_path / "a.pth"
        torch.save(content, file)
        assert message(file).startswith(f"{file} {expected}")


def test_the_suffix_tells_the_format_however_it_is_written(tmp_path: Path) -> None:
    layer = nn.Linear(3, 2)
    write_state(layer, tmp_path / "a.SAFETENSORS")
    (tmp_path / "a.SAFETENSORS").rename(tmp_path / "a.safetensors")
    assert torch.equal(read_state(tmp_path / "a.safetensors")["weight"], layer.weight)
    (tmp_path / "a.safetensors").rename(tmp_path / "b.SafeTensors")
    assert torch.equal(read_state(tmp_path / "b.SafeTensors")["weight"], layer.weight)
