"""The runs behind an experiment: which are needed, which are there, and what they measured.

A study is a folder with one run folder for each network and seed, ``cifar10-resnet20/seed0`` and so on. An
experiment trains those of its runs that are missing, continues those that were interrupted, and then reads
run folders only.
"""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console

from .. import run
from ..errors import InputError, Interrupted
from ..recipes import Recipe, differences, find, override, read
from ..recipes.schema import R
from ..training.folder import RunFolder, read_json, read_metrics

IMAGENET_CLASSES = 1000
#: Keys in which runs may differ from the paper's recipe without measuring something else.
INCIDENTAL = ("seed", "evaluate_every", "checkpoint_every")
#: Keys in which runs may depart from it each in its own way, and still be compared with each other.
OWN = ("schedule.warmup", "detector.backbone")


class Departing(Protocol):
    """A complete run, of a classifier or a detector."""

    @property
    def path(self) -> Path: ...

    @property
    def departures(self) -> list[str]:
        """In what its recipe differs from the paper's."""


@dataclass(frozen=True)
class Finished:
    """A complete run, as its folder tells."""

    path: Path
    recipe: Recipe
    results: dict[str, Any]
    metrics: list[dict[str, Any]]
    sessions: list[dict[str, Any]]

    @property
    def network(self) -> str:
        """As "resnet20", or "resnet34-a": the recipe's name without its family."""
        return self.recipe.name.partition("-")[2]

    @property
    def depth(self) -> int:
        return int(re.findall(r"\d+", self.network)[0])

    @property
    def label(self) -> str:
        """The network's name in the paper's writing."""
        return label_of(self.network)

    @property
    def held_out(self) -> str:
        """The part that the error curve is about."""
        return "validation" if self.recipe.data.validation or self.recipe.data.folder else "test"

    @property
    def training_error(self) -> float:
        """Of the final weights on all training pictures, in percent; of a folder, as seen at the end."""
        train = self.results["train"] or self.metrics[-1]["train"]
        return float(train["top1_error"])

    @property
    def test_error(self) -> float:
        """Of the final weights, in percent."""
        return float(self.results["test"]["top1_error"])

    @property
    def departures(self) -> list[str]:
        """In what the run's recipe differs from the one of its name, the paper's."""
        changes = differences(find(self.recipe.name), self.recipe)
        found = [change for change in changes if change.partition(":")[0] not in INCIDENTAL]
        if self.recipe.data.folder:
            classes = len(read_json(self.path / "weights" / "config.json")["classes"])
            if classes != IMAGENET_CLASSES:
                found.append(f"{classes} classes, not ImageNet's {IMAGENET_CLASSES}")
        return found

    @property
    def drops(self) -> list[int]:
        """The iterations after which the learning rate was divided."""
        schedule, length = self.recipe.schedule, self.results["iterations"]
        if schedule.plateau is None:
            return [round(drop * length) for drop in schedule.drops]
        return [
            before["iteration"]
            for before, after in pairwise(self.metrics)
            if after["learning_rate"] < before["learning_rate"]
        ]


@dataclass(frozen=True)
class Study:
    """Where an experiment's runs are, and how missing ones are trained.

    Attributes:
        out: the study's folder.
        settings: changes to all recipes, as ``schedule.iterations=2000``.
        data_dir, device, eager, deterministic: as in ``run.train``.
        train: whether to train what is missing; else run folders are only read, whatever their settings.
        family: of the recipes, "cifar10" or "imagenet".
    """

    out: Path
    settings: list[str] = field(default_factory=list)
    data_dir: Path | None = None
    device: str = "auto"
    eager: bool = False
    deterministic: bool = False
    train: bool = True
    family: str = "cifar10"

    def path(self, network: str, seed: int) -> Path:
        return self.out / f"{self.family}-{network}" / f"seed{seed}"

    def runs(self, networks: Iterable[str], seeds: int) -> dict[str, list[Finished]]:
        """Return each network's complete runs, seeds 0 to ``seeds - 1``, training those that are missing.

        Raises:
            InputError: for settings that are wrong or change the network, for folders that hold other runs,
                and for runs of different settings.
            Interrupted: after SIGINT or SIGTERM; the same command goes on.
        """
        wanted = [(network, seed) for network in networks for seed in range(seeds)]
        if self.train:
            self._train(wanted)
        found: dict[str, list[Finished]] = {network: [] for network, _ in wanted}
        for network, seed in wanted:
            if finished := read_finished(self.path(network, seed)):
                found[network].append(finished)
        check_alike([finished for runs in found.values() for finished in runs])
        return found

    def _train(self, wanted: list[tuple[str, int]]) -> None:
        def train(recipe: Recipe, path: Path, resume: bool) -> object:
            return run.train(
                recipe,
                path,
                data_dir=self.data_dir,
                device=self.device,
                resume=resume,
                eager=self.eager,
                deterministic=self.deterministic,
            )

        runs = [
            (f"{label_of(network)}, seed {seed}", self.path(network, seed), self._recipe(network, seed))
            for network, seed in wanted
        ]
        train_missing(runs, train)

    def _recipe(self, network: str, seed: int) -> Recipe:
        original = override(find(f"{self.family}-{network}"), [f"seed={seed}"])
        recipe = override(original, self.settings)
        if recipe.model != original.model or recipe.seed != seed:
            raise InputError(
                "--set cannot change the network or the seed of an experiment; they come from --depths and "
                "--seeds"
            )
        return recipe


def train_missing(runs: Sequence[tuple[str, Path, R]], train: Callable[[R, Path, bool], object]) -> None:
    """Train those of a study's runs that are not complete, and go on with those that were begun.

    Args:
        runs: what each is called, its folder and its recipe.
        train: trains a recipe in a folder, resuming or not.

    Raises:
        InputError: when a folder holds another run; nothing is trained then.
        Interrupted: after SIGINT or SIGTERM; the same command goes on.
    """
    # All folders before any training: what does not fit is said at once, not after an hour.
    begun = [is_begun(path, recipe) for _, path, recipe in runs]
    missing = [
        (name, path, recipe, again)
        for (name, path, recipe), again in zip(runs, begun, strict=True)
        if not RunFolder(path).results_file.exists()
    ]
    console = Console(stderr=True)
    for number, (name, path, recipe, again) in enumerate(missing, start=1):
        of = f"run {number} of {len(missing)}" if len(missing) > 1 else "run"
        state = "going on with" if again else "training"
        console.print(f"{of}: {state} {name}, in {path}", highlight=False)
        try:
            train(recipe, path, again)
        except Interrupted as error:
            stopped = f"stopped in {path}; give the same command again to go on"
            raise Interrupted(stopped, error.signal) from None


def label_of(network: str) -> str:
    """Return a network's name in the paper's writing: "ResNet-20" for "resnet20", "ResNet-34 A"."""
    name, _, option = network.partition("-")
    for own, papers in (("plain", "plain-"), ("resnet", "ResNet-"), ("vgg", "VGG-")):
        name = name.replace(own, papers)
    return f"{name} {option.upper()}".strip()


def is_begun(path: Path, recipe: R) -> bool:
    """Say whether a folder holds a run already, which must be of this recipe."""
    begun = RunFolder(path).recipe_file.exists()
    try:
        RunFolder.check(path, recipe, begun, type(recipe))
    except InputError as error:
        raise InputError(f"{error} (another experiment: --out ANOTHER_FOLDER)") from None
    return begun


def read_finished(path: Path) -> Finished | None:
    """Return the complete run in a folder, None where there is none.

    Raises:
        InputError: when its files are damaged.
    """
    folder = RunFolder(path)
    if not folder.results_file.exists():
        return None
    metrics = read_metrics(folder.metrics_file)
    if not metrics:
        raise InputError(f"{folder.metrics_file}: there is nothing to draw; remove {path} to train again")
    return Finished(
        path,
        read(folder.recipe_file),
        read_json(folder.results_file),
        metrics,
        read_json(folder.environment_file),
    )


def check_alike(runs: Sequence[Departing]) -> None:
    """Raise an InputError when runs that are to be compared depart from the paper in different ways.

    Warm-ups are the networks' own, and so are the classifiers that detectors start from.
    """
    for other in runs[1:]:
        one, two = (
            "; ".join(change for change in run.departures if not change.startswith(OWN))
            for run in (runs[0], other)
        )
        if one != two:
            raise InputError(
                f"{runs[0].path} and {other.path} cannot be compared: against the paper's recipe the first "
                f"changes {one or 'nothing'}, the second {two or 'nothing'}; keep studies of different "
                "settings in different folders (--out)"
            )


def departures_of(runs: Iterable[Departing]) -> list[str]:
    """Return in what runs differ from the paper's recipes, each change once."""
    return list(dict.fromkeys(change for finished in runs for change in finished.departures))


def environments(runs: Iterable[Finished]) -> list[tuple[str, dict[str, Any]]]:
    """Return each session's environment once, with the networks trained in it."""
    networks: dict[str, list[str]] = {}
    for finished in runs:
        for session in finished.sessions:
            same = {k: v for k, v in session.items() if k not in ("started", "iteration", "data_dir")}
            labels = networks.setdefault(json.dumps(same), [])
            if finished.label not in labels:
                labels.append(finished.label)
    return [(", ".join(labels), json.loads(text)) for text, labels in networks.items()]
