"""Checkpoints: atomic, complete, and checked when they are read.

A checkpoint is one safetensors file: weights, BN statistics, velocities and the log's running sums as
tensors; iteration, time, and what is remembered of validation errors as metadata. A checksum is over all of
it. The data order, the augmentation and dropout are pure functions of the recipe's seed and the iteration,
so there is no generator's state to keep.
"""

import json
import re
import zlib
from dataclasses import asdict
from pathlib import Path

from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass
from torch import Tensor

from ..files import damaged, first_line, parse_json, replace_file, why_invalid
from ..tensors import CHECKSUM, bytes_of, pack, unpack

#: How many checkpoints a run keeps: should the newest be damaged, the one before it is there.
KEPT = 2
#: What to do about a damaged one.
REMEDY = "delete it to resume from the checkpoint before it, if there is one"


@dataclass(config=ConfigDict(strict=True, extra="forbid", allow_inf_nan=False))
class Progress:
    """How far a run is.

    Attributes:
        iteration: iterations done.
        seconds: time spent in training, over all sessions of the run.
        best: lowest validation error so far in percent, None without a validation split. It is reported,
            never used to choose weights.
        plateaus: how many times the validation error has stopped falling.
        waited: evaluations since the lowest one that counts for the next plateau, ``lowest``.
        unreadable: what is wrong with each training image that was left out, by its id.
    """

    iteration: int = Field(default=0, ge=0)
    seconds: float = Field(default=0.0, ge=0)
    best: float | None = None
    plateaus: int = Field(default=0, ge=0)
    waited: int = Field(default=0, ge=0)
    lowest: float | None = None
    unreadable: dict[str, str] = Field(default_factory=dict)


def save_checkpoint(folder: Path, tensors: dict[str, Tensor], progress: Progress) -> Path:
    """Write a checkpoint so that it is whole or not there, and remove those before the last ``KEPT``.

    Raises:
        OSError: when the disk is full or the folder read-only; the older checkpoints are untouched then.
    """
    path = folder / f"checkpoint-{progress.iteration:07d}.safetensors"
    replace_file(path, pack(tensors, {"progress": json.dumps(asdict(progress))}))
    for old in list_checkpoints(folder)[:-KEPT]:
        old.unlink()
    return path


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], Progress]:
    """Return what ``save_checkpoint`` wrote.

    What earlier versions wrote has a checksum over its tensors; its iteration has to be that of its name, and
    the rest of its progress is taken as it stands.

    Raises:
        InputError: when the file is damaged.
    """
    tensors, metadata = unpack(path, REMEDY)
    try:
        progress = Progress(**parse_json(metadata["progress"], dict, ValueError))
        if CHECKSUM not in metadata:
            if metadata["crc32"] != str(_crc32(tensors)):
                raise ValueError("its tensors are not what its checksum says")
            if progress.iteration != iteration_of(path):
                raise ValueError(f"it says iteration {progress.iteration:,}, and its name another one")
    except ValidationError as error:
        raise damaged(path, why_invalid(error), REMEDY) from None
    # Keys that are no parameters are a TypeError.
    except (KeyError, ValueError, TypeError) as error:
        raise damaged(path, first_line(error), REMEDY) from None
    return tensors, progress


def list_checkpoints(folder: Path) -> list[Path]:
    """Return a run's checkpoints, oldest first."""
    found = [p for p in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+\.safetensors", p.name)]
    return sorted(found, key=iteration_of)


def iteration_of(path: Path) -> int:
    """Return the iteration in a checkpoint's name."""
    return int(path.stem.removeprefix("checkpoint-"))


def _crc32(tensors: dict[str, Tensor]) -> int:
    """Return the checksum that earlier versions noted."""
    value = 0
    for name in sorted(tensors):
        value = zlib.crc32(name.encode(), value)
        value = zlib.crc32(bytes_of(tensors[name]), value)
    return value
