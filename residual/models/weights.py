"""Weights on disk: a folder that says which network it is for and how images are prepared for it.

model.safetensors           the network's tensors, under torchvision's names
config.json                 network, classes, preprocessing, and the recipe and results they come from
preprocessing.safetensors   the mean image, ``mean`` (C, H, W), where the mean is one
network.py                  of a user's own network, its code: it runs only where that was asked for (own.py)

Nothing is ever overwritten, and a folder is written whole or not at all.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, PositiveInt, model_validator
from safetensors.torch import save
from torch import Tensor

from ..class_names import ClassName, class_name, first_twice
from ..errors import InputError
from ..files import (
    as_json,
    check_file,
    check_new,
    checked,
    damaged,
    read_json,
    refuse_existing,
    written_whole,
)
from . import build_model
from .caffe import VGG_MEAN, read_caffemodel, read_mean
from .classifier import Classifier
from .foreign import check_variant, choose_preprocessing, outline, own_names, visible_options
from .layout import (
    CODE_FILE,
    CONFIG_FILE,
    MODEL_FILE,
    PREPROCESSING_FILE,
    RECIPE_FILE,
    held_in,
    refuse_unfinished,
)
from .names import check, folder_of, is_name
from .own import OwnNetwork, check_trusted, is_own, split_name, trust, without_place
from .preprocessing import Preprocessing
from .statedict import load_state, read_foreign_state, read_state, with_memory, write_state

FORMAT = "residual weights"
DETECTOR_FORMAT = "residual detector"
LOCALIZER_FORMAT = "residual localizer"
VERSION = 1


class Kind(NamedTuple):
    """What a folder of weights holds, and the commands that train and use it."""

    name: str
    train: str
    use: str


#: Kinds by their format, all of them: each is told from the others, and from something foreign.
KINDS = {
    FORMAT: Kind("classifier", "residual train", "residual evaluate or residual predict"),
    DETECTOR_FORMAT: Kind(
        "detector", "residual detect train", "residual detect evaluate or residual detect predict"
    ),
    LOCALIZER_FORMAT: Kind(
        "localizer", "residual locate train", "residual locate evaluate or residual locate predict"
    ),
}

#: What to do about a damaged file of a weights folder.
ANEW = "get the folder anew"

C = TypeVar("C", bound=BaseModel)


@dataclass
class Weights:
    """What a weights folder holds.

    Attributes:
        model: on the CPU, in evaluation mode.
        preprocessing: from uint8 images to the model's input.
        classes: the names of the model's K classes.
        config: the content of config.json.
    """

    model: Classifier
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    config: dict[str, Any]


class Checked(BaseModel):
    """A part of config.json: strict about types; unknown keys are other programs' affair."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class ModelConfig(Checked):
    """The arguments of ``build_model``."""

    name: str
    options: dict[str, Any]
    classes: int


class PreprocessingConfig(Checked):
    """In units of [0, 1]; ``size``: (C, H, W) of a mean image; ``source``: whose numbers they are."""

    mean: Literal["per-pixel"] | list[float]
    std: list[float]
    size: list[int] | None
    source: str | None


class ViewConfig(Checked):
    """What of an image the network is shown: a square of side ``crop``, cut from shorter side ``side``."""

    crop: PositiveInt
    side: PositiveInt


class StoredFolder(Checked):
    """What is read of ``data.folder`` in the recipe of trained weights."""

    size: PositiveInt


class StoredData(Checked):
    """... and of ``data``."""

    dataset: str | None = None
    folder: StoredFolder | None = None
    validation: float = 0.0
    split_seed: int = 0


class StoredRecipe(Checked):
    """... and of all of it."""

    data: StoredData | None = None


class WeightsConfig(Checked):
    """The content of config.json."""

    format: str = FORMAT
    version: int = VERSION
    model: ModelConfig
    classes: list[ClassName]
    preprocessing: PreprocessingConfig
    #: Of published weights; those of a run follow its recipe.
    view: ViewConfig | None = None
    #: Of published weights: their name, and where they are from.
    origin: dict[str, str] | None = None
    recipe: dict[str, Any] | None = None
    results: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _names_every_class(self) -> "WeightsConfig":
        if len(self.classes) != self.model.classes:
            raise ValueError(f"{len(self.classes)} names for a classifier of {self.model.classes} classes")
        return self


def save_weights(
    folder: Path,
    model: Classifier,
    *,
    name: str,
    options: dict[str, Any],
    preprocessing: Preprocessing,
    classes: Sequence[str],
    recipe: dict[str, Any] | None = None,
    results: dict[str, Any] | None = None,
) -> None:
    """Write a weights folder, and its parents where they are missing.

    Args:
        folder: where nothing is yet.
        model: on any device, in any memory format.
        name, options: ``build_model(name, classes=len(classes), **options)`` builds the model.
        preprocessing: what the model was trained with.
        classes: the names of its K classes.
        recipe, results: where the weights come from and how good they are, as plain data.

    Raises:
        InputError: when ``folder`` exists or cannot be written, the classes are not K different names, or
            what is said of the model would build, or prepare images for, another one.
    """
    config = _describe(model, name, options, preprocessing, classes)
    # A folder that cannot be read again would be noticed too late.
    if len(preprocessing.mean) != model.in_channels:
        raise InputError(
            f"the preprocessing is for {len(preprocessing.mean)} channels and the network takes "
            f"{model.in_channels}"
        )
    if not isinstance(model, OwnNetwork):
        built = outline(name, **options | {"classes": model.classes})
        own, theirs = ({n: t.shape for n, t in each.state_dict().items()} for each in (model, built))
        if own != theirs:
            raise InputError(f"{name} with the options {options} is another network; give this one's options")
    _write(folder, model, preprocessing, config | {"recipe": recipe, "results": results})


def weights_in(folder: Path) -> Path:
    """Return the one folder that weights are read from, whatever they were named by.

    Args:
        folder: a weights folder, a run folder that holds one, or a name of published weights (names.py),
            which are fetched if the cache has not got them.

    Raises:
        InputError: when there is none of these, or they cannot be fetched.
    """
    check(folder)
    if is_name(folder):
        return folder_of(folder, import_weights)
    inner = folder / "weights"
    return inner if not (folder / CONFIG_FILE).exists() and inner.is_dir() else folder


def load_weights(folder: Path) -> Weights:
    """Read a weights folder, the one in a run folder, or published weights by their name.

    Raises:
        InputError: when there is none, it cannot be fetched, a file is damaged or newer, or the files do not
            fit each other.
    """
    folder, config, content = _read_config(folder)
    options = config.model.options | {"classes": config.model.classes}
    if is_own(config.model.name):
        # Whatever the folder says, the code is the copy in it; another file is never run.
        own = f"{folder.resolve() / CODE_FILE}:{split_name(config.model.name)[1]}"
        check_trusted(own, folder)
        model: Classifier = build_model(own, **options)
        content["model"]["name"] = own
    else:
        try:
            model = outline(config.model.name, **options)
        except InputError as error:
            raise InputError(f"{folder / CONFIG_FILE}: {error}") from None
        with_memory(model)
    load_state(model, read_state(folder / MODEL_FILE), str(folder / MODEL_FILE))
    preprocessing = _read_preprocessing(folder, config.preprocessing, model.in_channels)
    return Weights(model.eval(), preprocessing, tuple(config.classes), content)


def trust_weights(folder: Path) -> Path:
    """Let the code of a network of somebody's own run from now on, and return its file; read it before.

    Raises:
        InputError: when there is no weights folder, or no code in it.
    """
    folder, config, _ = _read_config(folder)
    if not is_own(config.model.name):
        raise InputError(f"{folder} has a {config.model.name}: there is no code in it to be trusted")
    trust(f"{folder.resolve() / CODE_FILE}:{split_name(config.model.name)[1]}")
    return folder / CODE_FILE


def import_weights(
    file: Path,
    name: str,
    out: Path,
    *,
    variant: str | None = None,
    shortcut: str | None = None,
    classes: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    view: tuple[int, int] | None = None,
    origin: dict[str, str] | None = None,
) -> Weights:
    """Make a weights folder of a state dict of torchvision, timm or a public CIFAR-10 ResNet.

    Args:
        file: .safetensors, or of ``torch.save``; no code in it is executed.
        name: the network's in ``build_model``. A plain network and one of option A have the same tensors:
            the name decides.
        out: the folder to write, where nothing is yet.
        variant: "v1" or "v1.5", for bottleneck networks and only for them: their tensors do not differ.
        shortcut: "A", "B" or "C", to insist on it; the tensors show which it is.
        classes: names of the K classes; "0" to "K-1" by default.
        mean, std: one number a channel, in units of [0, 1]. For ImageNet networks torchvision's by default,
            as ``config["preprocessing"]["source"]`` says then.
        view: side of the square that the network is shown, and shorter side of the image that it is cut from.
        origin: the name of published weights, and where they are from.

    Raises:
        InputError: when the file cannot be read or is not of this network, or an argument does not fit it.
    """
    check_file(file)
    refuse_existing(out)
    asked = {k: v for k, v in {"variant": variant, "shortcut": shortcut}.items() if v is not None}
    network = outline(name, **asked)
    check_variant(name, network, variant)
    state = own_names(read_foreign_state(file), type(network))
    found = visible_options(state, name, network)
    if shortcut is not None and found.get("shortcut", shortcut) != shortcut:
        raise InputError(f"{file} has shortcuts of option {found['shortcut']}, not {shortcut}; leave it out")
    options = found | asked
    model = with_memory(outline(name, **options))
    load_state(model, state, str(file))
    del options["classes"]
    preprocessing, source = choose_preprocessing(model, mean, std)
    classes = [str(k) for k in range(model.classes)] if classes is None else classes
    config = _describe(model, name, options, preprocessing, classes, source)
    config["view"] = view and ViewConfig(crop=view[0], side=view[1]).model_dump()
    config["origin"] = origin
    _write(out, model, preprocessing, config)
    return Weights(model.eval(), preprocessing, tuple(config["classes"]), config)


def import_caffe(
    file: Path,
    out: Path,
    *,
    name: str | None = None,
    mean: Path | Sequence[float] | None = None,
    classes: Sequence[str] | None = None,
) -> Weights:
    """Make a weights folder of one of the authors' released models: ResNet-50, -101, -152, VGG-16 or -19.

    The network gets max pooling as in Caffe, ResNets the stride on a bottleneck's first 1x1; BN and Scale are
    one layer here, channels are red first, pixels from 0 to 1.

    Args:
        file: .caffemodel; no code in it is executed.
        out: the folder to write, where nothing is yet.
        name: the network's in ``build_model``, to insist on it; the layers show which it is.
        mean: the mean image, .binaryproto, or a number a channel, red first, in units of [0, 1]. For VGG its
            authors' by default.
        classes: names of the K classes; "0" to "K-1" by default.

    Raises:
        InputError: when a file cannot be read or is not of these networks, or an argument does not fit.
    """
    refuse_existing(out)
    network = read_caffemodel(file)
    if name not in (None, network.name):
        raise InputError(f"{file} is a {network.name} and no {name}; leave the network out")
    options = visible_options(network.state, network.name, outline(network.name)) | {"pool": "caffe"}
    if network.name.startswith("resnet"):
        options["variant"] = "v1"
    model = with_memory(outline(network.name, **options))
    load_state(model, network.state, str(file))
    del options["classes"]
    if isinstance(mean, Path):
        preprocessing, source = Preprocessing(read_mean(mean)), "the mean image given"
        if preprocessing.mean.shape[0] != model.in_channels:
            raise InputError(
                f"{mean} has {preprocessing.mean.shape[0]} channels and {file} {model.in_channels}; name the "
                "mean image that belongs to the network"
            )
    elif mean is not None:
        preprocessing, source = choose_preprocessing(model, mean, [1.0] * model.in_channels)
    elif network.name.startswith("vgg"):
        preprocessing = Preprocessing(torch.tensor(VGG_MEAN) / 255)
        source = "the mean pixel that VGG was published with"
    else:
        raise InputError(
            f"{file} needs its mean image: --mean ResNet_mean.binaryproto (it is released beside the models)"
        )
    classes = [str(k) for k in range(model.classes)] if classes is None else classes
    config = _describe(model, network.name, options, preprocessing, classes, source)
    _write(out, model, preprocessing, config)
    return Weights(model.eval(), preprocessing, tuple(config["classes"]), config)


def check_state_file(file: Path) -> None:
    """Raise an InputError unless ``export_weights`` can write this file: before work is lost."""
    check_new(file, "a state dict", ".safetensors", ".pth", ".pt")


def export_weights(weights: Weights, file: Path) -> None:
    """Write the network's state dict under torchvision's names, which for CIFAR networks are the public ones.

    That of a user's own network has the names of the user's module.

    Args:
        file: .safetensors; .pth or .pt for ``torch.save``.

    Raises:
        InputError: when ``file`` exists, has another suffix or cannot be written.
    """
    check_state_file(file)
    model = weights.model
    with written_whole(file) as temporary:
        write_state(model.network if isinstance(model, OwnNetwork) else model, temporary)


def _describe(
    model: Classifier,
    name: str,
    options: dict[str, Any],
    preprocessing: Preprocessing,
    classes: Sequence[str],
    source: str | None = None,
) -> dict[str, Any]:
    """Return the content of config.json; ``source`` says whose numbers the preprocessing has."""
    if len(classes) != model.classes:
        raise InputError(f"{len(classes)} names are given for {model.classes} classes; name each class once")
    if wrong := [name for name in classes if not isinstance(name, str)]:
        raise InputError(f"the name of a class is a text, not {wrong[0]!r}")
    if twice := first_twice(map(class_name, classes)):
        raise InputError(f"two of the classes are called {twice!r}; give each class a name of its own")
    per_pixel = preprocessing.per_pixel
    if isinstance(model, OwnNetwork):
        name = without_place(model.name)
    return WeightsConfig(
        model=ModelConfig(name=name, options=options, classes=model.classes),
        classes=list(classes),
        preprocessing=PreprocessingConfig(
            mean="per-pixel" if per_pixel else _decimals(preprocessing.mean),
            std=_decimals(preprocessing.std),
            size=list(preprocessing.mean.shape) if per_pixel else None,
            source=source,
        ),
    ).model_dump()


def has_format(folder: Path, form: str) -> bool:
    """Whether a folder (or the weights folder in it) says that it is of a format."""
    where = weights_in(folder)
    try:
        content = read_json(where / CONFIG_FILE, dict)
    except InputError:
        return False
    return content.get("format") == form


def read_config(folder: Path, config: type[C], early: str = "") -> tuple[Path, C, dict[str, Any]]:
    """Return the folder that weights are read from, and its config.json, checked and as it stands.

    Args:
        folder: as of ``weights_in``.
        config: what is expected of it; the defaults of its format and version say what is read.
        early: what else helps where the folder is that of a run without weights, beside finishing it.

    Raises:
        InputError: when there is none, it is of another kind, damaged or newer.
    """
    form, version = (config.model_fields[field].default for field in ("format", "version"))
    where = weights_in(folder)
    kind, file = KINDS[form], where / CONFIG_FILE
    if not file.is_file():
        refuse_unfinished(folder, kind.train, early)
        held = held_in(folder, CONFIG_FILE, RECIPE_FILE) or "; a run has weights once it is complete"
        raise InputError(f"{folder} holds no {kind.name} (it has no {CONFIG_FILE}){held}")
    content = read_json(file, dict, ANEW)
    found = KINDS.get(content.get("format"))
    if found is None:
        how = (
            "residual import reads other libraries' weights"
            if form == FORMAT
            else f"{kind.train} writes them"
        )
        raise InputError(f"{file} is not of {form}; {how}")
    if found != kind:
        how = f"use it with {found.use}"
        if content["format"] == FORMAT:
            how = (
                f"train a {kind.name} from it with: {kind.train} RECIPE --weights {shlex.quote(str(folder))}"
            )
        raise InputError(f"{folder} holds a {found.name}, and a {kind.name} is expected; {how}")
    if isinstance(content.get("version"), int) and content["version"] > version:
        raise InputError(
            f"{file} has version {content['version']} and this residual reads up to {version}; update it"
        )
    checked(content, config, lambda reason: damaged(file, reason, ANEW))
    return where, config.model_validate(content), content


def _write(folder: Path, model: Classifier, preprocessing: Preprocessing, config: dict[str, Any]) -> None:
    with written_whole(folder) as temporary:
        temporary.mkdir()
        write_state(model, temporary / MODEL_FILE)
        if isinstance(model, OwnNetwork):
            (temporary / CODE_FILE).write_bytes(model.code)
        (temporary / CONFIG_FILE).write_text(as_json(config), encoding="utf-8")
        if preprocessing.per_pixel:
            mean = {"mean": preprocessing.mean.cpu().contiguous()}
            (temporary / PREPROCESSING_FILE).write_bytes(save(mean))


def _read_config(folder: Path) -> tuple[Path, WeightsConfig, dict[str, Any]]:
    early = f", or take those of its newest checkpoint with: residual finish {shlex.quote(str(folder))}"
    where, config, content = read_config(folder, WeightsConfig, early)
    checked(
        content.get("recipe"),
        StoredRecipe | None,
        lambda reason: damaged(where / CONFIG_FILE, f"recipe.{reason}", ANEW),
    )
    return where, config, content


def _read_preprocessing(folder: Path, config: PreprocessingConfig, channels: int) -> Preprocessing:
    if config.mean == "per-pixel":
        file = folder / PREPROCESSING_FILE
        mean = read_state(file).get("mean", torch.empty(0))
        if list(mean.shape) != config.size:
            raise damaged(
                file, f"a mean of {tuple(mean.shape)}, where {CONFIG_FILE} says {config.size}", ANEW
            )
    else:
        mean = torch.tensor(config.mean)
    if not len(mean) == len(config.std) == channels:
        raise damaged(
            folder / CONFIG_FILE,
            f"means of {len(mean)} and deviations of {len(config.std)} channels, for {channels}",
            ANEW,
        )
    return Preprocessing(mean, torch.tensor(config.std))


def _decimals(values: Tensor) -> list[float]:
    """Return the shortest decimals that are these float32 values: 0.485, not 0.48500001430511475."""
    return [float(str(value)) for value in values.flatten().cpu().numpy()]
