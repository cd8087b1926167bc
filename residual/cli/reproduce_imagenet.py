"""``residual reproduce table2`` to ``table5`` and ``figure4``: the paper's experiments on ImageNet."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InputError
from .options import Deterministic, Device, Eager, Settings
from .reproduce import IMAGENET_STUDY as STUDY
from .reproduce import NoTrain, StudyFolder, app

if TYPE_CHECKING:
    from ..reproduce.study import Study

Folder = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Folder with train/ and val/, a directory a class."),
]
Networks = Annotated[
    list[str] | None,
    typer.Option("--networks", metavar="NAME...", help="Train only these, as --networks plain18 resnet18."),
]
#: The names after the first one arrive as arguments, as the depths of the CIFAR-10 study do.
More = Annotated[list[str] | None, typer.Argument(hidden=True)]

SMALLER = """\b
Examples:
  residual reproduce {0} --data-dir ~/imagenet
  residual reproduce {0} --no-train
  residual reproduce {0} --data-dir ~/imagenette --out runs/imagenette --set data.folder.size=64 \\
    --set 'data.folder.shorter_side=[72,128]' --set schedule.epochs=8 --set schedule.plateau=null \\
    --set 'schedule.drops=[0.5,0.8]' --set schedule.learning_rate=0.05 --set batch.size=64
"""


def _table(number: int, text: str) -> None:
    def command(
        more: More = None,
        networks: Networks = None,
        out: StudyFolder = STUDY,
        data_dir: Folder = None,
        settings: Settings = None,
        device: Device = "auto",
        eager: Eager = False,
        deterministic: Deterministic = False,
        no_train: NoTrain = False,
    ) -> None:
        from ..reproduce import imagenet

        chosen = names_of(networks, more)
        study = _study(out, data_dir, settings, device, eager, deterministic, no_train)
        if number == 5:
            imagenet.table5(study, chosen)
        else:
            imagenet.table(study, number, chosen)

    app.command(f"table{number}", help=text, epilog=SMALLER.format(f"table{number}"))(command)


_table(2, "Table 2: 18 and 34 layers, plain and residual. Ten-crop testing.")
_table(3, "Table 3: shortcuts A, B, C and deeper networks. Ten-crop testing.")
_table(4, "Table 4: single models, multi-scale testing.")
_table(5, "Table 5: the ensemble of Table 4's networks.")


@app.command(epilog=SMALLER.format("figure4"))
def figure4(
    out: StudyFolder = STUDY,
    data_dir: Folder = None,
    settings: Settings = None,
    device: Device = "auto",
    eager: Eager = False,
    deterministic: Deterministic = False,
    no_train: NoTrain = False,
) -> None:
    """Figure 4: errors of 18 and 34 layers, plain and residual."""
    from ..reproduce import imagenet

    imagenet.figure4(_study(out, data_dir, settings, device, eager, deterministic, no_train))


def names_of(networks: list[str] | None, more: list[str] | None) -> list[str] | None:
    """Return the names of ``--networks A B``, ``--networks A,B`` or ``--networks A --networks B``."""
    if more and not networks:
        raise InputError(f"there is nothing to be said by {' '.join(more)!r}; did you mean --networks?")
    return [name for text in [*(networks or []), *(more or [])] for name in text.split(",")] or None


def _study(
    out: Path,
    data_dir: Path | None,
    settings: list[str] | None,
    device: str,
    eager: bool,
    deterministic: bool,
    no_train: bool,
) -> "Study":
    from ..reproduce.study import Study

    return Study(out, settings or [], data_dir, device, eager, deterministic, not no_train, family="imagenet")
