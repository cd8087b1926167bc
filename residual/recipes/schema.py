"""The typed recipe: everything that decides a run's numbers, and nothing else.

Where the data lie, which device computes and where the run folder goes are the command's affair: they may
change between two halves of one run. Unknown keys are errors.
"""

import reprlib
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_serializer,
    model_validator,
)

from ..errors import InputError, nearest, plural
from ..files import parse_yaml


def at_most(most: float, why: str) -> AfterValidator:
    """Return the upper bound of a number, with the reason for it."""

    def check(value: Any) -> Any:
        if value is not None and value > most:
            raise ValueError(f"{short(value)} is more than {most:,}: {why}")
        return value

    return AfterValidator(check)


def short(value: object) -> str:
    """Return a value as it is written, as much of it as a sentence holds."""
    text = SHORT.repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


#: Aliases in YAML can make a list of a few bytes whose text fills a disk.
SHORT = reprlib.Repr()
SHORT.maxlevel, SHORT.maxstring = 3, 80


#: Bounds of numbers of one kind: what is beyond them would end in a lack of memory, or never.
Side = Annotated[int, at_most(8192, "images of such sides take more memory than there is")]
ShorterSide = Annotated[int, at_most(2**15, "images of such sides take more memory than there is")]
Images = Annotated[int, at_most(2**20, "a mini-batch is in memory as a whole")]
Iterations = Annotated[int, at_most(10**9, "at 100 a second that is four months")]
Rate = Annotated[float, at_most(1e6, "weights are numbers of float32, and a step of that size leaves them")]
Seed = Annotated[int, at_most(2**63 - 1, "a seed has 63 bits")]


class Part(BaseModel):
    """What every part of a recipe has in common: immutable, strict about types, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Model(Part):
    """The network, by its name in ``build_model``; a value of None leaves the network's own default."""

    #: "weights" stands for the network of the weights that the run starts from (--weights).
    name: str
    #: A weights folder to start from, for fine-tuning; the classifier starts anew where the classes differ.
    weights: str | None = None
    shortcut: Literal["A", "B", "C"] | None = None
    variant: Literal["v1", "v1.5"] | None = None
    #: The windows of max pooling: those of torchvision, or of the authors' files.
    pool: Literal["torchvision", "caffe"] | None = None
    #: What the gates' biases of a highway network begin at.
    gate_bias: float | None = Field(None, le=0)

    def options(self) -> dict[str, Any]:
        options = ("shortcut", "variant", "pool", "gate_bias")
        return {k: v for k in options if (v := getattr(self, k)) is not None}


class ClassifierModel(Model):
    """The network of a classifier's recipe."""

    #: Stages that stay as the weights have them, statistics included: 1 is conv1, 2 conv1 and conv2_x, ...
    freeze: int = Field(0, ge=0)
    #: Trained weights of a network whose hints this one (FitNet) learns from, named as ``weights``.
    teacher: str | None = None
    #: SHA-256 of a network of one's own (``name`` is FILE.py:FUNCTION), which the run notes as it begins.
    code: str | None = None


def following_sides(size: int) -> tuple[int, int]:
    """Return the range of shorter sides that is to a network's input as the paper's to 224."""
    return round(size * 256 / 224), round(size * 480 / 224)


class Folder(Part):
    """How images of any size, one folder a class, become the network's input (Section 3.4)."""

    #: Side of the square that the network sees.
    size: Side = Field(224, ge=8)
    #: "scale" (the paper): the shorter side is sampled in ``shorter_side`` and a square cropped anywhere;
    #: "resized": a rectangle of 8 to 100 % of the area is resized to the square, as is usual since.
    crop: Literal["scale", "resized"] = "scale"
    #: null: 256/224 and 480/224 of ``size``, so that a smaller network is shown as much of an image.
    shorter_side: tuple[ShorterSide, ShorterSide] = (256, 480)
    #: Deviation of the colour augmentation's draws along RGB's principal components [21]; 0: none.
    colour_noise: Annotated[float, at_most(100, "the paper has 0.1")] = Field(0.1, ge=0)
    #: An image that cannot be read is skipped, named and counted, or ends the run.
    damaged: Literal["skip", "fatal"] = "skip"

    @model_validator(mode="before")
    @classmethod
    def _pair(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        side, size = value.get("shorter_side"), value.get("size", 224)
        if isinstance(side, list):
            return value | {"shorter_side": tuple(side)}
        if side is None and type(size) is int:
            return value | {"shorter_side": following_sides(size)}
        return value

    @field_serializer("shorter_side")
    def _follows(self, side: tuple[int, int]) -> tuple[int, int] | None:
        """Write what follows the size as null: it is to follow a size that is set later as well."""
        return None if side == following_sides(self.size) else side

    @model_validator(mode="after")
    def _room_for_the_crop(self) -> "Folder":
        low, high = self.shorter_side
        if self.crop == "scale" and not self.size <= low <= high:
            raise ValueError(
                f"shorter_side {[low, high]} is not a range of sides that hold a crop of size {self.size}"
            )
        return self


class Data(Part):
    """The dataset, its split, and the augmentation of the training split."""

    dataset: Literal["cifar10", "digits", "folder"]
    #: Images held out of the training split for choosing: their number, or a share below 1 of each class,
    #: which is how a folder without a validation split is divided. The paper chose its schedule on 45k/5k and
    #: then trained the reported networks on all 50k, which is 0 here.
    validation: int | float = Field(0, ge=0)
    #: Seed of that split; apart from ``seed`` so that several runs share one split.
    split_seed: Seed = Field(0, ge=0)
    #: Draw all classes equally often in training, however many images each has; an epoch is as long as ever.
    balanced: bool = False
    #: What is subtracted: the mean image (the paper), the channels' means, or "weights": what the weights
    #: that the run starts from were trained with, their deviation too.
    mean: Literal["per-pixel", "per-channel", "weights"] = "per-pixel"
    #: Whether to divide by the channels' deviations; the paper does not.
    std: bool = False
    #: Pixels padded on each side before the random crop (0: no crop), after the mean is subtracted, so that
    #: the padding is zero in the network's input.
    pad: Annotated[int, at_most(1024, "padded images are in memory")] = Field(4, ge=0)
    flip: bool = True
    #: Only for the dataset "folder", instead of ``pad``.
    folder: Folder | None = None

    @model_validator(mode="after")
    def _folder_for_a_folder(self) -> "Data":
        if (self.dataset == "folder") != (self.folder is not None):
            raise ValueError("data.folder is for the dataset folder, and that one needs it")
        if isinstance(self.validation, float) and not 0 < self.validation < 1:
            raise ValueError(
                f"validation {self.validation} is no share between 0 and 1 and no whole number of images"
            )
        if self.folder and self.validation and isinstance(self.validation, int):
            raise ValueError(
                f"data.validation={self.validation} is {plural(self.validation, 'image')}, and of a folder a "
                "share of each class is held out; write a share, as data.validation=0.2"
            )
        return self


class MiniBatch(Part):
    """The mini-batch over all processes; each kind of recipe says more of it."""

    size: Images = Field(1, ge=1)


class Batch(MiniBatch):
    """How many images make up the mini-batch, and how many share their BN statistics."""

    size: Images = Field(128, ge=2)
    #: 128 images on two GPUs: each GPU normalises by the statistics of its own 64 (Section 4.2).
    bn_group: Images = Field(64, ge=2)

    @model_validator(mode="after")
    def _whole_groups(self) -> "Batch":
        if self.size % min(self.size, self.bn_group):
            # The largest groups that divide it, no larger than those of the recipe where there are such.
            fitting = next((n for n in range(self.bn_group, 1, -1) if self.size % n == 0), self.size)
            raise ValueError(
                f"size {self.size} cannot be divided into groups of {self.bn_group} images, which share "
                f"their BN statistics; write a multiple of {self.bn_group}, or batch.bn_group={fitting} too"
            )
        return self


class Optimizer(Part):
    """SGD with momentum; weight decay applies to all learned parameters."""

    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: Rate = Field(1e-4, ge=0)
    #: "paper" (Caffe): v = m*v + lr*g, w = w - v. "pytorch": v = m*v + g, w = w - lr*v. They differ for some
    #: iterations after each change of the learning rate.
    form: Literal["paper", "pytorch"] = "paper"


class Warmup(Part):
    """Another learning rate for the first iterations."""

    learning_rate: Rate = Field(0.01, gt=0)
    #: "constant" (the paper), or "linear": from there the rate rises to the schedule's; in a run of less than
    #: ten times as many iterations within its first tenth.
    shape: Literal["constant", "linear"] = "constant"
    #: Section 4.2 warms up "until the training error is below 80% (about 400 iterations)". We take the
    #: 400: the learning rate stays a pure function of the iteration, the same in every run and rank.
    iterations: Iterations = Field(400, ge=1)


class Plateau(Part):
    """Section 3.4: the rate is "divided by 10 when the error plateaus", of the validation split here."""

    #: Evaluations in a row without a lower error than before.
    patience: Iterations = Field(5, ge=1)
    #: What counts as lower, in percentage points.
    least: Annotated[float, at_most(100, "errors are percentages")] = Field(0.1, ge=0)
    #: How many times the rate is divided at most.
    drops: Annotated[int, at_most(30, "a rate that is divided more often is 0 in float32")] = Field(3, ge=1)


def check_drops(name: str, drops: tuple[float, ...]) -> None:
    """Raise a ValueError where they are no fractions of a run, one after the other."""
    if list(drops) != sorted(set(drops)) or not all(0 < drop < 1 for drop in drops):
        raise ValueError(f"{name} are increasing fractions of the run, each between 0 and 1")


class Schedule(Part):
    """The learning rate as a function of the iteration, and the length of the run."""

    iterations: Iterations = Field(64_000, ge=1)
    #: The length in epochs instead, for a dataset whose size the recipe does not know.
    epochs: Annotated[int, at_most(10**6, "no run is that long")] | None = Field(None, ge=1)
    learning_rate: Rate = Field(0.1, gt=0)
    #: Fractions of the run after which the learning rate is divided by 10: 32k and 48k of 64k. Fractions, so
    #: that a shortened run has its drops in the same places.
    drops: tuple[float, ...] = (0.5, 0.75)
    warmup: Warmup | None = None
    #: Drops by the validation error, besides those at ``drops``.
    plateau: Plateau | None = None

    @model_validator(mode="before")
    @classmethod
    def _lists_are_tuples(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("drops"), list):
            return value | {"drops": tuple(float(v) if isinstance(v, int) else v for v in value["drops"])}
        return value

    @model_validator(mode="after")
    def _in_order(self) -> "Schedule":
        check_drops("drops", self.drops)
        if self.epochs is None and self.too_long_a_warmup(self.iterations):
            assert self.warmup is not None
            raise ValueError(
                f"warmup.iterations ({self.warmup.iterations}) is not shorter than iterations "
                f"({self.iterations}); set schedule.warmup.iterations or schedule.warmup=null"
            )
        return self

    def too_long_a_warmup(self, iterations: int) -> bool:
        """Whether a run of so many iterations would have no other rate than its warm-up's."""
        warmup = self.warmup
        return warmup is not None and warmup.shape == "constant" and warmup.iterations >= iterations


class TrainingRecipe(Part):
    """What every kind of recipe has: classification's here, detection's in detection.py."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$", max_length=100)
    description: str = ""
    batch: MiniBatch = MiniBatch()
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    #: Arithmetic of convolutions and products on a GPU: "tf32" is float32 with shortened factors (PyTorch's
    #: own default for convolutions), "bfloat16" autocasts. Weights, BN statistics and the update are float32
    #: in all three, and on a CPU "tf32" is float32.
    precision: Literal["float32", "tf32", "bfloat16"] = "tf32"
    #: Iterations between two evaluations (a point of the curves); None: ``evaluate_epochs``.
    evaluate_every: Iterations | None = Field(None, ge=1)
    #: Epochs between two evaluations.
    evaluate_epochs: Annotated[int, at_most(10**6, "no run is that long")] = Field(1, ge=1)
    #: Iterations between two checkpoints; a checkpoint is also written on SIGINT, SIGTERM and SIGHUP.
    checkpoint_every: Iterations = Field(1000, ge=1)
    seed: Seed = Field(0, ge=0)

    def to_yaml(self) -> str:
        """Return the recipe as YAML: its name, what is its kind's own, and what all kinds have."""
        value = self.model_dump(mode="json")
        own = [key for key in value if key not in TrainingRecipe.model_fields]
        ordered = {key: value[key] for key in dict.fromkeys(["name", "description", *own, *value])}
        return yaml.safe_dump(ordered, sort_keys=False, allow_unicode=True)


class Recipe(TrainingRecipe):
    """One training run of a classifier."""

    model: ClassifierModel
    data: Data
    batch: Batch = Batch()


#: How many faults of a recipe a sentence names.
SAID = 5

R = TypeVar("R", bound=TrainingRecipe)

#: Keys that have a short form, as an option of ``train`` and in Python.
SHORT_FORMS = {"epochs": "schedule.epochs", "lr": "schedule.learning_rate", "batch": "batch.size"}
#: ... and keys that say the same in another way, of which one would not be read.
OTHERWISE = {"epochs": "schedule.iterations"}
#: What keys are called elsewhere.
ELSEWHERE = SHORT_FORMS | {
    "batch_size": "batch.size",
    "bs": "batch.size",
    "wd": "optimizer.weight_decay",
    "model": "model.name",
    "dataset": "data.dataset",
    "size": "data.folder.size",
}


def parse(value: Any, source: str, kind: type[R], settings: Sequence[str] = ()) -> R:
    """Return the recipe that plain data describe.

    Args:
        kind: of recipe.
        settings: as of ``override``, in place of the source: of a fault those are named that it is about.

    Raises:
        InputError: naming ``source``, the key and what is wrong with its value.
    """
    if value is None:
        raise InputError(f"{source} is empty; residual recipes NAME prints a recipe to start from")
    if not isinstance(value, dict):
        raise InputError(f"{source}: a recipe is a mapping of keys to values, not {type(value).__name__}")
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        # Of a value that is of neither of two types the last is told: a number holds whole ones too.
        faults = list({_key(fault): fault for fault in error.errors(include_url=False)}.values())
        more = [f"and {len(faults) - SAID} more"] if len(faults) > SAID else []
        said = [*(_sentence(fault, kind) for fault in faults[:SAID]), *more]
        if settings:
            about = [s for s in settings if any(_related(_key_of(s), _key(fault)) for fault in faults)]
            source = f"--set {' '.join(about or settings)}"
        raise InputError(f"{source}: {'; '.join(said)}") from None


def _key_of(setting: str) -> str:
    return setting.partition("=")[0].strip()


def _related(key: str, other: str) -> bool:
    """Whether two keys are the same, or one is a part of the other."""
    return f"{key}.".startswith(f"{other}.") or f"{other}.".startswith(f"{key}.")


def override(recipe: R, settings: list[str]) -> R:
    """Return the recipe with ``key.subkey=value`` settings applied, values written as in YAML."""
    value = recipe.model_dump(mode="json")
    named = {_key_of(setting) for setting in settings}
    # Who says the one does not want the recipe's other.
    if "schedule.iterations" in named and "schedule.epochs" not in named:
        value["schedule"]["epochs"] = None
    if "evaluate_epochs" in named and "evaluate_every" not in named:
        value["evaluate_every"] = None
    quoted: list[tuple[dict[str, Any], str, float]] = []
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise InputError(f"--set {setting}: write it as key=value, for example schedule.iterations=2000")
        *parents, last = key.strip().split(".")
        part: Any = value
        if key.strip() not in (keys := _keys(type(recipe))):
            raise InputError(f"--set {setting}: there is no key {key!r}{_meant(key, keys)}")
        for parent in parents:
            # A part that is off (a warm-up, say) is switched on by setting a key of it.
            part[parent] = part.get(parent) or {}
            part = part[parent]
        part[last] = parse_yaml(text, lambda _: InputError(f"--set {setting}: {text!r} is not a YAML value"))  # noqa: B023
        # YAML 1.1 reads 1e-3 (no dot) as text.
        if isinstance(part[last], str) and (number := _number(part[last])) is not None:
            if part[last] == text.strip():
                part[last] = number
            else:
                quoted.append((part, last, number))
    if not settings:
        return recipe
    changed = _parsed(value, quoted, settings, type(recipe))
    if (changes := differences(recipe, changed)) and "description" not in named:
        changed = changed.model_copy(update={"description": f"{recipe.name} with {'; '.join(changes)}"})
    return changed


def _parsed(
    value: dict[str, Any],
    quoted: Sequence[tuple[dict[str, Any], str, float]],
    settings: Sequence[str],
    kind: type[R],
) -> R:
    """Return the recipe of plain data; what was written in quotes is a text first, and then a number."""
    if quoted:
        try:
            return parse(value, "", kind, settings)
        except InputError:
            for part, last, number in quoted:
                part[last] = number
    return parse(value, "", kind, settings)


def differences(old: BaseModel, new: BaseModel) -> list[str]:
    """Return what changed between two recipes, as ``key: old -> new``; descriptions decide nothing."""
    before, after = settings_of(old), settings_of(new)
    return [
        f"{key}: {before.get(key)} -> {after.get(key)}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]


def settings_of(recipe: BaseModel) -> dict[str, Any]:
    """Return every value of a recipe by its dotted key; descriptions decide nothing."""
    return _flatten(recipe.model_dump(mode="json", exclude={"description"}))


def _flatten(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat |= _flatten(item, f"{prefix}{key}.") if isinstance(item, dict) else {prefix + key: item}
    return flat


def _keys(part: type[BaseModel], prefix: str = "") -> list[str]:
    """Return every dotted key that a recipe can have."""
    keys: list[str] = []
    for name, field in part.model_fields.items():
        keys.append(prefix + name)
        # A part that can be off is annotated as "Warmup | None".
        for annotation in (field.annotation, *get_args(field.annotation)):
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                keys += _keys(annotation, f"{prefix}{name}.")
    return keys


def _meant(key: str, keys: list[str]) -> str:
    """Return which key was meant: the one of that name elsewhere, the one that ends so, or the nearest."""
    last = key.rpartition(".")[2]
    if (known := ELSEWHERE.get(last)) in keys:
        return f"; did you mean {known}?"
    ends = [name for name in keys if name.rpartition(".")[2] == last]
    return f"; did you mean {' or '.join(ends)}?" if ends else nearest(key, keys)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


#: What to write in place of a value that is wrong, by the kind of the fault; the rest is its context.
WRITE = {
    "int_type": "write a whole number",
    "float_type": "write a number",
    "finite_number": "write a finite number",
    "bool_type": "write true or false",
    "string_type": "write a name",
    "tuple_type": "write a list in brackets, as [first, second]",
    "literal_error": "write {expected}",
    "greater_than_equal": "write {ge:g} or more",
    "greater_than": "write more than {gt:g}",
    "less_than_equal": "write {le:g} or less",
    "less_than": "write less than {lt:g}",
}


def _key(error: Any) -> str:
    """Return the key that a fault is at, without the type that a value of several types is not of."""
    parts = [str(part) for part in error["loc"]]
    return ".".join(parts[:-1] if parts[-1:] in (["int"], ["float"]) else parts)


def _sentence(error: Any, kind: type[BaseModel]) -> str:
    key = _key(error)
    if error["type"] == "extra_forbidden":
        return f"there is no key {key!r}{_meant(key, _keys(kind))}"
    message = error["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    if error["type"] == "model_type" or error["type"] == "model_attributes_type":
        return f"{key} has keys of its own; set one of those, as {_first_key(key, kind)}"
    if error["type"] in WRITE:
        message = WRITE[error["type"]].format(**error.get("ctx", {}))
    if error["type"] in ("value_error", "missing"):
        return f"{key}: {message}" if key else message
    return f"{key} = {short(error['input'])}: {message}"


def _first_key(part: str, kind: type[BaseModel]) -> str:
    return next(key for key in _keys(kind) if key.startswith(f"{part}."))
