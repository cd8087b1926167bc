"""``python -m residual`` is the command ``residual``."""

from .cli import main

main()
