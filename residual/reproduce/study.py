"""The runs behind an experiment: which are needed, which are there, and what they measured.

A study is a folder with one run folder for each network and seed, ``cifar10-resnet20/seed0`` and so on. An
experiment trains those of its runs that are missing, continues those that were interrupted, and then reads
run folders only.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

from .. import run
from ..errors import InputError, Interrupted
from ..files import read_json
from ..models import depth_of, is_plain
from ..models.layout import CONFIG_FILE
from ..models.weights import WeightsConfig
from ..recipes import KINDS, DetectionRecipe, LocalizationRecipe, Recipe, differences, find, override, read
from ..recipes.detection import starts_from_coco
from ..recipes.schema import Model
from ..run.page import network_of
from ..terminal import say
from ..training.folder import RunFolder, departed, remembered_data_dir, split_of
from ..training.schedule import drops_of

#: What to do about a damaged file that is made again by the same command.
AGAIN = "remove it, and give the same command again"

AnyRecipe = Recipe | DetectionRecipe | LocalizationRecipe

IMAGENET_CLASSES = 1000
#: What a page says of a session: what sessions of one study share, unlike when and on what each began.
ENVIRONMENT = (
    *("command", "commit", "versions", "python", "device", "instructions", "threads", "ranks", "platform"),
    "departures",
)
#: Keys in which runs may differ from the paper's recipe without measuring something else.
INCIDENTAL = (
    "name",
    "seed",
    "checkpoint_every",
    "detector.backbone.weights",
    "localizer.backbone.weights",
    "rcnn.localizer",
    "model.teacher",
)
#: ... but where the rate follows plateaus, which are so many evaluations long.
EVALUATIONS = ("evaluate_every", "evaluate_epochs")
#: Parts of recipes, and the keys there that name a run of the study which the run starts from.
OTHER_RUNS = (("model", "teacher"), ("rcnn", "localizer"))
#: What is said of runs that were trained, or are tested, on other images than each other.
OTHER_IMAGES = "the runs are not all on the same images"
#: The paper's own arithmetic, where recipes leave a GPU its TF32 (docs/departures.md).
PAPERS = "precision: tf32 -> float32"
#: Keys in which networks may depart from it each in its own way, and still be compared with each other ...
OWN = ("schedule.warmup", "detector.backbone")
#: ... and runs of one network, as members of an ensemble.
OWN_OF_RUNS = ("detector.backbone",)


@dataclass(frozen=True)
class TrainedRun:
    """A complete run, as its folder tells.

    Attributes:
        network: what the study calls it.
        path: its folder.
        paper: the recipe that the paper has for the network.
        recipe: the one that the run was made by.
        results, metrics, sessions: what results.json, metrics.jsonl and environment.json hold.
    """

    network: str
    path: Path
    paper: AnyRecipe
    recipe: AnyRecipe
    results: dict[str, Any]
    metrics: list[dict[str, Any]]
    sessions: list[dict[str, Any]]

    @property
    def departures(self) -> list[str]:
        """In what the run differs from the paper's."""
        changes = differences(self.paper, self.recipe)
        incidental = INCIDENTAL if self.recipe.schedule.plateau else INCIDENTAL + EVALUATIONS
        if self.recipe.schedule.epochs:
            # Its iterations follow from that; what stands there is the schema's.
            incidental = (*incidental, "schedule.iterations")
        found = [
            change for change in changes if change.partition(":")[0] not in incidental and change != PAPERS
        ]
        # In what a session did not do as its recipe says.
        return [*found, *departed(self.sessions)]


@dataclass(frozen=True)
class ClassifierRun(TrainedRun):
    """A complete run of a classifier."""

    paper: Recipe
    recipe: Recipe

    def __post_init__(self) -> None:
        if not self.metrics:
            file = RunFolder(self.path).metrics_file
            raise InputError(f"{file}: there is nothing to draw; remove {self.path} to train again")

    @cached_property
    def classes(self) -> int:
        """How many the network tells apart."""
        told = (self.sessions[-1].get("data") or {}).get("classes")
        # Early sessions did not note it.
        config = RunFolder(self.path).weights / CONFIG_FILE
        return told or len(read_json(config, WeightsConfig)["classes"])

    @property
    def depth(self) -> int:
        return depth_of(self.recipe.model.name)

    @property
    def plain(self) -> bool:
        return is_plain(self.recipe.model.name)

    @property
    def label(self) -> str:
        """The network's name in the paper's writing."""
        return label_of(self.network)

    @property
    def held_out(self) -> str:
        """The split that the error curve is about."""
        return split_of(self.metrics)

    @property
    def training_error(self) -> float:
        """Of the final weights on all training images, in percent; of a folder, as seen at the end."""
        train = self.results["train"] or self.metrics[-1]["train"]
        return float(train["top1_error"])

    @property
    def test_error(self) -> float:
        """Of the final weights, in percent, on what was held out where nothing else is (a folder)."""
        return float((self.results["test"] or self.results[self.held_out])["top1_error"])

    @property
    def departures(self) -> list[str]:
        found = super().departures
        if self.recipe.data.folder and self.classes != IMAGENET_CLASSES:
            found.append(f"{self.classes} classes, not ImageNet's {IMAGENET_CLASSES}")
        return found

    @property
    def drops(self) -> list[int]:
        """The iterations after which the learning rate was divided."""
        return drops_of(self.recipe.schedule, self.results["iterations"], self.metrics)


T = TypeVar("T", bound=TrainedRun)


@dataclass(frozen=True)
class Family(Generic[T]):
    """The recipes of one experiment or several, which differ in their networks.

    Attributes:
        prefix: what their names begin with; the rest is what a study calls the network.
        kind: of recipe.
        run: what a complete run is read as.
        fixed: keys that --set may not change, nor what is below them.
        refusal: what is said where it does.
        papers: what the names of the paper's own recipes begin with, where these are adapted from them.
        seeds: whether a run's folder is RECIPE/seedN in the study's; else it is NETWORK.
    """

    prefix: str
    kind: type[Recipe] | type[DetectionRecipe] | type[LocalizationRecipe]
    run: type[T]
    fixed: Sequence[str]
    refusal: str
    papers: str | None = None
    seeds: bool = True

    @property
    def networks(self) -> list[str]:
        names = KINDS[self.kind][0]
        return [name.removeprefix(self.prefix) for name in names if name.startswith(self.prefix)]

    def recipe(self, network: str) -> AnyRecipe:
        """Return the recipe for a network."""
        return find(self.prefix + network, self.kind)

    def papers_recipe(self, network: str) -> AnyRecipe:
        """Return the recipe that the paper has for it, from which departures are told."""
        return find((self.papers or self.prefix) + network, self.kind)


CIFAR10 = Family(
    "cifar10-",
    Recipe,
    ClassifierRun,
    ("name", "model", "seed"),
    "--set cannot change the network or the seed of an experiment; they come from --depths and --seeds",
)


@dataclass(frozen=True)
class Study(Generic[T]):
    """Where an experiment's runs are, and how missing ones are trained.

    Attributes:
        out: the study's folder.
        family: what its runs are of.
        settings: changes to all recipes, as ``schedule.iterations=2000``.
        data_dir, device, eager, deterministic: as in ``run.train``.
        train: whether to train what is missing; else run folders are only read, whatever their settings.
    """

    out: Path
    family: Family[T]
    settings: list[str] = field(default_factory=list)
    data_dir: Path | None = None
    device: str = "auto"
    eager: bool = False
    deterministic: bool = False
    train: bool = True

    def path(self, network: str, seed: int = 0) -> Path:
        """Return the folder of a run."""
        if not self.family.seeds:
            return self.out / network
        return self.out / f"{self.family.prefix}{network}" / f"seed{seed}"

    def lacks(self, network: str, seed: int, weights: Path | None, option: str) -> str:
        """Say what a run that starts from trained weights lacks to be trained, "" for nothing.

        Args:
            weights: that are named for it, by ``option``.
        """
        if not self.train:
            return "--no-train"
        path = self.path(network, seed)
        if weights is None and not RunFolder(path).recipe_file.exists():
            return f"no {option}"
        if not self.data_dir and not remembered_data_dir(path):
            return "no --data-dir"
        return ""

    def images(self, path: Path, identity: Callable[[Path], str]) -> str | None:
        """Return what tells the images of a run from others, None where they are not to be had (any more).

        Args:
            path: the run's folder.
            identity: of the images, from the folder where they lie.

        Raises:
            InputError: as ``identity``, for those of ``data_dir``.
        """
        try:
            folder = self.data_dir or remembered_data_dir(path)
            return identity(folder) if folder else None
        except InputError:
            if self.data_dir:
                raise
            return None

    def begun_from(self, network: str, seed: int, weights: Path | None) -> Model | None:
        """Return what a run was begun with, where that is what is named now, or nothing is.

        Args:
            weights: that are named for it.
        """
        recipe = self.recipe_begun(network, seed)
        if recipe is None:
            return None
        begun = network_of(recipe)
        same = weights is None or (begun.weights and Path(begun.weights).resolve() == weights.resolve())
        return begun if same else None

    def recipe_begun(self, network: str, seed: int) -> AnyRecipe | None:
        """Return the recipe that a run was begun with, None where there is no run."""
        file = RunFolder(self.path(network, seed)).recipe_file
        return read(file, self.family.kind, of_run=True) if file.exists() else None

    def recipe(self, network: str, seed: int = 0) -> AnyRecipe:
        """Return the recipe of a run: the paper's with the study's settings.

        Raises:
            InputError: for settings that are wrong or make it another experiment.
        """
        original = override(self._taught_here(self.family.recipe(network), seed), [f"seed={seed}"])
        recipe = override(original, self.settings)
        for change in differences(original, recipe):
            key = change.partition(":")[0]
            if any(f"{key}.".startswith(f"{fixed}.") for fixed in self.family.fixed):
                raise InputError(self.family.refusal)
        return recipe

    def _taught_here(self, recipe: AnyRecipe, seed: int) -> AnyRecipe:
        """Return a recipe whose teacher, if it has one, is the study's own run of that seed."""
        if not isinstance(recipe, Recipe) or recipe.model.teacher is None:
            return recipe
        teacher = Path(recipe.model.teacher).name.removeprefix(self.family.prefix)
        model = recipe.model.model_copy(update={"teacher": str(self.path(teacher, seed).resolve())})
        return recipe.model_copy(update={"model": model})

    def _as_begun(self, recipe: AnyRecipe, network: str, seed: int) -> AnyRecipe:
        """Return a recipe that names other runs where they lay when the run was begun.

        They may lie elsewhere since: a run goes on from its checkpoints without them.
        """
        begun = self.recipe_begun(network, seed)
        for part, key in OTHER_RUNS:
            own, theirs = (getattr(one, part, None) for one in (recipe, begun))
            if own and getattr(own, key) and (place := getattr(theirs, key, None)):
                recipe = recipe.model_copy(update={part: own.model_copy(update={key: place})})
        return recipe

    def runs(
        self, networks: Sequence[str], seeds: Sequence[int] = (0,), only: Sequence[str] | None = None
    ) -> list[T]:
        """Return the complete runs of networks, training those that are missing.

        Args:
            only: train only these networks; None for all.

        Raises:
            InputError: for settings that are wrong or change the network, for folders that hold other runs,
                for runs of different settings, and for ``only`` a network that is not among the others.
            Interrupted: after SIGINT or SIGTERM; the same command goes on.
        """
        return self.members([(name, seed) for name in networks for seed in seeds], only)

    def members(self, members: Sequence[tuple[str, int]], only: Sequence[str] | None = None) -> list[T]:
        """Return the complete runs among networks and seeds, of which a network may have several.

        Args, errors: as of ``runs``.
        """
        asked = among(list(dict.fromkeys(name for name, _ in members)), only)
        if self.train:
            self.train_missing({one: self.recipe(*one) for one in members if one[0] in asked}, members)
        complete = {one: self.complete(*one) for one in members}
        if absent := [self.path(*one) for one, run in complete.items() if run is None]:
            begun = {path: " (begun)" if RunFolder(path).recipe_file.exists() else "" for path in absent}
            named = ", ".join(f"{path.relative_to(self.out)}{state}" for path, state in begun.items())
            say(f"not complete in {self.out}: {named}", stderr=True)
        found = [run for run in complete.values() if run]
        check_alike(found)
        return found

    def train_missing(
        self, recipes: Mapping[tuple[str, int], AnyRecipe], beside: Iterable[tuple[str, int]] = ()
    ) -> None:
        """Train those runs that are not complete, and go on with those that were begun.

        Args:
            recipes: of each network and seed.
            beside: networks and seeds whose complete runs are shown with them.

        Raises:
            InputError: when a folder holds another run, or one of other settings is beside; nothing is
                trained then. After a run that departed otherwise than those beside it nothing more is.
            Interrupted: after SIGINT or SIGTERM; the same command goes on.
        """
        runs = [(self.path(*which), self._as_begun(recipe, *which)) for which, recipe in recipes.items()]
        # All folders before any training: what does not fit is said at once, not after an hour.
        begun = {path for path, recipe in runs if is_begun(path, recipe)}
        missing = [one for one in runs if not RunFolder(one[0]).results_file.exists()]
        if missing:
            complete = {one: self.complete(*one) for one in (*beside, *recipes)}
            there = {one: found for one, found in complete.items() if found}
            # How a session of those to come will depart is not known, but whether those that are there fit.
            check_alike(there.values())
            known = {one: found.recipe for one, found in there.items()}
            check_alike(self._outlined(*one, recipe) for one, recipe in (dict(recipes) | known).items())
        for number, (path, recipe) in enumerate(missing, start=1):
            of = f"run {number} of {len(missing)}" if len(missing) > 1 else "run"
            state = "going on with" if path in begun else "training"
            said = f"{of}: {state} {recipe.name}, seed {recipe.seed}, in {path}"
            say(said, stderr=True)
            try:
                run.train(
                    recipe,
                    path,
                    data_dir=self.data_dir,
                    device=self.device,
                    resume=path in begun,
                    eager=self.eager,
                    deterministic=self.deterministic,
                )
                # A session may depart in what no recipe says: before the next one is trained, too.
                check_alike(found for one in (*beside, *recipes) if (found := self.complete(*one)))
            except Interrupted as error:
                stopped = f"stopped in {path}; give the same command again to go on"
                raise Interrupted(stopped, error.signal) from None

    def _outlined(self, network: str, seed: int, recipe: AnyRecipe) -> TrainedRun:
        """Return a run of which only the recipe is known."""
        paper = self.family.papers_recipe(network)
        return TrainedRun(network, self.path(network, seed), paper, recipe, {}, [], [])

    def complete(self, network: str, seed: int = 0) -> T | None:
        """Return a complete run, None where there is none.

        Raises:
            InputError: when its files are damaged, or it is of another seed.
        """
        folder = RunFolder(self.path(network, seed))
        if not folder.results_file.exists():
            return None
        recipe = read(folder.recipe_file, self.family.kind, of_run=True)
        if self.family.seeds and recipe.seed != seed:
            raise InputError(
                f"{folder.path} holds a run of seed {recipe.seed}; move it to "
                f"{self.path(network, recipe.seed)}"
            )
        if not (sessions := folder.sessions()):
            raise InputError(f"{folder.path} lacks its {folder.environment_file.name}; copy that as well")
        return self.family.run(
            network,
            folder.path,
            self.family.papers_recipe(network),
            recipe,
            folder.results(recipe),
            folder.metrics(),
            sessions,
        )

    def all_complete(self, network: str) -> list[T]:
        """Return all complete runs of a network, lower seeds first."""
        names = [path.name.removeprefix("seed") for path in self.path(network).parent.glob("seed*")]
        # A copy beside it may be called seed00.
        seeds = {int(name) for name in names if name.isdecimal()}
        return [one for seed in sorted(seeds) if (one := self.complete(network, seed))]


def among(known: Sequence[str], asked: Sequence[str] | None) -> Sequence[str]:
    """Return the networks that are asked for, which must be known; all known ones where none is."""
    if strange := [name for name in asked or () if name not in known]:
        raise InputError(f"--networks {strange[0]}: this experiment has {', '.join(known)}")
    return asked or known


def is_of_others(kept: Mapping[str, Any], images: str | None) -> bool:
    """Whether a kept result is of other images than those that it would be measured on now.

    Args:
        kept: earlier versions did not note of which it is.
        images: as of ``Study.images``.
    """
    return None not in (kept.get("content"), images) and kept["content"] != images


def label_of(network: str) -> str:
    """Return a network's name in the paper's writing: "ResNet-20" for "resnet20", "ResNet-34 A"."""
    name, _, option = network.partition("-")
    kind = name.rstrip("0123456789")
    written = WRITTEN.get(kind, kind) + name.removeprefix(kind)
    return f"{written} {option.upper() if len(option) == 1 else option}".strip()


#: Kinds of networks in the paper's writing.
WRITTEN = {
    "plain": "plain-",
    "resnet": "ResNet-",
    "highway": "Highway-",
    "vgg": "VGG-",
    "fitnet": "FitNet-",
    "nin": "NIN",
    "dsn": "DSN",
    "maxout": "Maxout",
    "googlenet": "GoogLeNet",
    "bn_inception": "BN-inception",
    "prelu_net": "PReLU-net",
}


def is_begun(path: Path, recipe: AnyRecipe) -> bool:
    """Say whether a folder holds a run already, which must be of this recipe."""
    begun = RunFolder(path).recipe_file.exists()
    try:
        RunFolder.check(path, recipe, begun)
    except InputError as error:
        raise InputError(f"{error} (another experiment: --out ANOTHER_FOLDER)") from None
    return begun


def check_alike(runs: Iterable[TrainedRun]) -> None:
    """Raise an InputError when runs that are to be compared depart from the paper in different ways.

    What the paper trains on other data is not compared. Warm-ups are the networks' own, and so are the
    classifiers that detectors start from; seeds of one network have one warm-up.
    """
    first: dict[Any, tuple[Path, str]] = {}
    for other in runs:
        # A detector that starts from COCO's has learned its images as well.
        data = (other.paper.data, starts_from_coco(other.paper.name))
        for alike, own in ((data, OWN), (other.network, OWN_OF_RUNS)):
            changes = "; ".join(change for change in other.departures if not change.startswith(own))
            path, before = first.setdefault(alike, (other.path, changes))
            if before != changes:
                raise InputError(
                    f"{path} and {other.path} cannot be compared: against the paper's recipe the first "
                    f"changes {before or 'nothing'}, the second {changes or 'nothing'}; keep studies of "
                    "different settings in different folders (--out)"
                )


def departures_of(runs: Iterable[TrainedRun]) -> list[str]:
    """Return in what runs differ from the paper's recipes, each change once, and whether in their images."""
    found: dict[str, None] = {}
    images: dict[Any, dict[str, Any]] = {}
    for one in runs:
        found |= dict.fromkeys(one.departures)
        known = images.setdefault(one.paper.data, {})
        for session in one.sessions:
            for what, noted in (session.get("data") or {}).items():
                # How many they are, and their names; a file or an annotation may have been mended.
                if what not in ("content", "labels") and known.setdefault(what, noted) != noted:
                    found[OTHER_IMAGES] = None
    return list(found)


def environments(runs: Iterable[ClassifierRun]) -> list[tuple[str, dict[str, Any]]]:
    """Return each session's environment once, with the networks trained in it."""
    networks: dict[str, list[str]] = {}
    for one in runs:
        for session in one.sessions:
            same = {key: session[key] for key in ENVIRONMENT if key in session}
            labels = networks.setdefault(json.dumps(same), [])
            if one.label not in labels:
                labels.append(one.label)
    return [(", ".join(labels), json.loads(text)) for text, labels in networks.items()]
