"""How the C library keeps memory that the training step frees and takes again."""

import ctypes
import platform

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEEP = 2**31 - 1


def keep_freed_memory() -> None:
    """Make glibc keep freed blocks instead of handing them back to the kernel.

    A step on the CPU takes and frees the same hundreds of megabytes each time; fetched anew from the
    kernel, every page is cleared and mapped again, which costs about a tenth of the step
    (docs/performance.md). The peak stays the same. Elsewhere than on glibc, nothing happens.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _KEEP)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEEP)
