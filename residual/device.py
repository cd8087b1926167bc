"""The device that computes: choosing it, its arithmetic, its memory."""

import ctypes
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from threading import Lock
from typing import Any

import torch

from . import torchrun
from .errors import InputError, plural

GIB = 2**30

#: Kinds of devices that compute in float32 at most.
WITHOUT_FLOAT64 = {"mps"}

#: Instructions that multiply bfloat16 numbers, as PyTorch calls them: Intel's and AMD's, and ARM's.
BFLOAT16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "avx10_2", "bf16", "sve_bf16")

#: How many are in ``full_float32``, who may come in or go out, and what puts back what was set before them.
_testing, _settings, _before = 0, Lock(), ExitStack()

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEEP = 2**31 - 1


def open_device(name: str) -> torch.device:
    """Return a device to use trained networks on; errors as of ``pick_device``."""
    device = pick_device(name)
    keep_freed_memory()
    return device


def pick_device(name: str) -> torch.device:
    """Return the device that a name stands for: "auto" is this process's GPU where there is one.

    Apple's GPU ("mps") is there to be named: nobody has measured it here, so "auto" does not take it. Which
    GPU is the process's current one stays as it is: PyTorch computes where tensors are.

    Raises:
        InputError: when there is no such device.
    """
    available = torch.cuda.is_available()
    if name == "auto":
        name = "cuda" if available else "cpu"
    if name == "cuda":
        name = f"cuda:{torchrun.local_rank()}"
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):  # the second for None, say, from Python
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise InputError(f"--device {name}: known are auto, cpu, cuda, cuda:N and mps")
    if device.type == "mps":
        if not torch.backends.mps.is_available():
            raise InputError(f"--device {name}: PyTorch sees no GPU of Apple's here; use --device cpu")
        if torchrun.started():
            raise InputError(f"--device {name}: it is for one process; start it without torchrun")
    if device.type == "cuda" and (not available or (device.index or 0) >= torch.cuda.device_count()):
        count = torch.cuda.device_count() if available else 0
        fewer = ", or torchrun with as many processes as there are GPUs" if count else ""
        sees = plural(count, "GPU") if count else "no GPU"
        raise InputError(f"--device {name}: PyTorch sees {sees} here; use --device cpu{fewer}")
    return device


@contextmanager
def current(device: torch.device) -> Iterator[None]:
    """Make a GPU the process's current one in this context, as compiling and recording ask for it.

    Afterwards the current one is again that of the program which has called.
    """
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        yield


@contextmanager
def arithmetic(device: torch.device, precision: str, deterministic: bool, one_size: bool) -> Iterator[None]:
    """Choose how a GPU computes float32 products in this context, and whether it may choose among kernels.

    Afterwards all is as others have set it, but for cuBLAS's workspace, which it reads once.

    Args:
        device: a CPU needs and gets no setting: its results repeat as they are.
        precision: all but "float32" shorten factors to TF32.
        deterministic: only kernels that give the same bits each time, and no choice of kernels by timing.
        one_size: whether all inputs are of one size; timing kernels anew for each size would not pay.
    """
    if device.type != "cuda":
        yield
        return
    exact = torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    with _float32_products(short=precision != "float32"):
        torch.backends.cudnn.benchmark = one_size and not deterministic
        if deterministic:
            # cuBLAS reads it when it is first used; without it, it refuses in deterministic mode.
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(deterministic)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(exact, warn_only=warns)


@contextmanager
def full_float32(device: torch.device) -> Iterator[None]:
    """Compute float32 products as such in this context, on a GPU too, where training may shorten factors.

    And by kernels that give the same bits each time, which nobody has chosen by timing: that chooses others
    another time. So testing gives one number, within a run, ``--deterministic`` or not, and after it, and
    leaves what others have set. The settings are the process's: of threads that test side by side the first
    one makes them, and the last one leaves them as they were.
    """
    global _testing
    if device.type != "cuda":
        yield
        return
    with _settings:
        if not _testing:
            _before.enter_context(_float32_products(short=False))
            torch.backends.cudnn.benchmark = False
            torch.backends.cudnn.deterministic = True
        _testing += 1
    try:
        yield
    finally:
        with _settings:
            _testing -= 1
            if not _testing:
                _before.close()


@contextmanager
def _float32_products(short: bool) -> Iterator[None]:
    """Choose what a GPU's float32 products are made of; leave that, and how kernels are chosen, as it was."""
    # PyTorch's types do not know its newer switches.
    backends: Any = torch.backends
    cudnn = backends.cudnn
    kernels = cudnn.benchmark, cudnn.deterministic
    # PyTorch has an older way to choose and a newer one, and what is set in the newer one may not be to be
    # read in the older one. What can be is put back in both.
    newer = (cudnn.conv, cudnn.rnn, backends.cuda.matmul, backends.mkldnn.matmul)
    precisions = [each.fp32_precision for each in newer]
    convolutions = products = None
    with suppress(RuntimeError):
        convolutions = cudnn.allow_tf32
    with suppress(RuntimeError):
        products = torch.get_float32_matmul_precision()
    cudnn.allow_tf32 = short
    torch.set_float32_matmul_precision("high" if short else "highest")
    # The older way would leave it to what is set for everything.
    cudnn.conv.fp32_precision = "tf32" if short else "ieee"
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.deterministic = kernels
        if convolutions is not None:
            cudnn.allow_tf32 = convolutions
        if products is not None:
            torch.set_float32_matmul_precision(products)
        for each, precision in zip(newer, precisions, strict=True):
            each.fp32_precision = precision


def sums_dtype(device: torch.device) -> torch.dtype:
    """Return what sums over many images are kept in: float64, or float32 where that is all there is."""
    return torch.float32 if device.type in WITHOUT_FLOAT64 else torch.float64


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether a CPU has instructions for products of bfloat16 numbers, which then are the faster ones."""
    # Older releases of PyTorch do not say so.
    capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return device.type == "cpu" and any(capabilities.get(name) for name in BFLOAT16_INSTRUCTIONS)


def _kernels_take_bfloat16() -> bool:
    # x86 needs AVX-512 for it, or newer instructions.
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


def slow_bfloat16(device: torch.device, precision: str) -> str | None:
    """Return a sentence where bfloat16 is asked of a CPU whose kernels take none, and which is slow at it.

    Without them, PyTorch multiplies such numbers in loops of its own (docs/performance.md).
    """
    if precision != "bfloat16" or device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return None
    if _kernels_take_bfloat16():
        return None
    return (
        "this CPU has no instructions for bfloat16 and takes many times as long with it as with float32; "
        "leave it out here"
    )


def packs_weights(dtype: torch.dtype) -> bool:
    """Whether convolutions on this CPU take weights that are in its kernels' order (models/packed.py)."""
    return (
        platform.machine() in ("x86_64", "AMD64")
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
        and hasattr(torch.ops.aten, "mkldnn_reorder_conv2d_weight")
        and (dtype == torch.float32 or _kernels_take_bfloat16())
    )


def send(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a tensor on a device; from the CPU to a GPU without waiting for the work under way there."""
    if device.type == "cuda" and tensor.device.type == "cpu" and tensor.numel():
        # PyTorch uses pinned memory again only when the copy is done.
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def keep_freed_memory() -> None:
    """Make glibc keep freed blocks instead of handing them back to the kernel.

    A step on the CPU takes and frees the same hundreds of megabytes each time; fetched anew from the
    kernel, every page is cleared and mapped again, which costs about a tenth of the step
    (docs/performance.md). The peak stays the same. Elsewhere than on glibc, nothing happens.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(_M_MMAP_THRESHOLD, _KEEP)
        mallopt(_M_TRIM_THRESHOLD, _KEEP)


def memory_ran_out(device: torch.device) -> str:
    """Return a sentence on how much memory was taken and how to take less."""
    if device.type == "cpu":
        return (
            "the memory ran out; free some, or take fewer or smaller images at a time, as with a smaller "
            "batch.size and schedule.learning_rate in proportion"
        )
    taken, free_some = "", "free some"
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        mine = torch.cuda.max_memory_allocated(device)
        others = max(0, total - free - torch.cuda.memory_reserved(device))
        taken = (
            f": this run had taken {mine / GIB:.1f} GiB and needed more, other programs hold "
            f"{others / GIB:.1f} of the GPU's {total / GIB:.1f} GiB"
        )
        free_some = "free them"
    return (
        f"the GPU's memory ran out{taken}; {free_some}, or take fewer images at a time: of a classifier with "
        "--eager (one BN group), of a detector or a localizer with a smaller batch.at_once, of any with a "
        "smaller batch.size and schedule.learning_rate in proportion"
    )
