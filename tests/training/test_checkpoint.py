"""Checkpoints: bit for bit, checked, only the newest."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from residual import InputError
from residual.training.checkpoint import (
    KEPT,
    Progress,
    list_checkpoints,
    load_checkpoint,
    save_checkpoint,
)


def tensors() -> dict[str, Tensor]:
    return {"a": torch.randn(3, 4), "b": torch.tensor(7), "c": torch.randn(2, 3, 4, 4).transpose(0, 1)}


def test_checkpoints_come_back_bit_for_bit_and_only_the_newest_stay(tmp_path: Path) -> None:
    stored = tensors()
    for iteration in (5, 50, 500):
        path = save_checkpoint(tmp_path, stored, Progress(iteration, 1.5, 20.0))
    assert list_checkpoints(tmp_path)[-1] == path
    assert len(list_checkpoints(tmp_path)) == KEPT
    read, progress = load_checkpoint(path)
    assert progress == Progress(500, 1.5, 20.0)
    assert read.keys() == stored.keys()
    assert all(torch.equal(read[name], stored[name]) for name in stored)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "foreign"])
def test_a_damaged_checkpoint_is_refused(damage: str, tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, tensors(), Progress(5))
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        content = content[:-8]
    elif damage == "flipped":
        content[-3] ^= 1
    elif damage == "empty":
        content = bytearray()
    else:
        content = bytearray(json.dumps({"hello": 1}).encode())
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"checkpoint-0000005\.safetensors is damaged"):
        load_checkpoint(path)
