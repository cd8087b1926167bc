"""What is known of a training set before training: the mean image, and the principal components of RGB.

Of a training set in files they are measured once, and kept in the user's cache folder.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..distributed import cores
from ..errors import InputError
from ..files import cache_folder, keep, parse_json, strict_json
from ..tensors import CHECKSUM, pack, unpack
from .folder import FolderIndex
from .helpers import aside, few
from .images import DamagedImage, decode_centre, read_together
from .threads import in_threads


@dataclass(frozen=True)
class Statistics:
    """Sums over a training set, in units of [0, 1].

    Attributes:
        mean: of each pixel over the images' centre crops, (3, S, S).
        covariance: of RGB over pixels and images, (3, 3).
        images: how many were read.
        unreadable: what is wrong with those that were not, by id.
    """

    mean: Tensor
    covariance: Tensor
    images: int
    unreadable: dict[str, str]

    @property
    def channel_mean(self) -> Tensor:
        """(3,)."""
        return self.mean.mean(dim=(1, 2))

    @property
    def channel_std(self) -> Tensor:
        """Over all pixels of all images, (3,)."""
        return self.covariance.diagonal().clamp(min=0).sqrt()

    @property
    def components(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues (3,) and eigenvectors (3, 3), in its columns, of the covariance (Section 3.4, [21])."""
        values, vectors = torch.linalg.eigh(self.covariance)
        return values.clamp(min=0), vectors


def training_statistics(
    index: FolderIndex,
    size: int,
    side: int,
    progress: Callable[[int], None] | None = None,
    workers: int | None = None,
) -> Statistics:
    """Return a training set's statistics, from the user's cache folder or by reading every image once.

    Args:
        size, side: the centre square of ``size`` of images with shorter side ``side`` is what counts.
        progress: called with the number of images done; not where the cache has them.
        workers: threads; None for as many as there are cores for this process.

    Raises:
        InputError: when no image can be read.
    """
    file = _statistics_file(index, size, side)
    if (kept := load_statistics(file)) and _still_unreadable(index, kept, size, side):
        return kept
    found = measure(index, size, side, progress, workers)
    save_statistics(found, file)
    return found


def _still_unreadable(index: FolderIndex, found: Statistics, size: int, side: int) -> bool:
    """Whether the images that could not be read when a training set was measured still cannot be.

    What is readable again (a disk that has come back) belongs to the mean.
    """
    position = {id: number for number, id in enumerate(index.ids)}
    for id in found.unreadable:
        try:
            decode_centre(index.path(position[id]), size, side)
        except DamagedImage:
            continue
        return False
    return True


def measure(
    index: FolderIndex,
    size: int,
    side: int,
    progress: Callable[[int], None] | None = None,
    workers: int | None = None,
) -> Statistics:
    """Read every image once and return the statistics; exact, whatever the number of workers.

    Args, errors: as of ``training_statistics``.
    """
    total = torch.zeros(3, size, size, dtype=torch.int64)
    products = torch.zeros(3, 3, dtype=torch.float64)
    unreadable: dict[str, str] = {}

    def read(positions: range) -> Sums:
        return aside(_sums, index.paths(positions), size, side)

    calls = few(len(index), size**2, workers or cores())
    for parts in in_threads(partial(read_together, read), calls, workers):
        for positions, found in parts:
            if isinstance(found, str):
                unreadable[index.ids[positions[0]]] = found
            else:
                # Whole numbers add up exactly, in any order.
                total += torch.from_numpy(found[0])
                products += torch.from_numpy(found[1])
            if progress:
                for position in positions:
                    progress(position + 1)
    images = len(index) - len(unreadable)
    if not images:
        raise InputError(f"none of the {len(index):,} images of {index.name} can be read")
    mean = total.double() / (255 * images)
    rgb = mean.mean(dim=(1, 2))
    covariance = products / (255**2 * images * size**2) - rgb[:, None] * rgb
    # Contiguous, as it comes back from the cache: sums over another layout differ in the last digit.
    return Statistics(mean.float().contiguous(), covariance.float().contiguous(), images, unreadable)


#: Over some images: the sums of their pixels, int64 (3, S, S), and of products of colours, float64 (3, 3).
Sums = tuple[np.ndarray, np.ndarray]


def _sums(paths: Sequence[str], size: int, side: int) -> Sums:
    total = torch.zeros(3, size, size, dtype=torch.int64)
    products = torch.zeros(3, 3, dtype=torch.float64)
    for path in paths:
        values = decode_centre(Path(path), size, side).long()
        total += values
        flat = values.flatten(1).double()
        products += flat @ flat.T
    return total.numpy(), products.numpy()


def mean_of(images: Tensor, kind: str) -> Tensor:
    """Return the mean of uint8 (N, C, H, W) over the images, (C, H, W), or over the pixels too, (C,).

    Args:
        kind: "per-pixel" or "per-channel".
    """
    # Whole numbers add up exactly, in any order; a thousand images at a time take little memory.
    total = torch.stack([part.sum(dim=0, dtype=torch.int64) for part in images.split(1000)]).sum(dim=0)
    mean = total.double() / (255 * len(images))
    return (mean if kind == "per-pixel" else mean.mean(dim=(1, 2))).float()


def std_of(images: Tensor) -> Tensor:
    """Return the channels' deviations over all pixels of uint8 (N, C, H, W): (C,)."""
    sums = torch.zeros(2, images.shape[1], dtype=torch.float64, device=images.device)
    for part in images.split(1000):
        values = part.double().div(255)
        sums += torch.stack([values.sum(dim=(0, 2, 3)), values.square().sum(dim=(0, 2, 3))])
    mean, square = sums / images[:, 0].numel()
    return (square - mean.square()).clamp(min=0).sqrt().float()


def load_statistics(file: Path) -> Statistics | None:
    """Return what ``save_statistics`` wrote, None where there is nothing or it is damaged."""
    try:
        tensors, metadata = unpack(file)
    except InputError:
        return None
    if CHECKSUM not in metadata or "about" not in metadata:
        return None  # of an earlier version, or of another kind
    about = parse_json(metadata["about"], dict, ValueError)
    if not (tensors.keys() >= {"mean", "covariance"} and about.keys() >= {"images", "unreadable"}):
        return None
    return Statistics(tensors["mean"], tensors["covariance"], about["images"], about["unreadable"])


def save_statistics(statistics: Statistics, file: Path) -> None:
    """Keep statistics in a file; a folder that cannot be written is no error."""
    about = {"images": statistics.images, "unreadable": statistics.unreadable}
    tensors = {"mean": statistics.mean, "covariance": statistics.covariance}
    keep(file, pack(tensors, {"about": strict_json(about)}))


def _statistics_file(index: FolderIndex, size: int, side: int) -> Path:
    """Return where the statistics of a training set are kept, in the user's cache folder."""
    # Files that were replaced have another size or time.
    files = [f"{file} {_state(index.path(position))}" for position, file in enumerate(index.files)]
    told = "\n".join([str(index.root.resolve()), f"centre {size} of {side}", *files])
    return cache_folder() / f"statistics-{hashlib.sha256(os.fsencode(told)).hexdigest()[:16]}.safetensors"


def _state(path: Path) -> str:
    try:
        found = path.stat()
    except OSError:
        return "unreadable"  # a link that leads nowhere
    return f"{found.st_size} {found.st_mtime_ns}"
