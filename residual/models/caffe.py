"""The authors' released models, read without Caffe: .caffemodel files, mean images in .binaryproto files.

They are protobuf messages, read here field by field. Nothing is executed, every length is checked against
what is there before anything is taken, and a file is mapped, not loaded: each number is copied once, into its
tensor.

What a file has otherwise than the networks here, and becomes as here: channels in the order blue, green, red;
pixels from 0 to 255; BN in two layers, BatchNorm (sums of means and variances, and what to divide them by)
and Scale; ResNet-50's conv1 with a bias, which BN takes up.
"""

import functools
import math
import mmap
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..files import check_file, damaged, first_line
from .blocks import BottleneckBlock
from .imagenet import TABLE_1
from .statedict import SOURCE
from .vgg import LAYERS

T = TypeVar("T")

#: A field's content: a whole number, or the bytes of anything else.
Content = int | memoryview

#: How a field is stored: a number of as many bytes as it needs, so many bytes, or a length and its bytes.
VARINT, LENGTH, FIXED = 0, 2, {1: 8, 5: 4}

#: Numbers of fields in Caffe's messages. A network's layers, and a layer's name and blobs, in its present and
#: in its older form; what else is needed of a layer, a BatchNorm parameter and a blob.
LAYER_FORMS = {100: (1, 7), 2: (4, 6)}
BATCH_NORM, EPS = 139, 3
LEGACY_SHAPE, SHAPE, FLOATS, DOUBLES = (1, 2, 3, 4), 7, 5, 8

#: What is added to BN's variance: Caffe's default, and what the networks here have.
BN_EPS = 1e-5

#: The released networks with bottlenecks.
DEPTHS = tuple(depth for depth, (block, _) in TABLE_1.items() if block is BottleneckBlock)

#: Channel means that VGG's published models subtract, red first, of pixels from 0 to 255.
VGG_MEAN = (123.68, 116.779, 103.939)


@dataclass(frozen=True)
class CaffeLayer:
    """A layer's learned numbers, not read yet.

    Attributes:
        blobs: a message each.
        eps: of a BatchNorm layer.
    """

    blobs: list[memoryview]
    eps: float = BN_EPS


@dataclass(frozen=True)
class CaffeNetwork:
    """A released network as it is named and shaped here.

    Attributes:
        name: in ``build_model``.
        state: its state dict.
    """

    name: str
    state: dict[str, Tensor]


def read_caffemodel(file: Path) -> CaffeNetwork:
    """Read one of the authors' ResNet-50, -101, -152, or VGG-16 or -19, from a .caffemodel file.

    Raises:
        InputError: when the file is not there, damaged, or of another network.
    """

    def network(content: memoryview) -> CaffeNetwork:
        layers = dict(_layers(content))
        for name, state in _released().items():
            if (parts := state(layers)) is not None:
                return CaffeNetwork(name, parts)
        names = ", ".join(list(layers)[:3])
        raise InputError(
            f"{file} holds none of ResNet-50, -101, -152 as the authors released them, VGG-16 and VGG-19 ("
            f"{f'its layers: {names}, ...' if names else 'it has no layers'}); others come as .pth or "
            ".safetensors"
        )

    return _read(file, "caffemodel", network)


def read_mean(file: Path) -> Tensor:
    """Return the mean image in a .binaryproto file, (C, H, W), red first, in units of [0, 1].

    Raises:
        InputError: when the file is not there, damaged, or no mean image.
    """

    def image(content: memoryview) -> Tensor:
        mean = _blob(content)
        mean = mean[0] if mean.ndim == 4 and len(mean) == 1 else mean
        if mean.ndim != 3 or mean.numel() == 0:
            raise ValueError(f"numbers of shape {tuple(mean.shape)}, not channels x height x width")
        if not bool(((mean >= 0) & (mean <= 255)).all()):
            raise ValueError("numbers that are no mean of pixels from 0 to 255")
        return _red_first(mean, 0) / 255

    return _read(file, "Caffe's mean images", image)


def _read(file: Path, kind: str, parse: Callable[[memoryview], T]) -> T:
    check_file(file)
    try:
        with file.open("rb") as opened:
            return parse(memoryview(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)))
    except (OSError, ValueError) as error:
        raise damaged(file, first_line(error), SOURCE, kind) from None


# --- networks ---


def _released() -> dict[str, Callable[[Mapping[str, CaffeLayer]], dict[str, Tensor] | None]]:
    """Return what makes a state dict of a file's layers, for each network; it gives None for another's."""
    resnets = {f"resnet{depth}": functools.partial(_resnet, depth) for depth in DEPTHS}
    return {**resnets, **{f"vgg{depth}": functools.partial(_vgg, depth) for depth in LAYERS}}


def _resnet(depth: int, layers: Mapping[str, CaffeLayer]) -> dict[str, Tensor] | None:
    blocks = {
        f"{stage}{letter}": f"layer{stage - 1}.{number}."
        for stage, count in enumerate(TABLE_1[depth][1], start=2)
        for number, letter in enumerate(_letters(depth, count))
    }
    if {f"res{block}_branch2a" for block in blocks} != _named(r"res\w+_branch2a", layers):
        return None
    pairs = [("conv1", "conv1", "conv1", "bn1")]
    for theirs, ours in blocks.items():
        if theirs.endswith("a"):
            pairs.append(
                (f"res{theirs}_branch1", f"{theirs}_branch1", f"{ours}downsample.0", f"{ours}downsample.1")
            )
        for number, letter in enumerate("abc", start=1):
            branch = f"{theirs}_branch2{letter}"
            pairs.append((f"res{branch}", branch, f"{ours}conv{number}", f"{ours}bn{number}"))
    state: dict[str, Tensor] = {}
    for convolution, norm, ours, our_norm in pairs:
        norm = f"_{norm}" if norm == "conv1" else norm
        weight, *bias = _blobs(layers, convolution, 1, 2)
        mean, variance, summed = _blobs(layers, f"bn{norm}", 3)
        scale, shift = _blobs(layers, f"scale{norm}", 2)
        vectors = [one.flatten() for one in (mean, variance, scale, shift, *bias)]
        if summed.numel() != 1 or any(len(vector) != len(weight) for vector in vectors):
            raise ValueError(f"its layers {convolution}, bn{norm} and scale{norm} do not fit each other")
        mean, variance, scale, shift, *bias = vectors
        # Caffe keeps sums, and how much has been summed; 0 where nothing has.
        factor = 1 / float(summed) if float(summed) else 0.0
        state[f"{ours}.weight"] = weight
        # BN of (x + bias) is BN of x with a mean that is less by the bias.
        state[f"{our_norm}.running_mean"] = mean * factor - (bias[0] if bias else 0)
        state[f"{our_norm}.running_var"] = variance * factor + (layers[f"bn{norm}"].eps - BN_EPS)
        state[f"{our_norm}.weight"], state[f"{our_norm}.bias"] = scale, shift
    state["conv1.weight"] = of_pixels(state["conv1.weight"])
    state["fc.weight"], state["fc.bias"] = _connected(layers, "fc1000")
    return state


def _letters(depth: int, count: int) -> list[str]:
    """Return what the files call a stage's blocks: a, b, c, ...; in 101's and 152's long ones a, b1, b2"""
    if depth == 50 or count == 3:
        return list("abcdef"[:count])
    return ["a", *(f"b{number}" for number in range(1, count))]


def _vgg(depth: int, layers: Mapping[str, CaffeLayer]) -> dict[str, Tensor] | None:
    names = [f"conv{s}_{i}" for s, count in enumerate(LAYERS[depth], 1) for i in range(1, count + 1)]
    if set(names) != _named(r"conv\d_\d", layers):
        return None
    state: dict[str, Tensor] = {}
    place = 0
    for name in names:
        weight, bias = _blobs(layers, name, 2)
        # Each convolution is followed by a ReLU, and the last one of a stage by a pooling as well.
        if name.endswith("_1") and place:
            place += 1
        state[f"features.{place}.weight"], state[f"features.{place}.bias"] = weight, bias.flatten()
        place += 2
    state["features.0.weight"] = of_pixels(state["features.0.weight"])
    for name, ours in {"fc6": 0, "fc7": 3, "fc8": 6}.items():
        state[f"classifier.{ours}.weight"], state[f"classifier.{ours}.bias"] = _connected(layers, name)
    return state


def _named(pattern: str, layers: Mapping[str, CaffeLayer]) -> set[str]:
    return {name for name in layers if re.fullmatch(pattern, name)}


def _connected(layers: Mapping[str, CaffeLayer], name: str) -> tuple[Tensor, Tensor]:
    """Return a fully connected layer's weight (K, C), in older files (1, 1, K, C), and bias (K,)."""
    weight, bias = _blobs(layers, name, 2)
    return weight.flatten(0, 2) if weight.ndim == 4 else weight, bias.flatten()


def of_pixels(weight: Tensor) -> Tensor:
    """Return the first layer's weight for pixels from 0 to 1, red first."""
    return _red_first(weight, 1) * 255


def _red_first(tensor: Tensor, axis: int) -> Tensor:
    return tensor.flip(axis) if tensor.ndim > axis and tensor.shape[axis] == 3 else tensor


def _blobs(layers: Mapping[str, CaffeLayer], name: str, *counts: int) -> list[Tensor]:
    """Return the numbers of a layer, of which there are to be so many."""
    if name not in layers:
        raise ValueError(f"it has no layer {name}")
    found = layers[name].blobs
    if len(found) not in counts:
        raise ValueError(f"its layer {name} has {len(found)} blobs, not {' or '.join(map(str, counts))}")
    try:
        return list(map(_blob, found))
    except ValueError as error:
        raise ValueError(f"its layer {name} has {error}") from None


# --- messages ---


def _layers(network: memoryview) -> Iterator[tuple[str, CaffeLayer]]:
    """Yield the layers that have learned numbers, by their names."""
    for form, message in _fields(network):
        if form not in LAYER_FORMS:
            continue
        of_name, of_blobs = LAYER_FORMS[form]
        name, blobs, eps = "", [], BN_EPS
        for number, content in _fields(_bytes(message)):
            if number == of_name:
                name = bytes(_bytes(content)).decode()
            elif number == of_blobs:
                blobs.append(_bytes(content))
            elif number == BATCH_NORM and form == 100:
                eps = next((_float(value) for n, value in _fields(_bytes(content)) if n == EPS), BN_EPS)
        if blobs:
            yield name, CaffeLayer(blobs, eps)


def _blob(message: memoryview) -> Tensor:
    """Return an array of numbers, which has a shape or, in older files, four sizes."""
    sizes: dict[int, int] = {}
    shape: list[int] | None = None
    parts: dict[int, list[memoryview]] = {FLOATS: [], DOUBLES: []}
    for number, content in _fields(message):
        if number in LEGACY_SHAPE and isinstance(content, int):
            sizes[number] = content
        elif number == SHAPE:
            shape = [size for n, dims in _fields(_bytes(content)) if n == 1 for size in _whole_numbers(dims)]
        elif number in parts:
            parts[number].append(_bytes(content))
    if shape is None:
        shape = [sizes.get(number, 0) for number in LEGACY_SHAPE]
    stored, kind = (parts[DOUBLES], "<f8") if parts[DOUBLES] else (parts[FLOATS], "<f4")
    values = np.frombuffer(stored[0] if len(stored) == 1 else b"".join(stored), kind)
    if not len(values) or math.prod(shape) != len(values):
        raise ValueError(f"{len(values):,} numbers where {' x '.join(map(str, shape))} are announced")
    return torch.from_numpy(values.astype(np.float32)).view(shape)


def _fields(message: memoryview) -> Iterator[tuple[int, Content]]:
    """Yield the number and the content of each field of a message."""
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        if key < 8:  # fields count from 1; a file of zeros would have billions of number 0
            raise ValueError("it is no protobuf message")
        kind = key & 7
        if kind == VARINT:
            value, place = _varint(message, place)
            yield key >> 3, value
            continue
        if kind == LENGTH:
            size, place = _varint(message, place)
        elif kind in FIXED:
            size = FIXED[kind]
        else:
            raise ValueError("it is no protobuf message")
        if size > len(message) - place:
            raise ValueError("it ends in the middle")
        yield key >> 3, message[place : place + size]
        place += size


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """Return the number at a place, seven bits a byte, and the place after it."""
    value = 0
    for shift in range(0, 70, 7):
        if place == len(message):
            raise ValueError("it ends in the middle")
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise ValueError("it is no protobuf message")


def _whole_numbers(content: Content) -> Iterator[int]:
    """Yield the numbers of a repeated field, which are stored one by one or packed."""
    if isinstance(content, int):
        yield content
        return
    place = 0
    while place < len(content):
        value, place = _varint(content, place)
        yield value


def _bytes(content: Content) -> memoryview:
    if isinstance(content, int):
        raise ValueError("it is no Caffe message")
    return content


def _float(content: Content) -> float:
    stored = _bytes(content)
    if len(stored) != FIXED[5]:
        raise ValueError("it is no Caffe message")
    return float(struct.unpack("<f", stored)[0])
