"""What weights of other libraries call things, and what their tensors tell about the network.

torchvision's and timm's ResNets and torchvision's VGGs have the names used here. timm's VGGs write the fully
connected layers as convolutions. Public CIFAR-10 ResNets call the classifier ``linear`` or ``fc``, and
projections ``shortcut`` or ``downsample``.
"""

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from . import build_model
from .blocks import BottleneckBlock
from .caffe import of_pixels
from .cifar import CifarNetwork
from .classifier import Classifier
from .fitnet import FitNet
from .highway import HighwayNetwork
from .imagenet import ImageNetNetwork
from .inception import BNInception, GoogLeNet
from .maxout import MaxoutNetwork
from .nin import DeeplySupervisedNet, NetworkInNetwork
from .own import is_own
from .prelu_net import PReLUNet
from .preprocessing import Preprocessing
from .vgg import VGG

#: Parts of names elsewhere, and what they are here; of networks that are not here, the names are ours.
RENAMED: dict[type[Classifier], dict[str, str]] = {
    CifarNetwork: {"fc.": "linear.", ".shortcut.": ".downsample."},
    VGG: {
        "pre_logits.fc1.": "classifier.0.",
        "pre_logits.fc2.": "classifier.3.",
        "head.fc.": "classifier.6.",
    },
}

#: What other libraries keep of a network that has done its work: GoogLeNet's auxiliary classifiers.
LEFT_OUT: dict[type[Classifier], tuple[str, ...]] = {GoogLeNet: ("aux1.", "aux2.")}

#: Layers of the public BN-Inception, which has the names of its Caffe files, and what they are here.
STEM = {"conv1_7x7_s2": "conv1", "conv2_3x3_reduce": "conv2", "conv2_3x3": "conv3"}
IN_MODULES = {
    "1x1": "branch1",
    "3x3_reduce": "branch2.0",
    "3x3": "branch2.1",
    "double_3x3_reduce": "branch3.0",
    "double_3x3_1": "branch3.1",
    "double_3x3_2": "branch3.2",
    "pool_proj": "branch4.1",
}

#: The weights whose shapes tell the channels of the images and the number of classes.
FIRST_AND_LAST: dict[type[Classifier], tuple[str, str]] = {
    CifarNetwork: ("conv1.weight", "linear.weight"),
    HighwayNetwork: ("conv1.weight", "linear.weight"),
    NetworkInNetwork: ("mlpconv1.0.weight", "scores.weight"),
    DeeplySupervisedNet: ("mlpconv1.0.weight", "scores.weight"),
    MaxoutNetwork: ("layer1.conv.weight", "linear.weight"),
    FitNet: ("layer1.0.conv.weight", "linear.weight"),
    GoogLeNet: ("conv1.conv.weight", "fc.weight"),
    BNInception: ("conv1.conv.weight", "fc.weight"),
    PReLUNet: ("conv1.0.weight", "classifier.6.weight"),
    ImageNetNetwork: ("conv1.weight", "fc.weight"),
    VGG: ("features.0.weight", "classifier.6.weight"),
}

#: Channel means and deviations that torchvision's ImageNet weights are made for, in units of [0, 1].
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
#: torchvision's GoogLeNet is for pixels from -1 to 1, whatever is said of it: the network there takes
#: ImageNet's mean and deviation off again.
MIDDLE = (0.5, 0.5, 0.5)
#: Of networks that are public in one form alone what they are made for, and whose they are.
PUBLIC: dict[type[Classifier], tuple[tuple[float, ...], tuple[float, ...], str]] = {
    GoogLeNet: (MIDDLE, MIDDLE, "torchvision's GoogLeNet"),
    BNInception: ((128 / 255, 117 / 255, 104 / 255), (1.0, 1.0, 1.0), "the public BN-Inception"),
}


def outline(name: str, **options: Any) -> Classifier:
    """Return a network of shapes alone: on the meta device it takes no memory, time or random numbers."""
    if is_own(name):
        raise InputError(
            f"{name} is a file with a network of somebody's own; a network's name is expected here"
        )
    with torch.device("meta"):
        return build_model(name, **options)


def own_names(state: dict[str, Tensor], kind: type[Classifier]) -> dict[str, Tensor]:
    """Return another library's state dict as a network of this kind names and shapes it here."""
    if kind is BNInception and "last_linear.weight" in state:
        return _public_bn_inception(state)
    renamed = {}
    for name, tensor in state.items():
        if name.startswith(LEFT_OUT.get(kind, ())):
            continue
        for theirs, ours in RENAMED.get(kind, {}).items():
            name = name.replace(theirs, ours)
        # A convolution over the whole 7x7 map is a fully connected layer on the flattened map.
        convolution = name.startswith("classifier.") and tensor.ndim == 4
        renamed[name] = tensor.flatten(1) if convolution else tensor
    return renamed


def _public_bn_inception(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the public BN-Inception's tensors as they are here, where convolutions have no biases.

    BN takes the mean off again: a bias before it is a mean that is less by as much. As Caffe's networks it
    takes blue first, and pixels from 0 to 255.
    """
    renamed: dict[str, Tensor] = {}
    biases: dict[str, Tensor] = {}
    for name, tensor in state.items():
        layer, _, parameter = name.rpartition(".")
        if layer == "last_linear":
            renamed[f"fc.{parameter}"] = tensor
            continue
        plain = layer.removesuffix("_bn")
        module = re.fullmatch(r"inception_(\d[a-e])_(.+)", plain)
        inside = IN_MODULES.get(module[2]) if module else None
        ours = f"inception{module[1]}.{inside}" if module and inside else STEM.get(plain, plain)
        if plain != layer:
            # Older files have them as rows.
            renamed[f"{ours}.bn.{parameter}"] = tensor.flatten() if tensor.ndim else tensor
        elif parameter == "bias":
            biases[f"{ours}.bn.running_mean"] = tensor
        else:
            renamed[f"{ours}.conv.{parameter}"] = tensor
    if (first := "conv1.conv.weight") in renamed:
        renamed[first] = of_pixels(renamed[first])
    for name, bias in biases.items():
        if name in renamed and renamed[name].shape == bias.shape:
            renamed[name] = renamed[name] - bias
    return renamed


def visible_options(state: dict[str, Tensor], name: str, network: Classifier) -> dict[str, Any]:
    """Return the options of ``build_model`` that tensors show: channels, classes and the shortcut.

    What they do not show, because they are another network's, is left out.

    Args:
        state: under our names.
        name: of the network in ``build_model``.
        network: the network of that name with any options.
    """
    first, last = FIRST_AND_LAST[type(network)]
    options: dict[str, Any] = {}
    if first in state and state[first].ndim == 4:
        options["in_channels"] = state[first].shape[1]
    if last in state and state[last].ndim >= 2:
        options["classes"] = state[last].shape[0]
    if "resnet" in name:
        for shortcut in ("A", "B", "C"):
            if _projections(state) == _projections(outline(name, shortcut=shortcut).state_dict()):
                options["shortcut"] = shortcut
    return options


def check_variant(name: str, network: Classifier, variant: str | None) -> None:
    """Raise an InputError for a bottleneck network whose variant is not named."""
    bottleneck = any(isinstance(module, BottleneckBlock) for module in network.modules())
    if bottleneck and variant is None:
        raise InputError(
            f"{name}: weights do not show which variant they are for; say --variant v1.5 for those of "
            "torchvision and timm, --variant v1 for the authors' (whose own .caffemodel files need no option)"
        )


def choose_preprocessing(
    network: Classifier, mean: Sequence[float] | None, std: Sequence[float] | None
) -> tuple[Preprocessing, str]:
    """Return the preprocessing that foreign weights need, and whose numbers it has.

    Args:
        mean, std: one number a channel, in units of [0, 1]; both None for torchvision's, or what is public
            of the network.

    Raises:
        InputError: when there is no default, or a number is out of range or its count wrong.
    """
    if (mean is None) != (std is None):
        raise InputError("give both the mean and the std of the preprocessing, or neither")
    if mean is not None and std is not None:
        for what, values in (("mean", mean), ("std", std)):
            if len(values) != network.in_channels:
                raise InputError(
                    f"{what} has {len(values)} numbers and the network takes {network.in_channels} channels; "
                    "give one number a channel"
                )
        if not (all(0 <= m <= 1 for m in mean) and all(0 < s <= 1 for s in std)):
            raise InputError(
                "mean and std are in units of [0, 1] and std is not 0; divide numbers for pixels of 0 to 255 "
                "by 255"
            )
        return Preprocessing(torch.tensor(mean), torch.tensor(std)), "given"
    if network.small_images:
        raise InputError(
            "give the mean and std that the network was trained with: public CIFAR-10 weights differ, common "
            "are mean 0.485,0.456,0.406 with std 0.229,0.224,0.225 and mean 0.4914,0.4822,0.4465 with std "
            "0.2023,0.1994,0.2010"
        )
    if network.in_channels != len(IMAGENET_MEAN):
        raise InputError(
            f"the network takes {network.in_channels} channels, for which there is no default; give the mean "
            "and std that it was trained with"
        )
    usual = IMAGENET_MEAN, IMAGENET_STD, "torchvision's weights"
    theirs, deviations, whose = PUBLIC.get(type(network), usual)
    return Preprocessing(torch.tensor(theirs), torch.tensor(deviations)), f"default of {whose}"


def _projections(state: dict[str, Tensor]) -> set[str]:
    """Return the blocks whose shortcut has parameters, as ``layer2.0``."""
    return {name.split(".downsample.")[0] for name in state if ".downsample." in name}
