"""What is known of a training set before training: the mean picture, and the principal components of RGB."""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..errors import InputError
from .crops import CentreCrop
from .folder import FolderIndex, cache_folder
from .images import DamagedImage, decode_part


@dataclass(frozen=True)
class Statistics:
    """Sums over a training set, in units of [0, 1].

    Attributes:
        mean: of each pixel over the pictures' centre crops, (3, S, S).
        covariance: of RGB over pixels and pictures, (3, 3).
        pictures: how many were read.
        unreadable: what is wrong with those that were not, by id.
    """

    mean: Tensor
    covariance: Tensor
    pictures: int
    unreadable: dict[str, str]

    @property
    def channel_mean(self) -> Tensor:
        """(3,)."""
        return self.mean.mean(dim=(1, 2))

    @property
    def channel_std(self) -> Tensor:
        """Over all pixels of all pictures, (3,)."""
        return self.covariance.diagonal().sqrt()

    @property
    def components(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues (3,) and eigenvectors (3, 3), in its columns, of the covariance (Section 3.4, [21])."""
        values, vectors = torch.linalg.eigh(self.covariance)
        return values.clamp(min=0), vectors


def measure(
    index: FolderIndex,
    crop: CentreCrop,
    workers: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Statistics:
    """Read every picture once and return the statistics; exact, whatever the number of workers.

    Args:
        crop: what of each picture counts.
        workers: threads; None for as many as there are cores for this process.
        progress: called with the number of pictures done.

    Raises:
        InputError: when no picture can be read.
    """
    size = crop.size
    total = torch.zeros(size, size, 3, dtype=torch.int64)
    products = torch.zeros(3, 3, dtype=torch.float64)
    unreadable: dict[str, str] = {}

    def read(position: int) -> tuple[int, np.ndarray | str]:
        try:
            return position, decode_part(index.path(position), crop.cut())
        except DamagedImage as error:
            return position, str(error)

    workers = workers or len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(workers) as pool:
        # A stretch at a time, so that memory is bounded.
        stretch = 64 * workers
        for start in range(0, len(index), stretch):
            for position, pixels in pool.map(read, range(start, min(start + stretch, len(index)))):
                if isinstance(pixels, str):
                    unreadable[index.ids[position]] = pixels
                    continue
                values = torch.from_numpy(np.array(pixels, dtype=np.int64))
                # Whole numbers add up exactly, in any order.
                total += values
                flat = values.view(-1, 3).double()
                products += flat.T @ flat
            if progress:
                progress(min(start + stretch, len(index)))
    pictures = len(index) - len(unreadable)
    if not pictures:
        raise InputError(f"none of the {len(index):,} pictures of {index.name} can be read")
    mean = total.double() / (255 * pictures)
    rgb = mean.mean(dim=(0, 1))
    covariance = products / (255**2 * pictures * size**2) - rgb[:, None] * rgb
    return Statistics(mean.permute(2, 0, 1).float(), covariance.float(), pictures, unreadable)


def statistics_file(index: FolderIndex, crop: CentreCrop) -> Path:
    """Return where the statistics of a part are kept, in the user's cache folder."""
    # Files that were replaced have another size or time.
    stats = [os.stat(index.path(position)) for position in range(len(index))]
    files = [f"{f} {s.st_size} {s.st_mtime_ns}" for f, s in zip(index.files, stats, strict=True)]
    told = "\n".join([str(index.root.resolve()), str(crop), *files])
    return cache_folder() / f"statistics-{hashlib.sha256(told.encode()).hexdigest()[:16]}.safetensors"


def load_statistics(file: Path) -> Statistics | None:
    """Return what ``save_statistics`` wrote, None where there is nothing or it is damaged."""
    try:
        with safe_open(file, framework="pt") as stored:
            about = json.loads(stored.metadata()["about"])
            mean, covariance = stored.get_tensor("mean"), stored.get_tensor("covariance")
        return Statistics(mean, covariance, about["pictures"], about["unreadable"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError):
        return None


def save_statistics(statistics: Statistics, file: Path) -> None:
    """Write statistics to a file, whole or not at all; a folder that cannot be written is no error."""
    about = {"pictures": statistics.pictures, "unreadable": statistics.unreadable}
    tensors = {"mean": statistics.mean.contiguous(), "covariance": statistics.covariance.contiguous()}
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(save(tensors, {"about": json.dumps(about)}))
        temporary.replace(file)
