"""Networks by name: ``build_model("cifar_resnet56", classes=10)``."""

import inspect
import re
from collections.abc import Callable
from typing import Any

from torch import nn

from ..errors import InputError, nearest, whole_number
from .blocks import BasicBlock
from .cifar import CifarNetwork
from .classifier import Classifier
from .fitnet import FitNet
from .highway import LAYERS as HIGHWAYS
from .highway import HighwayNetwork
from .imagenet import TABLE_1, ImageNetNetwork
from .inception import BNInception, GoogLeNet
from .maxout import MaxoutNetwork
from .nin import DeeplySupervisedNet, NetworkInNetwork
from .own import build_own, is_own
from .prelu_net import PReLUNet
from .vgg import LAYERS, VGG

__all__ = ["Classifier", "build_model", "depth_of", "is_plain", "last_layer", "model_names", "resolve"]

#: The depths of Table 6 and Figure 6; every other 6n+2 can be built as well.
CIFAR_DEPTHS = (20, 32, 44, 56, 110, 1202)

PLAIN_DEPTHS = (18, 34)

#: Networks of others that come in one depth, by the names that they are known by, and what the name fixes.
SINGLE: dict[str, tuple[type[Classifier], dict[str, Any]]] = {
    "cifar_nin": (NetworkInNetwork, {}),
    "cifar_dsn": (DeeplySupervisedNet, {}),
    "cifar_maxout": (MaxoutNetwork, {}),
    "cifar_fitnet19": (FitNet, {}),
    "googlenet": (GoogLeNet, {"batch_norm": False}),
    "googlenet_bn": (GoogLeNet, {"batch_norm": True}),
    "bn_inception": (BNInception, {}),
    "prelu_net": (PReLUNet, {}),
}

#: Options that have a few values.
CHOICES = {"shortcut": ("A", "B", "C"), "variant": ("v1", "v1.5"), "pool": ("torchvision", "caffe")}


def model_names() -> list[str]:
    """Return the names of the paper's networks, and of those that it compares them with."""
    return [
        *(f"cifar_resnet{depth}" for depth in CIFAR_DEPTHS),
        *(f"cifar_plain{depth}" for depth in CIFAR_DEPTHS),
        *(f"cifar_highway{depth}" for depth in HIGHWAYS),
        *(f"resnet{depth}" for depth in TABLE_1),
        *(f"plain{depth}" for depth in PLAIN_DEPTHS),
        *(f"vgg{depth}" for depth in LAYERS),
        *SINGLE,
    ]


def build_model(name: str, **options: Any) -> Classifier:
    """Build a network with freshly initialised weights.

    Args:
        name: ``cifar_resnet{6n+2}``, ``cifar_plain{6n+2}``, ``cifar_highway{19,32}``,
            ``resnet{18,34,50,101,152}``, ``plain{18,34}``, ``vgg{16,19}``, or one of ``SINGLE``.
        options: of the network's constructor: ``classes``, ``in_channels``; for residual networks
            ``shortcut`` ("A", "B", "C"); for those of Table 1 ``variant`` ("v1", "v1.5"); for those and VGG
            ``pool`` ("torchvision", "caffe"); for highway networks ``gate_bias``.

    Raises:
        InputError: for an unknown name, a depth that does not exist, or an option that the network has not.
    """
    constructor, fixed = resolve(str(name))  # whatever Python gives: None is the name of no model
    free = set(inspect.signature(constructor).parameters) - set(fixed)
    for option, value in options.items():
        if option not in free:
            raise InputError(f"{name} has no option {option!r}{nearest(option, sorted(free))}")
        allowed = CHOICES.get(option)
        if allowed and value not in allowed:
            raise InputError(f"{name}: {option} is one of {', '.join(allowed)}, not {value!r}")
        if option in ("classes", "in_channels"):
            options[option] = whole_number(f"{name}: {option}", value)
        if option == "gate_bias" and (
            isinstance(value, bool) or not isinstance(value, int | float) or value > 0
        ):
            raise InputError(f"{name}: {option} is a number of at most 0, not {value!r}")
    return constructor(**fixed, **options)


def depth_of(name: str) -> int:
    """Return how many weighted layers a network has, by its name: "cifar_resnet56" has 56."""
    return SINGLE[name][0].depth if name in SINGLE else _parse(name)[1]


def is_plain(name: str) -> bool:
    """Whether a network has no shortcuts, by its name: the paper's plain networks, VGG and other rivals."""
    return name in SINGLE or not _parse(name)[0].endswith(("resnet", "highway"))


def last_layer(model: Classifier) -> str:
    """Return the name of the layer that gives the scores: the last one with weights."""
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)][-1]


def resolve(name: str) -> tuple[Callable[..., Classifier], dict[str, Any]]:
    """Return the constructor that a name stands for, and the arguments that the name fixes.

    A function in a file (own.py) is one as well.
    """
    if is_own(name):
        return build_own, {"name": name}
    if name in SINGLE:
        return SINGLE[name]
    family, depth = _parse(name)
    if family in ("cifar_resnet", "cifar_plain"):
        if depth < 8 or depth % 6 != 2:
            n = max(1, (depth - 2) // 6)
            raise InputError(
                f"{name}: a CIFAR network has 6n+2 layers; the nearest are "
                f"{family}{6 * n + 2} and {family}{6 * n + 8}"
            )
        fixed: dict[str, Any] = {"n": (depth - 2) // 6}
        return CifarNetwork, fixed | ({"shortcut": None} if family == "cifar_plain" else {})
    constructor, depths = {
        "resnet": (ImageNetNetwork, tuple(TABLE_1)),
        "plain": (ImageNetNetwork, PLAIN_DEPTHS),
        "vgg": (VGG, tuple(LAYERS)),
        "cifar_highway": (HighwayNetwork, tuple(HIGHWAYS)),
    }[family]
    if depth not in depths:
        raise InputError(
            f"{name}: {family} networks have {', '.join(map(str, depths[:-1]))} or {depths[-1]} layers"
        )
    # A plain network has no shortcut, and two-layer blocks have no variant.
    chosen: dict[str, Any] = {"depth": depth}
    if family == "plain":
        chosen["shortcut"] = None
    if family in ("resnet", "plain") and TABLE_1[depth][0] is BasicBlock:
        chosen["variant"] = "v1"
    return constructor, chosen


def _parse(name: str) -> tuple[str, int]:
    """Return the family and the depth in a network's name."""
    match = re.fullmatch(r"(cifar_resnet|cifar_plain|cifar_highway|resnet|plain|vgg)([1-9][0-9]*)", name)
    if match is None:
        if name.endswith(".py"):
            raise InputError(
                f"{name}: a network of one's own is named by its file and a function in it: {name}:FUNCTION"
            )
        raise InputError(f"there is no model {name!r}{nearest(name, model_names())}")
    return match[1], int(match[2])
