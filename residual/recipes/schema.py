"""The typed recipe: everything that decides a run's numbers, and nothing else.

Where the data lie, which device computes and where the run folder goes are the command's affair: they may
change between two halves of one run. Unknown keys are errors.
"""

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..errors import InputError, nearest


class Part(BaseModel):
    """What every part of a recipe has in common: immutable, strict about types, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Model(Part):
    """The network, by its name in ``build_model``; a value of None leaves the network's own default."""

    name: str
    shortcut: Literal["A", "B", "C"] | None = None
    variant: Literal["v1", "v1.5"] | None = None

    def options(self) -> dict[str, str]:
        return {k: v for k in ("shortcut", "variant") if (v := getattr(self, k)) is not None}


class Data(Part):
    """The data set, its split, and the augmentation of the training part."""

    dataset: Literal["cifar10", "digits"]
    #: Pictures held out of the training part for choosing. The paper chose its schedule on 45k/5k and then
    #: trained the reported networks on all 50k, which is 0 here.
    validation: int = Field(0, ge=0)
    #: Seed of that split; apart from ``seed`` so that several runs share one split.
    split_seed: int = Field(0, ge=0)
    mean: Literal["per-pixel", "per-channel"] = "per-pixel"
    #: Pixels padded on each side before the random crop (0: no crop), after the mean is subtracted, so that
    #: the padding is zero in the network's input.
    pad: int = Field(4, ge=0)
    flip: bool = True


class Batch(Part):
    """The mini-batch over all processes, and how many pictures share their BN statistics."""

    size: int = Field(128, ge=2)
    #: 128 pictures on two GPUs: each GPU normalises by the statistics of its own 64 (Section 4.2).
    bn_group: int = Field(64, ge=2)

    @model_validator(mode="after")
    def _whole_groups(self) -> "Batch":
        if self.size % min(self.size, self.bn_group):
            raise ValueError(
                f"size {self.size} is not a multiple of bn_group {self.bn_group}; set batch.bn_group as well"
            )
        return self


class Optimizer(Part):
    """SGD with momentum; weight decay applies to all learned parameters."""

    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(1e-4, ge=0)
    #: "paper" (Caffe): v = m*v + lr*g, w = w - v. "pytorch": v = m*v + g, w = w - lr*v. They differ for some
    #: iterations after each change of the learning rate.
    form: Literal["paper", "pytorch"] = "paper"


class Warmup(Part):
    """A constant learning rate for the first iterations."""

    learning_rate: float = Field(0.01, gt=0)
    #: Section 4.2 warms up "until the training error is below 80% (about 400 iterations)". We take the
    #: 400: the learning rate stays a pure function of the iteration, the same in every run and rank.
    iterations: int = Field(400, ge=1)


class Schedule(Part):
    """The learning rate as a function of the iteration, and the length of the run."""

    iterations: int = Field(64_000, ge=1)
    learning_rate: float = Field(0.1, gt=0)
    #: Fractions of the run after which the learning rate is divided by 10: 32k and 48k of 64k. Fractions, so
    #: that a shortened run has its drops in the same places.
    drops: tuple[float, ...] = (0.5, 0.75)
    warmup: Warmup | None = None

    @model_validator(mode="before")
    @classmethod
    def _lists_are_tuples(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("drops"), list):
            return value | {"drops": tuple(float(v) if isinstance(v, int) else v for v in value["drops"])}
        return value

    @model_validator(mode="after")
    def _in_order(self) -> "Schedule":
        if list(self.drops) != sorted(set(self.drops)) or not all(0 < d < 1 for d in self.drops):
            raise ValueError("drops are increasing fractions of the run, each between 0 and 1")
        if self.warmup and self.warmup.iterations >= self.iterations:
            raise ValueError(
                f"warmup.iterations ({self.warmup.iterations}) is not shorter than iterations "
                f"({self.iterations}); set schedule.warmup.iterations or schedule.warmup=null"
            )
        return self


class Recipe(Part):
    """One training run."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")
    description: str = ""
    model: Model
    data: Data
    batch: Batch = Batch()
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    #: Arithmetic of convolutions and products on a GPU: "tf32" is float32 with shortened factors (PyTorch's
    #: own default for convolutions), "bfloat16" autocasts. Weights, BN statistics and the update are float32
    #: in all three, and on a CPU "tf32" is float32.
    precision: Literal["float32", "tf32", "bfloat16"] = "tf32"
    #: Iterations between two evaluations (a point of the error curves); None: once an epoch.
    evaluate_every: int | None = Field(None, ge=1)
    #: Iterations between two checkpoints; a checkpoint is also written on SIGINT and SIGTERM.
    checkpoint_every: int = Field(1000, ge=1)
    seed: int = Field(0, ge=0)

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def parse(value: Any, source: str) -> Recipe:
    """Return the recipe that plain data describe.

    Raises:
        InputError: naming ``source``, the key and what is wrong with its value.
    """
    if value is None:
        raise InputError(f"{source} is empty; residual recipes NAME prints a recipe to start from")
    if not isinstance(value, dict):
        raise InputError(f"{source}: a recipe is a mapping of keys to values, not {type(value).__name__}")
    try:
        return Recipe.model_validate(value)
    except ValidationError as error:
        raise InputError(f"{source}: " + "; ".join(_sentence(e) for e in error.errors())) from None


def read(path: Path) -> Recipe:
    """Return the recipe in a YAML file."""
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot read the recipe: {error}") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    return parse(value, str(path))


def override(recipe: Recipe, settings: list[str]) -> Recipe:
    """Return the recipe with ``key.subkey=value`` settings applied, values written as in YAML."""
    value = recipe.model_dump(mode="json")
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise InputError(f"--set {setting}: write it as key=value, for example schedule.iterations=2000")
        *parents, last = key.strip().split(".")
        part: Any = value
        for parent in parents:
            if parent == "warmup" and isinstance(part, dict) and part.get(parent) is None:
                part[parent] = {}
            part = part.get(parent) if isinstance(part, dict) else None
        if not isinstance(part, dict) or (last not in part and last not in Warmup.model_fields):
            raise InputError(f"--set {setting}: there is no key {key!r}{nearest(key, _keys())}")
        try:
            part[last] = yaml.safe_load(text)
        except yaml.YAMLError:
            raise InputError(f"--set {setting}: {text!r} is not a YAML value") from None
        # YAML 1.1 reads 1e-3 (no dot) as text.
        if isinstance(part[last], str) and (number := _number(part[last])) is not None:
            part[last] = number
    if not settings:
        return recipe
    changed = parse(value, "--set " + " ".join(settings))
    if changes := differences(recipe, changed):
        changed = changed.model_copy(update={"description": f"{recipe.name} with {'; '.join(changes)}"})
    return changed


def differences(old: Recipe, new: Recipe) -> list[str]:
    """Return what changed between two recipes, as ``key: old -> new``; descriptions decide nothing."""
    before, after = (_flatten(r.model_dump(mode="json", exclude={"description"})) for r in (old, new))
    return [
        f"{key}: {before.get(key)} -> {after.get(key)}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]


def _flatten(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat |= _flatten(item, f"{prefix}{key}.") if isinstance(item, dict) else {prefix + key: item}
    return flat


def _keys(part: type[BaseModel] = Recipe, prefix: str = "") -> list[str]:
    """Return every dotted key that a recipe can have."""
    keys: list[str] = []
    for name, field in part.model_fields.items():
        keys.append(prefix + name)
        annotation = Warmup if name == "warmup" else field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            keys += _keys(annotation, f"{prefix}{name}.")
    return keys


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _sentence(error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"there is no key {key!r}{nearest(key, _keys())}"
    message = error["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    if error["type"] == "model_type" or error["type"] == "model_attributes_type":
        return f"{key} has keys of its own; set one of those, as {_first_key(key)}"
    if error["type"] == "tuple_type":
        return f"{key} = {error['input']!r}: write a list, as [0.5, 0.75]"
    if error["type"] in ("value_error", "missing"):
        return f"{key}: {message}" if key else message
    return f"{key} = {error['input']!r}: {message}"


def _first_key(part: str) -> str:
    return next(key for key in _keys() if key.startswith(f"{part}."))
