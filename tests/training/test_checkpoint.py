"""Checkpoints: bit for bit, checked, only the newest."""

import json
from pathlib import Path

import pytest
import torch
from conftest import sentence_of
from safetensors.torch import save_file
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


def test_one_changed_character_anywhere_is_seen(tmp_path: Path) -> None:
    """In the progress too: one digit more, and another run would go on."""
    stored = {"a": torch.arange(3.0), "b": torch.tensor(7)}
    path = save_checkpoint(tmp_path, stored, Progress(125, 1.5, 20.0, plateaus=1, waited=2, lowest=20.0))
    whole = path.read_bytes()
    assert b'\\"plateaus\\": 1' in whole
    refused = 0
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            tensors, progress = load_checkpoint(path)
        except InputError:
            refused += 1
            continue
        # Only where JSON says the same in other words, or the checksum's own name was hit.
        assert progress == Progress(125, 1.5, 20.0, plateaus=1, waited=2, lowest=20.0)
        assert tensors.keys() == stored.keys()
        assert all(torch.equal(tensors[name], stored[name]) for name in stored)
    assert refused > 0.9 * len(whole)


def write_older(path: Path, progress: str, crc32: int) -> Path:
    """Write a checkpoint as earlier versions did, whose checksum was over names and numbers alone."""
    save_file({"a": torch.arange(3.0)}, path, {"progress": progress, "crc32": str(crc32)})
    return path


def test_older_checkpoints_are_taken_where_name_and_iteration_agree(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint-0000125.safetensors"
    said = '{"iteration": 125, "seconds": 1.5, "best": null, "plateaus": 0, "waited": 0, "lowest": null}'
    right = 2534162246
    assert load_checkpoint(write_older(path, said, right))[1] == Progress(125, 1.5)
    for wrong, crc32, reason in (
        (said, right + 1, "its tensors are not what its checksum says"),
        (said.replace("125", "135"), right, "it says iteration 135, and its name another one"),
        (said.replace("125", '"125"'), right, "iteration: Input should be a valid integer"),
        (said.replace("plateaus", "plateau"), right, "plateau: Unexpected keyword argument"),
        (said.replace('"plateaus": 0', '"plateaus": -1'), right, "plateaus: Input should be greater than"),
        ("[]", right, "Input should be a valid dictionary"),
    ):
        write_older(path, wrong, crc32)
        assert f"is damaged ({reason}" in sentence_of(lambda: load_checkpoint(path))
    save_file({"a": torch.arange(3.0)}, path, {"progress": said})
    assert "is damaged" in sentence_of(lambda: load_checkpoint(path))
