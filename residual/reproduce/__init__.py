"""The paper's experiments: runs in, a page with their numbers and figures out.

``residual.reproduce("table6", data="data")`` does one, as the command does: this room is a function as well,
since it has the command's name.
"""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any


class Experiments(ModuleType):
    """The room, which does an experiment when it is called."""

    def __call__(self, experiment: str, **options: Any) -> Path:
        # What users call is offered by the package's face, which knows all rooms.
        from .. import _experiment

        return _experiment(experiment, **options)


sys.modules[__name__].__class__ = Experiments
