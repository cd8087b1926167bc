"""Files of tensors that we write and read back: safetensors, with a checksum over all that is in them."""

import zlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from .files import check_file, damaged, first_line

#: The key of the checksum among a file's metadata.
CHECKSUM = "checksum"


def pack(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """Return the content of a file of tensors; ``unpack`` reads it, and sees a single changed bit."""
    metadata = dict(metadata or {})
    plain = apart(tensors)
    return save(plain, metadata | {CHECKSUM: f"{_checksum(plain, metadata):08x}"})


def apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors as files take them: on the CPU, contiguous, none sharing memory with one before it.

    A network with one layer under two names has one tensor under two names; either is read back.
    """
    found, seen = {}, set()
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        where = plain.untyped_storage().data_ptr()
        found[name] = plain.clone() if where in seen else plain
        seen.add(where)
    return found


def unpack(
    path: Path, remedy: str = "get it anew", kind: str = ""
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the metadata of a file that ``pack`` made, the checksum among them.

    A file without a checksum, as earlier versions wrote them, is taken as it is.

    Args:
        remedy, kind: as of ``files.damaged``.

    Raises:
        InputError: when there is no such file, or it is damaged.
    """
    check_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, ValueError) as error:
        raise damaged(path, first_line(error), remedy, kind) from None
    if CHECKSUM in metadata and metadata[CHECKSUM] != f"{_checksum(tensors, metadata):08x}":
        raise damaged(path, "its content is not what its checksum says", remedy, kind)
    return tensors, metadata


def _checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> int:
    value = 0
    for name in sorted(tensors):
        tensor = tensors[name]
        value = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), value)
        value = zlib.crc32(bytes_of(tensor), value)
    for key in sorted(metadata.keys() - {CHECKSUM}):
        value = zlib.crc32(f"{key} {metadata[key]}".encode(), value)
    return value


def bytes_of(tensor: Tensor) -> memoryview:
    """Return the bytes of a contiguous tensor on the CPU, without a copy."""
    return tensor.detach().reshape(-1).view(torch.uint8).numpy().data
