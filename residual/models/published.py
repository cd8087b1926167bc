"""Weights at public addresses: torchvision's, of which torchvision knows all, and those for CIFAR-10."""

import functools
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..class_names import CIFAR10_CLASSES
from ..download import PublishedFile
from .blocks import BottleneckBlock
from .foreign import IMAGENET_MEAN, IMAGENET_STD, MIDDLE, outline
from .imagenet import TABLE_1
from .vgg import LAYERS

#: Networks of Table 1 and Simonyan and Zisserman's, by the names that torchvision and timm have for them too.
IMAGENET_NETWORKS = (*(f"resnet{depth}" for depth in TABLE_1), *(f"vgg{depth}" for depth in LAYERS))

#: torchvision's GoogLeNet is not the description's.
GOOGLENET = {"googlenet": "googlenet_bn"}

#: github.com/akamaster/pytorch_resnet_cifar10: by depth the first digits of the file's SHA-256, which are in
#: its name as well, and the test error in % that the README there states.
PUBLIC_CIFAR = {
    20: ("12fca82f", 8.27),
    32: ("d509ac18", 7.37),
    44: ("014dd654", 6.90),
    56: ("4bfd9763", 6.61),
    110: ("1d1ed7c2", 6.32),
}
PUBLIC_CIFAR_ADDRESS = "https://github.com/akamaster/pytorch_resnet_cifar10/raw/master/pretrained_models"

#: Networks that there are weights of, as the weights' names have them.
PUBLISHED_NETWORKS = (*IMAGENET_NETWORKS, *GOOGLENET, *(f"resnet{depth}" for depth in PUBLIC_CIFAR))


@dataclass(frozen=True)
class PublishedWeights:
    """A state dict at a public address, and how it is used.

    Attributes:
        name: what people type.
        network: in ``build_model``.
        file: where it is.
        about: what ``import_weights`` is told of it: variant, classes, mean, std, view.
        data: what the errors were measured on, by whoever published them.
        errors: top-1 and top-5 error in %; the second is None where there are ten classes.
    """

    name: str
    network: str
    file: PublishedFile
    about: dict[str, Any]
    data: str
    errors: tuple[float, float | None]

    @property
    def parameters(self) -> int:
        """Of the network as it was published, with its own classes."""
        return sum(p.numel() for p in outline(self.network).parameters())


@functools.cache
def catalogue() -> dict[str, PublishedWeights]:
    """Return all of them by name."""
    known = [*(weights for name in (*IMAGENET_NETWORKS, *GOOGLENET) for weights in _of_torchvision(name))]
    return {weights.name: weights for weights in [*known, *map(_of_cifar, PUBLIC_CIFAR)]}


def variant_of(network: str) -> str | None:
    """Return the variant that torchvision's and timm's weights are for, None for a network without any."""
    bottlenecks = {f"resnet{depth}" for depth, (block, _) in TABLE_1.items() if block is BottleneckBlock}
    return "v1.5" if network in bottlenecks else None


def imagenet_names() -> list[str]:
    """Return the names of ImageNet's classes as torchvision's and timm's networks have them."""
    from torchvision.models import ResNet18_Weights

    return list(ResNet18_Weights.IMAGENET1K_V1.meta["categories"])


def _of_torchvision(network: str) -> Iterator[PublishedWeights]:
    """Yield torchvision's weights of a network.

    The plain name is IMAGENET1K_V1's: its recipe is the paper's but for the crops, and all depths have it.
    """
    from torchvision.models import get_model_weights

    for weights in get_model_weights(network):
        accuracy = weights.meta["_metrics"]["ImageNet-1K"]
        version = weights.name.removeprefix("IMAGENET1K_").lower()
        # VGG's features without a classifier have no accuracy.
        if math.isnan(accuracy["acc@1"]) or (match := re.search(r"-([0-9a-f]{8,})\.", weights.url)) is None:
            continue
        name = f"torchvision:{network}" + ("" if version == "v1" else f".{version}")
        seen = weights.transforms()
        yield PublishedWeights(
            name,
            GOOGLENET.get(network, network),
            PublishedFile(name, weights.url, "sha256", match[1]),
            {
                "variant": variant_of(network),
                "classes": weights.meta["categories"],
                "mean": MIDDLE if network in GOOGLENET else seen.mean,
                "std": MIDDLE if network in GOOGLENET else seen.std,
                "view": (seen.crop_size[0], seen.resize_size[0]),
            },
            "ImageNet",
            (round(100 - accuracy["acc@1"], 2), round(100 - accuracy["acc@5"], 2)),
        )


def _of_cifar(depth: int) -> PublishedWeights:
    checksum, error = PUBLIC_CIFAR[depth]
    name, url = f"cifar:resnet{depth}", f"{PUBLIC_CIFAR_ADDRESS}/resnet{depth}-{checksum}.th"
    # trainer.py there normalises by ImageNet's numbers.
    about = {"classes": CIFAR10_CLASSES, "mean": IMAGENET_MEAN, "std": IMAGENET_STD}
    file = PublishedFile(name, url, "sha256", checksum)
    return PublishedWeights(name, f"cifar_resnet{depth}", file, about, "CIFAR-10", (error, None))
