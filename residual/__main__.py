"""The command, also as ``python -m residual``: signals are heard before anything large is imported."""

import os
import sys
from contextlib import suppress

from .errors import Interrupted
from .signals import listening


def main() -> None:
    """Run the command; a signal ends it with one sentence on stderr and the exit code 128 + its number."""
    with listening(command=True) as listener:
        code: object
        try:
            from .cli import main as command

            command()
            code = 0
        except SystemExit as exit:
            code = exit.code
        except Interrupted as error:
            print(f"residual: {error}", file=sys.stderr)
            code = 128 + error.signal
        if (listener.received is not None or _joined()) and isinstance(code, int):
            # Without waiting for threads that still decode images, or for ranks that wait for this one.
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError, ValueError):
                    stream.flush()
            os._exit(code)
    sys.exit(code)


def _joined() -> bool:
    """Whether this process is still in a process group; PyTorch is not imported to find out."""
    distributed = sys.modules.get("residual.distributed")
    return distributed is not None and distributed.joined()


if __name__ == "__main__":
    main()
