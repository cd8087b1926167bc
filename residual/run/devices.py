"""Which device a run is on."""

import torch

from .. import distributed
from ..errors import InputError


def pick_device(name: str) -> torch.device:
    """Return the device that a name stands for: "auto" is this process's GPU where there is one.

    Raises:
        InputError: when there is no such device.
    """
    available = torch.cuda.is_available()
    if name == "auto":
        name = "cuda" if available else "cpu"
    if name == "cuda":
        name = f"cuda:{distributed.local_rank()}"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise InputError(f"--device {name}: known are auto, cpu, cuda and cuda:N")
    if device.type == "cuda":
        if not available or (device.index or 0) >= torch.cuda.device_count():
            raise InputError(
                f"--device {name}: PyTorch sees {torch.cuda.device_count() if available else 0} GPUs here; "
                "use --device cpu, or torchrun with as many processes as there are GPUs"
            )
        torch.cuda.set_device(device)
    return device
