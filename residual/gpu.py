"""What has to be said to PyTorch about a GPU before work, and to the user when its memory runs out."""

import os

import torch

GIB = 2**30


def set_arithmetic(device: torch.device, precision: str, deterministic: bool, one_size: bool = True) -> None:
    """Choose how a GPU computes float32 products, and whether it may choose among kernels.

    Args:
        device: a CPU needs and gets no setting: its results repeat as they are.
        precision: of the recipe; all but "float32" shorten factors to TF32.
        deterministic: only kernels that give the same bits each time, and no choice of kernels by timing.
        one_size: whether all inputs are of one size; timing kernels anew for each size would not pay.
    """
    if device.type != "cuda":
        return
    short = precision != "float32"
    torch.backends.cudnn.allow_tf32 = short
    torch.set_float32_matmul_precision("high" if short else "highest")
    torch.backends.cudnn.benchmark = one_size and not deterministic
    if deterministic:
        # cuBLAS reads it when it is first used; without it, it refuses in deterministic mode.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(deterministic)


def memory_ran_out(device: torch.device) -> str:
    """Return a sentence on how much memory was taken and how to take less."""
    free, total = torch.cuda.mem_get_info(device)
    mine = torch.cuda.max_memory_allocated(device)
    others = max(0, total - free - torch.cuda.memory_reserved(device))
    return (
        f"the GPU's memory ran out: this run had taken {mine / GIB:.1f} GiB and needed more, other programs "
        f"hold {others / GIB:.1f} of the GPU's {total / GIB:.1f} GiB; free them, or use --eager (one BN "
        "group at a time takes less), or a smaller batch.size with schedule.learning_rate in proportion"
    )
