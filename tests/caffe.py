"""Files as the paper's authors released them, with random numbers: prototxt, caffemodel, binaryproto.

Written by what Caffe's own formats say, and sharing no code with what reads them.
"""

import functools
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

#: What the files of each network have: blocks of conv2_x to conv5_x, convolutions of VGG's five stages.
BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
VGG = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}

Blobs = dict[str, list[np.ndarray]]


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def text(field: int, content: bytes | str) -> bytes:
    content = content.encode() if isinstance(content, str) else content
    return varint(field << 3 | 2) + varint(len(content)) + content


def blob(array: np.ndarray, old: bool = False) -> bytes:
    """A BlobProto with a shape, or with the four sizes of older files."""
    data = text(5, array.astype("<f4").tobytes())
    if not old:
        return text(7, text(1, b"".join(map(varint, array.shape)))) + data
    sizes = (*[1] * (4 - array.ndim), *array.shape)
    return b"".join(number(field, size) for field, size in enumerate(sizes, start=1)) + data


def caffemodel(blobs: Blobs, old: bool = False, eps: float | None = None) -> bytes:
    """A NetParameter, of present layers or of V1's."""
    parts = [text(1, "a network")]
    form, name_field, blobs_field = (2, 4, 6) if old else (100, 1, 7)
    for name, arrays in blobs.items():
        layer = text(name_field, name)
        layer += number(5, 4) if old else text(2, "Convolution") + text(3, "below") + text(4, name)
        layer += b"".join(text(blobs_field, blob(array, old)) for array in arrays)
        if eps is not None and name.startswith("bn"):
            layer += text(139, varint(3 << 3 | 5) + struct.pack("<f", eps))
        parts.append(text(form, layer))
    return b"".join(parts)


class Prototxt:
    """A network's text as the authors wrote it, and random blobs for it."""

    def __init__(self, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.lines = ['name: "net" input: "data" input_dim: 1 input_dim: 3 input_dim: 224 input_dim: 224']
        self.blobs: Blobs = {}

    def layer(self, name: str, kind: str, bottoms: Sequence[str], top: str, about: str = "") -> str:
        below = " ".join(f'bottom: "{bottom}"' for bottom in bottoms)
        self.lines.append(f'layer {{ name: "{name}" type: "{kind}" {below} top: "{top}" {about} }}')
        return top

    def normal(self, *shape: int, scale: float = 1.0) -> np.ndarray:
        return self.random.standard_normal(shape, dtype=np.float32) * np.float32(scale)

    def convolution(
        self, name: str, bottom: str, inputs: int, outputs: int, kernel: int, stride: int, bias: bool
    ) -> str:
        weight = self.normal(outputs, inputs, kernel, kernel, scale=(2 / (inputs * kernel**2)) ** 0.5)
        self.blobs[name] = [weight, self.normal(outputs)] if bias else [weight]
        about = f"num_output: {outputs} kernel_size: {kernel} pad: {kernel // 2} stride: {stride}"
        about = f"convolution_param {{ {about} bias_term: {str(bias).lower()} }}"
        return self.layer(name, "Convolution", [bottom], name, about)

    def norm(self, name: str, top: str, channels: int) -> None:
        """BatchNorm with sums of 40 batches, and Scale."""
        factor = np.float32([40])
        variance = self.random.uniform(0.5, 1.5, channels).astype(np.float32)
        self.blobs[f"bn{name}"] = [self.normal(channels, scale=0.3) * factor, variance * factor, factor]
        scale = self.random.uniform(0.5, 1, channels).astype(np.float32)
        self.blobs[f"scale{name}"] = [scale, self.normal(channels, scale=0.2)]
        self.layer(f"bn{name}", "BatchNorm", [top], top, "batch_norm_param { use_global_stats: true }")
        self.layer(f"scale{name}", "Scale", [top], top, "scale_param { bias_term: true }")

    def relu(self, top: str) -> str:
        return self.layer(f"{top}_relu", "ReLU", [top], top)

    def connected(self, name: str, bottom: str, inputs: int, outputs: int) -> str:
        self.blobs[name] = [self.normal(outputs, inputs, scale=inputs**-0.5), self.normal(outputs)]
        return self.layer(
            name, "InnerProduct", [bottom], name, f"inner_product_param {{ num_output: {outputs} }}"
        )

    def text(self, height: int, width: int) -> bytes:
        first = self.lines[0].replace(
            "input_dim: 224 input_dim: 224", f"input_dim: {height} input_dim: {width}"
        )
        return "\n".join([first, *self.lines[1:]]).encode()


@functools.lru_cache(maxsize=1)
def resnet(
    depth: int,
    blocks: tuple[int, ...] | None = None,
    widths: tuple[int, ...] = (64, 128, 256, 512),
    classes: int = 1000,
) -> Prototxt:
    net = Prototxt()
    # Pixels reach to 255, and ResNet-50's conv1 has a bias.
    x = net.convolution("conv1", "data", 3, 64, 7, 2, bias=depth == 50)
    net.blobs["conv1"][0] /= 64
    net.norm("_conv1", x, 64)
    net.relu(x)
    x = net.layer("pool1", "Pooling", [x], "pool1", "pooling_param { kernel_size: 3 stride: 2 pool: MAX }")
    channels = 64
    for stage, (count, width) in enumerate(zip(blocks or BLOCKS[depth], widths, strict=True), start=2):
        long = depth != 50 and count > 3
        letters = ["a", *(f"b{i}" for i in range(1, count))] if long else list("abcdef"[:count])
        for letter in letters:
            block = f"{stage}{letter}"
            stride = 2 if letter == "a" and stage > 2 else 1
            shortcut = x
            if letter == "a":
                shortcut = net.convolution(
                    f"res{block}_branch1", x, channels, 4 * width, 1, stride, bias=False
                )
                net.norm(f"{block}_branch1", shortcut, 4 * width)
            for part, (inputs, outputs, kernel, step) in zip(
                "abc",
                ((channels, width, 1, stride), (width, width, 3, 1), (width, 4 * width, 1, 1)),
                strict=True,
            ):
                branch = f"{block}_branch2{part}"
                bottom = x if part == "a" else f"res{block}_branch2{chr(ord(part) - 1)}"
                top = net.convolution(f"res{branch}", bottom, inputs, outputs, kernel, step, bias=False)
                net.norm(branch, top, outputs)
                if part != "c":
                    net.relu(top)
            # What a branch adds is small, so that 50 additions stay in range.
            net.blobs[f"scale{block}_branch2c"][0] *= 0.2
            x = net.relu(net.layer(f"res{block}", "Eltwise", [shortcut, top], f"res{block}"))
            channels = 4 * width
    x = net.layer("pool5", "Pooling", [x], "pool5", "pooling_param { pool: AVE global_pooling: true }")
    net.connected("fc1000", x, channels, classes)
    return net


def vgg(depth: int, side: int = 7, hidden: int = 4096) -> Prototxt:
    net, x, channels = Prototxt(), "data", 3
    for stage, count in enumerate(VGG[depth], start=1):
        for i in range(1, count + 1):
            outputs = min(512, 64 * 2 ** (stage - 1))
            x = net.relu(net.convolution(f"conv{stage}_{i}", x, channels, outputs, 3, 1, bias=True))
            channels = outputs
        about = "pooling_param { pool: MAX kernel_size: 2 stride: 2 }"
        x = net.layer(f"pool{stage}", "Pooling", [x], f"pool{stage}", about)
    net.blobs["conv1_1"][0] /= 64
    x = net.relu(net.connected("fc6", x, channels * side * side, hidden))
    x = net.relu(net.connected("fc7", x, hidden, hidden))
    net.connected("fc8", x, hidden, 1000)
    return net


def write_mean(file: Path, side: int = 224) -> np.ndarray:
    """A smooth mean image, blue first, of pixels to 255."""
    rows = np.linspace(90, 130, side, dtype=np.float32)
    mean = np.stack([rows[:, None] + np.zeros(side, np.float32) + 5 * channel for channel in range(3)])
    file.write_bytes(blob(mean[None], old=True))
    return mean
