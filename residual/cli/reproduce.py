"""``residual reproduce``: the paper's experiments."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InputError
from .options import DataDir, Deterministic, Device, Eager, Settings

if TYPE_CHECKING:
    from ..reproduce.study import Study

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Run the paper's experiments and draw their figures."
)

StudyFolder = Annotated[Path, typer.Option("--out", help="The study's folder: runs, tables, figures.")]
STUDY, IMAGENET_STUDY, DETECTION_STUDY = Path("runs/cifar10"), Path("runs/imagenet"), Path("runs/detection")
NoTrain = Annotated[bool, typer.Option("--no-train", help="Train nothing; show what is there.")]
Depths = Annotated[
    list[str] | None, typer.Option("--depths", metavar="N...", help="Only these, as --depths 20 56.")
]
#: A command line's options have one value each: the depths after the first one arrive as arguments.
MoreDepths = Annotated[list[str] | None, typer.Argument(hidden=True)]
Seeds = Annotated[int, typer.Option(min=1, help="Runs of each network, seeds 0 to N-1.")]


@app.command(
    epilog="""\b
Examples:
  residual reproduce degradation
  residual reproduce degradation --seed 1 --out runs/degradation-1
"""
)
def degradation(
    out: Annotated[Path, typer.Option(help="Folder of the four runs and the page.")] = Path(
        "runs/degradation"
    ),
    seed: Annotated[int, typer.Option(min=0, help="Seed of the four runs.")] = 0,
    settings: Settings = None,
    device: Device = "auto",
) -> None:
    """Degradation and its cure on digits, in two minutes."""
    from ..reproduce.degradation import reproduce

    reproduce(out, seed=seed, settings=settings or [], device=device)


@app.command(
    epilog="""\b
Examples:
  residual reproduce table6 --data-dir ~/data
  residual reproduce table6 --depths 20 56 --seeds 5
  residual reproduce table6 --depths 20 --set schedule.iterations=2000 --out runs/short
  residual reproduce table6 --no-train

An interrupted study goes on with the same command.
"""
)
def table6(
    more: MoreDepths = None,
    depths: Depths = None,
    seeds: Seeds = 1,
    out: StudyFolder = STUDY,
    data_dir: DataDir = None,
    settings: Settings = None,
    device: Device = "auto",
    eager: Eager = False,
    deterministic: Deterministic = False,
    no_train: NoTrain = False,
) -> None:
    """Table 6: test errors of ResNets on CIFAR-10."""
    from ..reproduce import table6 as experiment

    study = _study(out, data_dir, settings, device, eager, deterministic, no_train)
    experiment.table6(study, _depths(depths, more, experiment.DEPTHS), seeds)


@app.command(
    epilog="""\b
Examples:
  residual reproduce figure1 --data-dir ~/data
  residual reproduce figure1 --set schedule.iterations=2000 --out runs/short
"""
)
def figure1(
    out: StudyFolder = STUDY,
    data_dir: DataDir = None,
    settings: Settings = None,
    device: Device = "auto",
    eager: Eager = False,
    deterministic: Deterministic = False,
    no_train: NoTrain = False,
) -> None:
    """Figure 1: errors of plain networks of 20 and 56 layers."""
    from ..reproduce import curves

    curves.figure1(_study(out, data_dir, settings, device, eager, deterministic, no_train))


@app.command(
    epilog="""\b
Examples:
  residual reproduce figure6 --data-dir ~/data
  residual reproduce figure6 --depths 20 56 --set schedule.iterations=2000 --out runs/short
  residual reproduce figure6 --depths 20 32 44 56 110 1202
"""
)
def figure6(
    more: MoreDepths = None,
    depths: Depths = None,
    out: StudyFolder = STUDY,
    data_dir: DataDir = None,
    settings: Settings = None,
    device: Device = "auto",
    eager: Eager = False,
    deterministic: Deterministic = False,
    no_train: NoTrain = False,
) -> None:
    """Figure 6: errors of plain networks and ResNets.

    The default is all depths but 1202.
    """
    from ..reproduce import curves

    study = _study(out, data_dir, settings, device, eager, deterministic, no_train)
    curves.figure6(study, _depths(depths, more, (20, 32, 44, 56, 110)))


@app.command(
    epilog="""\b
Examples:
  residual reproduce figure7 --data-dir ~/data
  residual reproduce figure7 --depths 20 56 --set schedule.iterations=2000 --out runs/short
"""
)
def figure7(
    more: MoreDepths = None,
    depths: Depths = None,
    out: StudyFolder = STUDY,
    data_dir: DataDir = None,
    settings: Settings = None,
    device: Device = "auto",
    eager: Eager = False,
    deterministic: Deterministic = False,
    no_train: NoTrain = False,
) -> None:
    """Figure 7: how strongly each layer responds.

    Of plain-20, -56 and ResNet-20, -56, -110.
    """
    from ..reproduce import layer_studies

    study = _study(out, data_dir, settings, device, eager, deterministic, no_train)
    chosen = _depths(depths, more, (20, 56, 110))
    plain = [f"plain{depth}" for depth in chosen if depth < 110]
    layer_studies.figure7(study, (*plain, *(f"resnet{depth}" for depth in chosen)))


@app.command(
    epilog="""\b
Examples:
  residual reproduce signals --data-dir ~/data
  residual reproduce signals --depths 20 --set schedule.iterations=2000 --out runs/short
"""
)
def signals(
    more: MoreDepths = None,
    depths: Depths = None,
    out: StudyFolder = STUDY,
    data_dir: DataDir = None,
    settings: Settings = None,
    device: Device = "auto",
    eager: Eager = False,
    deterministic: Deterministic = False,
    no_train: NoTrain = False,
) -> None:
    """Section 4.1: do signals vanish in plain networks?"""
    from ..reproduce import layer_studies

    study = _study(out, data_dir, settings, device, eager, deterministic, no_train)
    chosen = _depths(depths, more, (20, 56))
    networks = (f"{kind}{depth}" for kind in ("plain", "resnet") for depth in chosen)
    layer_studies.signals(study, tuple(networks))


@app.command(
    epilog="""\b
Examples:
  residual reproduce report
  residual reproduce report --out results/cifar10 --imagenet results/imagenette
"""
)
def report(
    out: StudyFolder = STUDY,
    imagenet: Annotated[
        Path, typer.Option(help="The study of Tables 2 to 5 and Figure 4.", show_default=True)
    ] = IMAGENET_STUDY,
    detection: Annotated[
        Path, typer.Option(help="The study of Tables 7 to 9.", show_default=True)
    ] = DETECTION_STUDY,
) -> None:
    """Everything measured so far on one page.

    It stands beside the paper's; nothing is trained.
    """
    from ..reproduce import report as page

    page.report(out, imagenet, detection)


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

    return Study(out, settings or [], data_dir, device, eager, deterministic, not no_train)


def _depths(first: list[str] | None, more: list[str] | None, default: tuple[int, ...]) -> list[int]:
    """Return the depths of ``--depths 20 56``, ``--depths 20,56`` or ``--depths 20 --depths 56``."""
    if more and not first:
        raise InputError(f"there is nothing to be said by {' '.join(more)!r}; did you mean --depths?")
    words = [word for text in [*(first or []), *(more or [])] for word in text.split(",") if word]
    depths = []
    for word in words:
        if not word.isdecimal() or (depth := int(word)) < 8 or depth % 6 != 2:
            raise InputError(f"--depths {word}: a CIFAR network has 6n+2 layers, as 20, 32, 44 or 56")
        depths.append(depth)
    return sorted(set(depths)) or list(default)
