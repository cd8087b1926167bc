"""Work that is recorded once, as a CUDA graph, and then replayed: what small kernels cost is their launch.

Recording can fail on a machine (another driver, too little memory). Who records goes on kernel by kernel
then, to the same numbers, and says why.
"""

from collections.abc import Callable

import torch

from .errors import memory_that_ran_out
from .files import first_line

#: How often work is done before it is recorded, so that libraries have set themselves up and what is to be
#: compiled is.
WARM_UP = 3


def record(work: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """Return what does ``work`` again and again: a CUDA graph of it on a GPU, itself on a CPU.

    It is done ``WARM_UP`` times meanwhile (once on a CPU); recording does nothing itself. What a graph takes
    of memory while it works it keeps for as long as it is there.
    """
    if device.type != "cuda":
        work()
        return work
    # Not on the default stream, as PyTorch's notes on CUDA graphs ask for; on one for all, since memory is
    # used again on its own stream only.
    stream, usual = torch.cuda.Stream(device), torch.cuda.current_stream(device)
    stream.wait_stream(usual)
    try:
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                work()
    finally:
        # Who records puts back what the work has changed, also where it failed: not before it is done.
        usual.wait_stream(stream)
    torch.cuda.synchronize(device)
    torch.cuda.empty_cache()
    graph = torch.cuda.CUDAGraph()
    # Twice on that stream: where ending the recording fails, its own context leaves it the current one.
    with torch.cuda.stream(stream), torch.cuda.graph(graph, stream=stream):
        work()
    return graph.replay


def why(error: Exception, helps: str) -> str:
    """Return in a line what went wrong, and what helps: ``helps``, where it was not the memory."""
    # What a compiler raised comes wrapped.
    error = getattr(error, "inner_exception", error)
    # An error while a recording is ended comes of the one that ended it.
    before = error.__context__
    if isinstance(error, RuntimeError) and isinstance(before, Exception) and not error.__suppress_context__:
        error = before
    if memory := memory_that_ran_out(error):
        return f"{memory} ran out; free some, or take a smaller batch.size, to be fast again"
    return f"{type(error).__name__}: {first_line(error)}; {helps} fast again"
