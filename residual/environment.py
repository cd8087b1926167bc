"""Where a result came from: versions, hardware, commit and command."""

import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from . import __version__

#: The environment variable that names the commit where there is no .git.
COMMIT = "RESIDUAL_COMMIT"


def describe(device: torch.device, ranks: int) -> dict[str, Any]:
    """Return what stands beside every result."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": _command(),
        "commit": commit(),
        "device": _name(device),
        # Two processors of one name ("AMD EPYC") may have others, and be three times as fast.
        "instructions": torch.backends.cpu.get_cpu_capability() if device.type == "cpu" else None,
        "ranks": ranks,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {
            "residual": __version__,
            "torch": torch.__version__,  # with the CUDA version that it was built for
            "torchvision": version("torchvision"),
            "numpy": version("numpy"),
        },
    }


def _command() -> str:
    """Return what was typed: what calls us from Python is a program of somebody else's, or an interpreter."""
    program = Path(sys.argv[0])
    ours = program.stem == "residual" or program.parts[-2:] == ("residual", "__main__.py")
    return shlex.join(["residual", *sys.argv[1:]] if ours else ["python", *filter(None, sys.argv)])


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return processor() + (", its GPU (mps)" if device.type == "mps" else "")


def commit() -> str | None:
    """Return the commit of the source that runs, marked where files differ from it.

    A copy without its history (on a rented machine, say) does not know it: there it is what the environment
    variable ``RESIDUAL_COMMIT`` says, None where there is none.
    """
    folder = Path(__file__).parent
    try:
        # An installed copy may lie in another project's repository, which does not hold it.
        _git(folder, "ls-files", "--error-unmatch", Path(__file__).name)
        name = _git(folder, "rev-parse", "--short=12", "HEAD")
        return name + ("-dirty" if _git(folder, "status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get(COMMIT) or None


def processor() -> str:
    """Return the processor's name as the system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=folder, check=True, capture_output=True, encoding="utf-8"
    ).stdout.strip()
