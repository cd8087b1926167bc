"""Checkpoints: atomic, complete, and checked when they are read.

A checkpoint is one safetensors file: weights, BN statistics, velocities and the log's running sums as
tensors; iteration, time, and what is remembered of validation errors as metadata. The data order, the
augmentation and dropout are pure functions of the recipe's seed and the iteration, so there is no
generator's state to keep.
"""

import json
import re
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..files import damaged, replace_file

#: How many checkpoints a run keeps: should the newest be damaged, the one before it is there.
KEPT = 2


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        iteration: iterations done.
        seconds: time spent in training, over all sessions of the run.
        best: lowest validation error so far in percent, None without a validation split. It is reported,
            never used to choose weights.
        plateaus: how many times the validation error has stopped falling.
        waited: evaluations since the lowest one that counts for the next plateau, ``lowest``.
    """

    iteration: int = 0
    seconds: float = 0.0
    best: float | None = None
    plateaus: int = 0
    waited: int = 0
    lowest: float | None = None


def save_checkpoint(folder: Path, tensors: dict[str, Tensor], progress: Progress) -> Path:
    """Write a checkpoint so that it is whole or not there, and remove those before the last ``KEPT``.

    Raises:
        OSError: when the disk is full or the folder read-only; the older checkpoints are untouched then.
    """
    tensors = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    metadata = {"progress": json.dumps(asdict(progress)), "crc32": str(_crc32(tensors))}
    path = folder / f"checkpoint-{progress.iteration:07d}.safetensors"
    replace_file(path, save(tensors, metadata))
    for old in list_checkpoints(folder)[:-KEPT]:
        old.unlink()
    return path


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], Progress]:
    """Return what ``save_checkpoint`` wrote.

    Raises:
        InputError: when the file is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        progress = Progress(**json.loads(metadata["progress"]))
        whole = int(metadata["crc32"]) == _crc32(tensors)
    except (SafetensorError, OSError, KeyError, ValueError, TypeError):
        whole = False
    if not whole:
        remedy = "delete it to resume from the checkpoint before it, if there is one"
        raise damaged(path, f"a checkpoint of {path.stat().st_size:,} bytes", remedy)
    return tensors, progress


def list_checkpoints(folder: Path) -> list[Path]:
    """Return a run's checkpoints, oldest first."""
    found = [p for p in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+\.safetensors", p.name)]
    return sorted(found, key=lambda p: int(p.stem.removeprefix("checkpoint-")))


def _crc32(tensors: dict[str, Tensor]) -> int:
    value = 0
    for name in sorted(tensors):
        value = zlib.crc32(name.encode(), value)
        value = zlib.crc32(tensors[name].reshape(-1).view(torch.uint8).numpy().tobytes(), value)
    return value
