"""State dicts in files: read without executing code, checked before they are loaded."""

import pickle
import re
from pathlib import Path
from typing import TypeGuard

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from ..errors import InputError
from ..files import check_file, damaged, first_line

#: Keys under which training scripts keep the state dict among other things.
WRAPPING_KEYS = ("state_dict", "model", "net")

#: What DistributedDataParallel and torch.compile put before every name.
WRAPPING_PREFIXES = ("module.", "_orig_mod.")

#: What to do about a damaged file.
SOURCE = "get it anew from its source"
#: How many names of tensors an error gives; a foreign network has hundreds.
NAMED = 3


def read_state(file: Path) -> dict[str, Tensor]:
    """Return the tensors in a file, on the CPU: .safetensors, or else what ``torch.save`` wrote.

    Raises:
        InputError: when the file is not there or damaged, holds no state dict, or would execute code.
    """
    check_file(file)
    return (
        _read_safetensors(file) if file.suffix.lower() == ".safetensors" else _unwrap(_read_torch(file), file)
    )


def load_state(model: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Copy tensors into a model, all of them or none.

    Args:
        model: it keeps its device, precision and memory format.
        state: every tensor of the model by its name; BN's ``num_batches_tracked`` may lack, as in old files.
        source: where the tensors come from, for the message.

    Raises:
        InputError: naming the first tensors that are missing, unexpected or of another shape.
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
    model.load_state_dict(state)


def write_state(model: nn.Module, file: Path) -> None:
    """Write a model's state dict, by the file's suffix as safetensors or with ``torch.save``.

    Raises:
        OSError, SafetensorError: when the file cannot be written.
    """
    # safetensors wants contiguous tensors, and plain ones load anywhere.
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    if file.suffix.lower() == ".safetensors":
        # save_file would make the file readable to its owner alone.
        file.write_bytes(save(state))
    else:
        try:
            torch.save(state, file)
        except RuntimeError:  # its message is about the inside of zip files
            raise OSError("PyTorch could not write all of it; is the disk full?") from None


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise damaged(file, first_line(error), SOURCE, "safetensors") from None


def _read_torch(file: Path) -> object:
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
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
        raise damaged(file, first_line(error), SOURCE, "torch.save") from None


def _unwrap(content: object, file: Path) -> dict[str, Tensor]:
    """Return the state dict in what a training script saved, without the names' common prefixes."""
    for key in WRAPPING_KEYS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not _is_state_dict(content):
        keys = f", only {_first(list(map(str, content)))}" if isinstance(content, dict) and content else ""
        raise InputError(
            f"{file} holds no state dict{keys}; save the network's state_dict(), alone or under the key "
            f"{' or '.join(WRAPPING_KEYS)}"
        )
    for prefix in WRAPPING_PREFIXES:
        if all(name.startswith(prefix) for name in content):
            content = {name.removeprefix(prefix): tensor for name, tensor in content.items()}
    return content


def _is_state_dict(content: object) -> TypeGuard[dict[str, Tensor]]:
    return (
        isinstance(content, dict)
        and len(content) > 0
        and all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in content.items())
    )


def _first(names: list[str]) -> str:
    rest = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {rest} more" if rest > 0 else "")
