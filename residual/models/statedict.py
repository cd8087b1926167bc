"""State dicts in files: read without executing code, checked before they are loaded."""

import argparse
import codecs
import datetime
import io
import pickle
import re
import threading
import types
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PosixPath
from typing import TypeGuard, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from ..errors import InputError
from ..files import check_file, damaged, first_line
from ..tensors import apart

M = TypeVar("M", bound=nn.Module)

#: Keys under which training scripts keep the state dict among other things; one may lie in another.
WRAPPING_KEYS = (
    "state_dict",
    "model",
    "net",
    "model_state_dict",
    "model_state",
    "network",
    "module",
    "weights",
)

#: What other programs count beside the weights: AveragedModel its models, thop what a layer costs.
BOOKKEEPING = ("n_averaged", "total_ops", "total_params")

_allowing = threading.Lock()

#: Beside tensors, files may hold what does nothing when it is made: numbers and arrays of NumPy, the
#: arguments of a training script.
INERT = (
    argparse.Namespace,
    types.SimpleNamespace,
    PosixPath,
    datetime.datetime,
    datetime.date,
    datetime.time,
    datetime.timedelta,
    datetime.timezone,
    np.ndarray,
    np.dtype,
    codecs.encode,
    *(getattr(np.dtypes, name) for name in np.dtypes.__all__ if name != "ObjectDType"),
    *(
        (function, f"{module}.{name}")
        # NumPy has moved them: older files have the older name.
        for module in ("numpy.core.multiarray", "numpy._core.multiarray")
        for name, function in (
            ("scalar", np.float64(0).__reduce__()[0]),
            ("_reconstruct", np.empty(0).__reduce__()[0]),
        )
    ),
)

#: What to do about a damaged file.
SOURCE = "get it anew from its source"
#: How many names of tensors an error gives; a foreign network has hundreds.
NAMED = 3


def read_state(file: Path) -> dict[str, Tensor]:
    """Return the tensors in a file, on the CPU: of safetensors or of ``torch.save``, as its content tells.

    Raises:
        InputError: when the file is not there or damaged, holds no state dict, or would execute code.
    """
    check_file(file)
    start = _start_of(file)
    _refuse_other_kinds(file, start)
    state = _read_safetensors(file) if _is_safetensors(file, start) else _unwrap(_read_torch(file), file)
    for name, tensor in state.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
            kind = "meta" if tensor.is_meta else "quantised" if tensor.is_quantized else "sparse"
            raise InputError(f"{file}: {name} is a {kind} tensor; save plain ones of floating point")
    return state


def read_foreign_state(file: Path) -> dict[str, Tensor]:
    """Return a state dict as its network has it, without what wrappers of the network added.

    Bookkeeping is left out, and a prefix that all names share, as often as there is one: "module." of
    DistributedDataParallel, "_orig_mod." of torch.compile, "model." of Lightning.

    Raises:
        InputError: as ``read_state``.
    """
    state = {
        name: tensor
        for name, tensor in read_state(file).items()
        if name.rpartition(".")[2] not in BOOKKEEPING
    }
    while len(firsts := {name.partition(".")[0] for name in state}) == 1 and all(
        "." in name for name in state
    ):
        state = {name.removeprefix(f"{next(iter(firsts))}."): tensor for name, tensor in state.items()}
    return state


def with_memory(model: M) -> M:
    """Give an outline, on the meta device, memory on the CPU in place; its numbers are whatever lay there.

    As ``to_empty`` does, for which PyTorch imports an algebra system: more than half a second.
    """
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            empty = torch.empty(parameter.shape, dtype=parameter.dtype, device="cpu")
            setattr(module, name, nn.Parameter(empty, parameter.requires_grad))
        for name, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, name, torch.empty(buffer.shape, dtype=buffer.dtype, device="cpu"))
    return model


def load_state(model: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Copy tensors into a model, all of them or none.

    Args:
        model: it keeps its device, precision and memory format.
        state: every tensor of the model by its name; BN's ``num_batches_tracked`` may lack, as in old files.
        source: where the tensors come from, for the message.

    Raises:
        InputError: naming the first tensors that are missing, unexpected or of another shape, or one whose
            values no weights have.
    """
    own = model.state_dict()
    state = {name: torch.tensor(0) for name in own if name.endswith(".num_batches_tracked")} | state
    faults = {
        "missing": [name for name in own if name not in state],
        "unexpected": [name for name in state if name not in own],
        "of another shape": [
            f"{name} {tuple(state[name].shape)} instead of {tuple(tensor.shape)}"
            for name, tensor in own.items()
            if name in state and state[name].shape != tensor.shape
        ],
    }
    if any(faults.values()):
        what = "; ".join(f"{fault}: {_first(names)}" for fault, names in faults.items() if names)
        raise InputError(f"{source} does not fit the network ({what}); name the network that it is of")
    for name, tensor in own.items():
        _check_values(name, state[name], tensor, source)
    model.load_state_dict(state)


def _check_values(name: str, tensor: Tensor, own: Tensor, source: str) -> None:
    if not own.is_floating_point():
        return
    if not tensor.is_floating_point():
        kind = str(tensor.dtype).removeprefix("torch.")
        raise InputError(f"{source}: {name} is of {kind}, and weights are of floating point; save them so")
    if not tensor.to(own.dtype).isfinite().all():
        raise InputError(
            f"{source}: {name} holds numbers that are not finite; the training that they are from has "
            "diverged, or the file is damaged"
        )


def write_state(model: nn.Module, file: Path) -> None:
    """Write a model's state dict, by the file's suffix as safetensors or with ``torch.save``.

    Raises:
        OSError, SafetensorError: when the file cannot be written.
    """
    # Plain tensors load anywhere.
    state = apart(model.state_dict())
    if file.suffix.lower() == ".safetensors":
        # save_file would make the file readable to its owner alone.
        file.write_bytes(save(state))
    else:
        # Not by PyTorch, whose errors are about the inside of zip files.
        content = io.BytesIO()
        torch.save(state, content)
        file.write_bytes(content.getbuffer())


def _start_of(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(9)
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from None


def _refuse_other_kinds(file: Path, start: bytes) -> None:
    """Raise an InputError for files that lie beside weights and are none."""
    if start[8:] == b"{" and int.from_bytes(start[:8], "little") < 1 << 32:
        return  # the length of a header of safetensors may have any bytes
    # A message that begins with its format's version, as ONNX's ModelProto does, and a name or a graph.
    if file.suffix.lower() == ".onnx" or re.match(rb"\x08[\x01-\x1f][\x12\x1a\x22\x3a\x42]", start):
        raise InputError(
            f"{file} is a network of ONNX, which is written here and not read; give the weights that it was "
            "made from, as .pth or .safetensors"
        )
    if start.lstrip()[:1] in (b"{", b"["):
        raise InputError(
            f"{file} is a text (JSON), not weights; name the .pth or .safetensors file beside it"
        )


def _is_safetensors(file: Path, start: bytes) -> bool:
    """Whether a file is of safetensors: 8 bytes for the length of its header, which is JSON.

    Where that shows neither this nor an archive or a pickle of PyTorch, the suffix tells what is damaged.
    """
    return start[8:] == b"{" or (
        file.suffix.lower() == ".safetensors" and not start.startswith((b"PK\x03\x04", b"\x80"))
    )


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise damaged(file, first_line(error), SOURCE, "safetensors") from None


def _read_torch(file: Path) -> object:
    try:
        # Not by its name, whose suffix PyTorch goes by.
        with file.open("rb") as opened, _inert_allowed():
            return torch.load(opened, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # The rest of PyTorch's message explains how to execute the code.
        if code := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise InputError(
                f"{file} holds pickled code ({code[1]}), which is never executed here; if you trust the "
                "file, load it elsewhere and save its state dict as safetensors"
            ) from None
        raise damaged(file, "its pickle is not of tensors alone", SOURCE, "torch.save") from None
    # A damaged file makes the reader stumble over anything.
    except Exception as error:
        _refuse_program(file)
        raise damaged(file, first_line(error), SOURCE, "torch.save") from None


@contextmanager
def _inert_allowed() -> Iterator[None]:
    """Let PyTorch read what is ``INERT`` in this context.

    Its list is the process's, and loses what a context has named, whoever had put it there before.
    """
    with _allowing:
        there = torch.serialization.get_safe_globals()
        with torch.serialization.safe_globals([each for each in INERT if each not in there]):
            yield


def _refuse_program(file: Path) -> None:
    """Raise an InputError for an archive of a whole program, which is not read: it holds code."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return
    if any(name.endswith("/constants.pkl") for name in names):
        raise InputError(
            f"{file} is of TorchScript, a program, which is not run here; save its weights: "
            f"torch.save(torch.jit.load('{file.name}').state_dict(), 'weights.pth')"
        )
    if any(name.rpartition("/")[2] == "archive_format" for name in names):
        raise InputError(
            f"{file} is of torch.export, a program, which is not run here; save its weights: "
            f"torch.save(torch.export.load('{file.name}').state_dict, 'weights.pth')"
        )


def _unwrap(content: object, file: Path) -> dict[str, Tensor]:
    """Return the state dict in what a training script saved."""
    while not _is_state_dict(content) and isinstance(content, dict):
        inner = [content[key] for key in WRAPPING_KEYS if isinstance(content.get(key), dict)]
        if not inner:
            break
        content = inner[0]
    if _is_state_dict(content):
        return {name: tensor for name, tensor in content.items() if isinstance(tensor, Tensor)}
    keys = f", only {_first(list(map(str, content)))}" if isinstance(content, dict) and content else ""
    raise InputError(
        f"{file} holds no state dict{keys}; save the network's state_dict(), alone or under the key "
        f"{' or '.join(WRAPPING_KEYS[:3])}"
    )


def _is_state_dict(content: object) -> TypeGuard[dict[str, Tensor | float | str | None]]:
    """Whether it is tensors by their names; numbers and texts may stand among them."""
    return (
        isinstance(content, dict)
        and any(isinstance(tensor, Tensor) for tensor in content.values())
        and all(
            isinstance(name, str) and isinstance(value, Tensor | int | float | str | None)
            for name, value in content.items()
        )
    )


def _first(names: list[str]) -> str:
    rest = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {rest} more" if rest > 0 else "")
