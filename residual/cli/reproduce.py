"""``residual reproduce``: the paper's experiments, all from one table."""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from ..errors import InputError, nearest
from ..signals import limited
from .detect import BoxesDir, Scales, shorter_sides
from .locate import ImagesDir
from .options import DataDir, Deterministic, Device, Eager, Minutes, Settings, Threads, takes, use_threads
from .output import printed_once

if TYPE_CHECKING:
    from ..reproduce.study import ClassifierRun, Family, Study, T


class _Experiments(TyperGroup):
    """The group, which refuses what is no experiment as Python's ``reproduce`` does."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        find(args[0])
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=_Experiments,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Run the paper's experiments and draw their figures.",
)

RUNS = Path("runs")
CIFAR10_OUT, IMAGENET_OUT, DETECTION_OUT, LOCALIZATION_OUT = (
    RUNS / name for name in ("cifar10", "imagenet", "detection", "localization")
)

#: Runs of one network: more are a slip of the keyboard.
MOST_RUNS = 1000

ClassesDir = Annotated[
    Path | None, typer.Option("--data-dir", help="Folder with train/ and val/, a directory a class.")
]
DatasetOut = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the experiment: its runs, tables, figures (default: runs/ and the name of --dataset)."
    ),
]


@dataclass(frozen=True)
class ExperimentOptions:
    """The options of all experiments, each of which has some of them; what --help says stands here."""

    #: A command line's options have one value each: the words after the first one arrive as arguments.
    more: Annotated[list[str] | None, typer.Argument(hidden=True)] = None
    depths: Annotated[
        list[str] | None, typer.Option(metavar="N...", help="Networks of these depths, as --depths 20 56.")
    ] = None
    networks: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME...", help="Train only these, as --networks NAME NAME."),
    ] = None
    highway: Annotated[
        bool, typer.Option("--highway", help="Highway-19 and -32 as well, under the same recipe.")
    ] = False
    rivals: Annotated[
        bool,
        typer.Option("--rivals", help="All of the table's rivals as well, and what each network costs."),
    ] = False
    seeds: Annotated[
        str, typer.Option(metavar="N|A-B", help="Runs of each network: seeds 0 to N-1, or A to B, as 1-4.")
    ] = "1"
    seed: Annotated[int, typer.Option(min=0, help="Seed of the runs.")] = 0
    weights: Annotated[
        Path | None,
        typer.Option(help="The classifier to start from: a run, a weights folder, or a name."),
    ] = None
    weights_vgg16: Annotated[
        Path | None, typer.Option(help="ImageNet's VGG-16 to start from: a run, a weights folder, or a name.")
    ] = None
    weights_resnet101: Annotated[
        Path | None, typer.Option(help="ImageNet's ResNet-101 to start from, as well.")
    ] = None
    weights_coco: Annotated[
        Path | None,
        typer.Option(help="COCO's detector with context to start from: a run, a weights folder, or a name."),
    ] = None
    ensemble: Annotated[
        int,
        typer.Option(
            min=1, max=MOST_RUNS, help="Detectors with context to train for the ensemble (the paper: 3)."
        ),
    ] = 1
    scales: Scales = None
    dataset: Annotated[
        Literal["imagenet", "tiny-imagenet"],
        typer.Option(help="Whose recipes: imagenet (the paper's) or tiny-imagenet (64 x 64)."),
    ] = "imagenet"
    out: Annotated[
        Path | None, typer.Option(help="Folder of the experiment: its runs, tables, figures, page.")
    ] = None
    imagenet: Annotated[Path, typer.Option(help="The study of Tables 2 to 5 and Figure 4.")] = IMAGENET_OUT
    detection: Annotated[Path, typer.Option(help="The study of Tables 7 to 12.")] = DETECTION_OUT
    data_dir: DataDir = None
    settings: Settings = None
    device: Device = "auto"
    threads: Threads = None
    eager: Eager = False
    deterministic: Deterministic = False
    minutes: Minutes = None
    no_train: Annotated[bool, typer.Option("--no-train", help="Train nothing; show what is there.")] = False

    @property
    def folder(self) -> Path:
        """The experiment's folder."""
        return self.out or RUNS / self.dataset

    def imagenet_study(self) -> "Study[ClassifierRun]":
        """Return the study of Tables 2 to 5 and Figure 4 on the dataset that is asked for."""
        from ..reproduce.imagenet import FAMILIES

        return self.study(FAMILIES[self.dataset])

    def study(self, family: "Family[T]") -> "Study[T]":
        from ..reproduce.study import Study

        return Study(
            self.folder,
            family,
            self.settings or [],
            self.data_dir,
            self.device,
            self.eager,
            self.deterministic,
            not self.no_train,
        )

    def words(self, option: str) -> list[str]:
        """Return the words of ``--depths 20 56``, ``--depths 20,56`` or ``--depths 20 --depths 56``."""
        first: list[str] | None = getattr(self, option)
        if self.more and not first:
            said = " ".join(self.more)
            raise InputError(f"there is nothing to be said by {said!r}; did you mean --{option}?")
        return [word for text in [*(first or []), *(self.more or [])] for word in text.split(",") if word]

    def chosen_depths(self) -> list[int]:
        """Return the depths of ``--depths``, rising; none for the experiment's own."""
        depths = set()
        for word in self.words("depths"):
            if (depth := _whole(word)) is None or depth < 8 or depth % 6 != 2:
                raise InputError(f"--depths {word}: a CIFAR network has 6n+2 layers, as 20, 32, 44 or 56")
            depths.add(depth)
        return sorted(depths)

    def chosen_seeds(self) -> range:
        """Return the seeds of ``--seeds``."""
        first, dash, last = self.seeds.partition("-")
        low, high = (_whole(first), _whole(last)) if dash else (0, (_whole(first) or 0) - 1)
        if low is None or high is None or not 0 <= high - low < MOST_RUNS:
            raise InputError(
                f"--seeds {self.seeds}: write how many, as 5, or from which to which, as 1-4; of one network "
                f"there are at most {MOST_RUNS:,} runs"
            )
        return range(low, high + 1)


def _whole(word: str) -> int | None:
    """Return a number of the command line, None for what is none; Python reads no more than 4,300 digits."""
    return int(word) if word.isdecimal() and len(word) < 19 else None


def degradation(asked: ExperimentOptions) -> None:
    """Degradation and its cure on digits, in two minutes.

    Plain and residual networks of 20 and 56 layers, and of --depths besides.
    """
    from ..reproduce import degradation as demo

    demo.reproduce(
        asked.folder,
        seed=asked.seed,
        settings=asked.settings or [],
        device=asked.device,
        depths=asked.chosen_depths() or demo.DEPTHS,
    )


def figure1(asked: ExperimentOptions) -> None:
    """Figure 1: errors of plain networks of 20 and 56 layers."""
    from ..reproduce import curves, study

    curves.figure1(asked.study(study.CIFAR10))


def figure4(asked: ExperimentOptions) -> None:
    """Figure 4: errors of 18 and 34 layers, plain and residual."""
    from ..reproduce import imagenet

    imagenet.figure4(asked.imagenet_study(), asked.words("networks"))


def signals(asked: ExperimentOptions) -> None:
    """Section 4.1: do signals vanish in plain networks?"""
    from ..reproduce import layer_studies, study

    depths = asked.chosen_depths() or layer_studies.SIGNAL_DEPTHS
    networks = [f"{kind}{depth}" for kind in ("plain", "resnet") for depth in depths]
    layer_studies.signals(asked.study(study.CIFAR10), networks)


def signals_imagenet(asked: ExperimentOptions) -> None:
    """Section 4.1: the same for 18 and 34 layers on ImageNet.

    That is where the paper makes the argument.
    """
    from ..reproduce import imagenet, layer_studies

    networks = [name for names in imagenet.FIGURE4.values() for name in names]
    layer_studies.signals(asked.imagenet_study(), networks, asked.words("networks"))


def table6(asked: ExperimentOptions) -> None:
    """Table 6: test errors of ResNets on CIFAR-10."""
    from ..reproduce import rivals, study, table6

    depths = asked.chosen_depths() or table6.DEPTHS
    runs = asked.study(study.CIFAR10)
    made = table6.table6(runs, depths, asked.chosen_seeds(), asked.highway, asked.rivals)
    if asked.rivals:
        rivals.rivals(runs.out, *made, measure=runs.train)


def figure6(asked: ExperimentOptions) -> None:
    """Figure 6: errors of plain networks and ResNets.

    The default is all depths but 1202.
    """
    from ..reproduce import curves, study

    curves.figure6(asked.study(study.CIFAR10), asked.chosen_depths() or curves.DEPTHS, asked.highway)


def figure7(asked: ExperimentOptions) -> None:
    """Figure 7: how strongly each layer responds.

    Of plain-20, -56 and ResNet-20, -56, -110.
    """
    from ..reproduce import layer_studies, study

    depths = asked.chosen_depths() or layer_studies.FIGURE7_DEPTHS
    layer_studies.figure7(asked.study(study.CIFAR10), depths)


def localization(asked: ExperimentOptions) -> None:
    """Appendix C: where on an image its class is, on ImageNet.

    By per-class regression, and by an R-CNN on its proposals.
    """
    from ..reproduce import localization as located

    located.table(asked.study(located.FAMILY), asked.dataset, asked.weights)


def complexity(asked: ExperimentOptions) -> None:
    """Table 1 and Figure 3: complexity, beside VGG's and GoogLeNet's.

    Nothing is trained.
    """
    from ..reproduce.table1 import complexity

    complexity(asked.folder)


def report(asked: ExperimentOptions) -> None:
    """What was measured so far on one page, beside the paper's.

    Of Tables 2 to 12 and the figures; nothing is trained.
    """
    from ..reproduce.report import report

    report(asked.folder, asked.imagenet, asked.detection)


def _word(value: Any) -> str:
    """Return a value of Python, or several, as a word of the command line."""
    if isinstance(value, str | os.PathLike):
        return os.path.expanduser(os.fspath(value))
    return ",".join(map(str, value)) if isinstance(value, Iterable) else str(value)


@dataclass(frozen=True)
class Group:
    """What the experiments of one study have in common.

    Attributes:
        out: the study's folder where none is named; None for runs/ and the dataset's name.
        options: of ``ExperimentOptions``, those that all have.
        examples: what is written after ``residual reproduce NAME``, below each one's own.
        remark: what stands below the examples.
        data_dir: how --data-dir is read, and what --help says of it.
    """

    out: Path | None
    options: tuple[str, ...]
    examples: tuple[str, ...] = ()
    remark: str = "An interrupted study goes on with the same command."
    data_dir: Any = DataDir


@dataclass(frozen=True)
class Experiment:
    """A command: its name and what --help says of it are the function's.

    Attributes:
        options, examples: its own, besides the group's.
    """

    call: Callable[[ExperimentOptions], None]
    group: Group
    options: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.call.__name__.replace("_", "-")

    def do(self, asked: ExperimentOptions) -> Path:
        """Do the experiment and return its folder; options that all have are seen to here."""
        if asked.no_train and not asked.folder.is_dir():
            raise InputError(
                f"there is no folder {asked.folder}, and --no-train makes none; name the study's with --out, "
                "or leave --no-train out"
            )
        use_threads(asked.threads)
        with printed_once(), limited(asked.minutes):
            self.call(asked)
        return asked.folder

    def from_python(self, given: Mapping[str, Any]) -> Path:
        """Do the experiment by options as Python has them; they are read by the command's own rules.

        Args:
            given: values by the names of options; None leaves one out, several values are a sequence.

        Raises:
            InputError: for an option that there is not, and for a value that it cannot have.
        """
        defaults = {field.name: field.default for field in fields(ExperimentOptions)}
        allowed = sorted({*self.options, *self.group.options} - {"more"})
        words: list[str] = []
        for name, value in given.items():
            if value is None:
                continue
            if name not in allowed:
                raise InputError(f"{self.name} has no option {name!r}{nearest(name, allowed)}")
            option = "--set" if name == "settings" else f"--{name.replace('_', '-')}"
            if isinstance(defaults[name], bool):
                words += [option] * bool(value)
            elif name == "settings":
                words += [f"{option}={setting}" for setting in value]
            else:
                words.append(f"{option}={_word(value)}")
        command = typer.main.get_command(app).commands[self.name]  # type: ignore[attr-defined]
        from ..distributed import threads_kept
        from ..randomness import generators_kept

        try:
            with threads_kept(), generators_kept(), command.make_context(self.name, words) as context:
                folder: Path = command.invoke(context)
        except typer.BadParameter as error:
            raise InputError(f"{self.name}: {error.format_message().rstrip('.')}") from None
        return folder

    def add_to(self, app: typer.Typer) -> None:
        name, group = self.name, self.group

        changed = {"out": group.out or DatasetOut, "data_dir": group.data_dir}
        command = takes(ExperimentOptions, self.options + group.options, **changed)(self.do)
        lines = [f"  residual reproduce {name} {words}".rstrip() for words in self.examples + group.examples]
        epilog = "\n".join(["\b", "Examples:", *lines, "", group.remark])
        app.command(name, help=self.call.__doc__, epilog=epilog)(command)


TRAINING = ("out", "data_dir", "settings", "device", "threads", "minutes", "no_train")
#: Of networks whose inputs have one size.
GPU = ("eager", "deterministic")
DEPTHS, NETWORKS = ("more", "depths"), ("more", "networks")
NEXT = " \\\n    "
DATA, SHORT = "--data-dir ~/data", "--set schedule.iterations=2000 --out runs/short"
FOLDERS, RESNET101 = "--data-dir ~/imagenet", "--weights-resnet101 weights/resnet101"

DEGRADATION = Group(Path("runs/degradation"), ("seed", "out", "settings", "device", "threads"))
CIFAR10 = Group(CIFAR10_OUT, TRAINING + GPU)
IMAGENET = Group(
    None,
    ("dataset", *TRAINING, *GPU),
    (
        "--no-train",
        f"--dataset tiny-imagenet --data-dir ~/tiny-imagenet-200{NEXT}--set precision=bfloat16",
        f"--data-dir ~/imagenette --out runs/imagenette --set data.folder.size=64{NEXT}"
        f"--set 'data.folder.shorter_side=[72,128]' --set schedule.epochs=8 --set schedule.plateau=null{NEXT}"
        "--set 'schedule.drops=[0.5,0.8]' --set schedule.learning_rate=0.05 --set batch.size=64",
    ),
    data_dir=ClassesDir,
)
DETECTION = Group(
    DETECTION_OUT,
    (*NETWORKS, "weights_resnet101", *TRAINING),
    (
        "--no-train",
        f"--data-dir ~/cells --out runs/cells {RESNET101}{NEXT}--set data.layout=voc "
        "--set data.train=train --set data.test=test --set schedule.iterations=2000",
    ),
    f"{CIFAR10.remark} Runs of residual detect train (under torchrun, say) count as well where they are in "
    "OUT/RECIPE/seed0, as runs/detection/coco-resnet101/seed0.",
    BoxesDir,
)
LOCALIZATION = Group(
    LOCALIZATION_OUT,
    ("dataset", "weights", *TRAINING),
    (
        "--data-dir ~/imagenet --weights runs/imagenet-resnet101",
        f"--dataset tiny-imagenet --data-dir ~/tiny-imagenet-200{NEXT}--weights runs/tiny-imagenet-resnet18",
        "--no-train",
    ),
    data_dir=ImagesDir,
)
COMPLEXITY = Group(Path("runs/complexity"), ("out",), remark="")
REPORT = Group(CIFAR10_OUT, ("out", "imagenet", "detection"), remark="")


def _imagenet_table(number: int, help: str, example: str, rivals: str = "") -> Experiment:
    def call(asked: ExperimentOptions) -> None:
        from ..reproduce import imagenet

        imagenet.table(asked.imagenet_study(), number, asked.words("networks"))

    if rivals:
        help += f"\n\nRivals that the paper quotes, {rivals}, are trained where --networks names them."
    call.__name__, call.__doc__ = f"table{number}", help
    return Experiment(call, IMAGENET, NETWORKS, (FOLDERS, f"{FOLDERS} --networks {example}"))


def _detection_table(
    number: int, help: str, data: str, example: str, *options: str, vgg16: bool = True, more: str = ""
) -> Experiment:
    def call(asked: ExperimentOptions) -> None:
        from ..detection.improvements import SCALES
        from ..reproduce import detection

        weights = {
            "vgg16": asked.weights_vgg16,
            "resnet101": asked.weights_resnet101,
            "coco": asked.weights_coco,
        }
        detection.table(
            asked.study(detection.DETECTION),
            number,
            asked.words("networks"),
            weights={network: path for network, path in weights.items() if path},
            members=asked.ensemble,
            scales=shorter_sides(asked.scales) if asked.scales else SCALES,
        )

    call.__name__, call.__doc__ = f"table{number}", help
    examples = (
        f"--data-dir ~/{data}{NEXT}{'--weights-vgg16 weights/vgg16 ' if vgg16 else ''}{RESNET101}{more}",
        f"--data-dir ~/{data} --networks {example}{NEXT}{RESNET101}",
    )
    return Experiment(call, DETECTION, (*(["weights_vgg16"] if vgg16 else []), *options), examples)


#: In the paper's order.
EXPERIMENTS = (
    Experiment(
        degradation,
        DEGRADATION,
        DEPTHS,
        ("", "--seed 1 --out runs/degradation-1", "--depths 8 20 32 44 56 --out runs/depths"),
    ),
    Experiment(figure1, CIFAR10, (), (DATA, SHORT)),
    Experiment(complexity, COMPLEXITY, (), ("",)),
    Experiment(figure4, IMAGENET, NETWORKS, (FOLDERS, f"{FOLDERS} --networks plain18 resnet18")),
    _imagenet_table(
        2, "Table 2: 18 and 34 layers, plain and residual. Ten-crop testing.", "plain18 resnet18"
    ),
    Experiment(signals, CIFAR10, DEPTHS, (DATA, f"--depths 20 {SHORT}")),
    Experiment(signals_imagenet, IMAGENET, NETWORKS, (f"{FOLDERS} --networks plain34 resnet34-a",)),
    _imagenet_table(
        3,
        "Table 3: shortcuts A, B, C and deeper networks. Ten-crop testing.",
        "plain34 resnet34-a",
        "vgg16, googlenet and prelu_net",
    ),
    _imagenet_table(
        4,
        "Table 4: single models, multi-scale testing.",
        "resnet34-b resnet50",
        "vgg16, googlenet, prelu_net and bn_inception",
    ),
    _imagenet_table(5, "Table 5: an ensemble of six, two of them ResNet-152.", "resnet34-b resnet50"),
    Experiment(
        table6,
        CIFAR10,
        (*DEPTHS, "seeds", "highway", "rivals"),
        (
            DATA,
            "--depths 110 --seeds 5",
            "--depths 110 --seeds 1-4 --minutes 55",
            f"--depths 20 --highway {SHORT}",
            "--depths 20 --rivals --no-train",
            "--no-train",
        ),
    ),
    Experiment(
        figure6,
        CIFAR10,
        (*DEPTHS, "highway"),
        (DATA, f"--depths 20 56 {SHORT}", "--depths 20 --highway", "--depths 20 32 44 56 110 1202"),
    ),
    Experiment(figure7, CIFAR10, DEPTHS, (DATA, f"--depths 20 56 {SHORT}")),
    _detection_table(7, "Table 7: detection on PASCAL VOC 2007 and 2012.", "VOCdevkit", "voc07+12-resnet101"),
    _detection_table(8, "Table 8: detection on COCO's validation set.", "coco", "coco-resnet101"),
    _detection_table(
        9,
        "Table 9: improvements of detection on COCO.\n\n"
        "Box refinement, global context, multi-scale testing, ensemble.",
        "coco",
        "coco-resnet101-context",
        "ensemble",
        "scales",
    ),
    *(
        _detection_table(
            number,
            f"Table {number}: detection on PASCAL VOC {year} by class, with the improvements of Table 9.\n\n"
            "baseline+++ is a detector that was trained on COCO, fine-tuned.",
            "VOCdevkit",
            f"voc{data}-resnet101",
            "weights_coco",
            "scales",
            more=f"{NEXT}--weights-coco runs/coco",
        )
        for number, year, data in ((10, 2007, "07+12"), (11, 2012, "07++12"))
    ),
    _detection_table(
        12,
        "Table 12: detection on ImageNet, with the improvements of Table 9.\n\n"
        "Tested on val2, by the rule of ImageNet's development kit.",
        "ILSVRC",
        "imagenet-det-resnet101",
        "ensemble",
        "scales",
        vgg16=False,
    ),
    Experiment(localization, LOCALIZATION),
    Experiment(report, REPORT, (), ("", "--out results/cifar10/full --imagenet results/imagenette")),
)
#: What the paper calls experiments that have another name here.
OTHER_NAMES = {"table1": "complexity", "figure3": "complexity"}


def find(name: str) -> Experiment:
    """Return the experiment of a name.

    Raises:
        InputError: where there is none.
    """
    known = {each.name: each for each in EXPERIMENTS}
    if name in OTHER_NAMES:
        raise InputError(f"there is no experiment {name!r}; the experiment is called {OTHER_NAMES[name]}")
    if name not in known:
        raise InputError(f"there is no experiment {name!r}{nearest(name, known)}")
    return known[name]


for experiment in EXPERIMENTS:
    experiment.add_to(app)
