"""The authors' files against an independent engine: OpenCV reads prototxt and caffemodel as Caffe does."""

import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from caffe import Prototxt, blob, caffemodel, number, resnet, text, varint, vgg, write_mean
from conftest import Call, Refused, sentence_of
from torch import Tensor

from residual import build_model
from residual.models.caffe import VGG_MEAN, read_caffemodel, read_mean
from residual.models.weights import Weights, import_caffe, load_weights

cv2 = pytest.importorskip("cv2")


def assert_same_scores(
    net: Prototxt, weights: Weights, model: bytes, sizes: Iterable[tuple[int, int]]
) -> None:
    """Hold scores against OpenCV's, for random images of several sizes, within 1e-4 of the largest."""
    mean = weights.preprocessing
    for height, width in sizes:
        images = np.random.default_rng(height).integers(256, size=(1, 3, height, width), dtype=np.uint8)
        files = (np.frombuffer(content, np.uint8) for content in (net.text(height, width), model))
        engine = cv2.dnn.readNetFromCaffe(*files)
        # Blue first, pixels to 255, less the mean: what the authors' networks take.
        subtracted = mean._stretched(torch.from_numpy(images)) if mean.per_pixel else mean.mean
        engine.setInput((images - 255 * subtracted.numpy())[:, ::-1].astype(np.float32))
        theirs = torch.from_numpy(engine.forward())
        with torch.inference_mode():
            ours = weights.model(mean(torch.from_numpy(images)))
        assert ours.std() > 0.1
        assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max(), (height, width)


# --- tests ---


@pytest.mark.long
def test_resnet50_gives_the_scores_of_another_engine(tmp_path: Path, call: Call) -> None:
    net = resnet(50)
    model = caffemodel(net.blobs)
    file, mean = tmp_path / "ResNet-50-model.caffemodel", tmp_path / "ResNet_mean.binaryproto"
    file.write_bytes(model)
    image = write_mean(mean)
    assert call("import", file, "--mean", mean, "--classes", "imagenet", "--out", tmp_path / "w") == 0
    weights = load_weights(tmp_path / "w")
    assert weights.config["model"] == {
        "name": "resnet50",
        "options": {"in_channels": 3, "shortcut": "B", "pool": "caffe", "variant": "v1"},
        "classes": 1000,
    }
    assert weights.classes[0] == "n01440764 tench"
    np.testing.assert_allclose(255 * weights.preprocessing.mean.numpy(), image[::-1], rtol=1e-6)
    assert_same_scores(net, weights, model, [(224, 224), (213, 213), (131, 150)])
    # Without the authors' windows of max pooling the scores are others, by far more than rounding.
    x = weights.preprocessing(torch.randint(256, (1, 3, 224, 224), dtype=torch.uint8))
    usual = build_model("resnet50").eval()
    usual.load_state_dict(weights.model.state_dict())
    with torch.inference_mode():
        ours, other = weights.model(x), usual(x)
    assert (ours - other).abs().max() > 0.01 * ours.abs().max()


@pytest.mark.slow
@pytest.mark.parametrize("depth", [101, 152])
def test_deeper_resnets_give_the_scores_of_another_engine(depth: int, tmp_path: Path) -> None:
    net = resnet(depth)
    model = caffemodel(net.blobs)
    (tmp_path / "a.caffemodel").write_bytes(model)
    write_mean(tmp_path / "mean.binaryproto")
    weights = import_caffe(
        tmp_path / "a.caffemodel", tmp_path / "w", mean=tmp_path / "mean.binaryproto", name=f"resnet{depth}"
    )
    assert_same_scores(net, weights, model, [(224, 224), (213, 213), (197, 231)])


@pytest.mark.slow
@pytest.mark.parametrize("depth", [16, 19])
def test_vgg_gives_the_scores_of_another_engine(depth: int, tmp_path: Path) -> None:
    """Its published files are V1's, with four sizes a blob."""
    net = vgg(depth)
    model = caffemodel(net.blobs, old=True)
    (tmp_path / "a.caffemodel").write_bytes(model)
    weights = import_caffe(tmp_path / "a.caffemodel", tmp_path / "w")
    assert weights.config["model"]["options"] == {"in_channels": 3, "pool": "caffe"}
    assert weights.config["preprocessing"]["source"] == "the mean pixel that VGG was published with"
    torch.testing.assert_close(255 * weights.preprocessing.mean.flatten(), torch.tensor(VGG_MEAN))
    # Rounded up, the maps of these sizes come to 7 x 7 as well.
    assert_same_scores(net, weights, model, [(224, 224), (213, 213), (209, 223)])


@pytest.mark.parametrize("depth", [16, 19])
def test_vggs_layers_come_to_their_places(depth: int, tmp_path: Path) -> None:
    """With fully connected layers that are small: their names, and convolutions one by one."""
    net = vgg(depth, side=1, hidden=4)
    (tmp_path / "a.caffemodel").write_bytes(caffemodel(net.blobs, old=True))
    read = read_caffemodel(tmp_path / "a.caffemodel")
    assert read.name == f"vgg{depth}"
    with torch.device("meta"):
        outline = build_model(f"vgg{depth}").state_dict()
    assert read.state.keys() == outline.keys()
    for name, tensor in outline.items():
        if name.startswith("features"):
            assert read.state[name].shape == tensor.shape
    # The state dict has them in the network's order, as the file does.
    weights = [tensor for name, tensor in read.state.items() if name.endswith("weight")]
    for weight, (stored, _) in list(zip(weights, net.blobs.values(), strict=True))[1:]:
        assert torch.equal(weight, torch.from_numpy(stored))
    expected = 255 * net.blobs["conv1_1"][0][:, ::-1]
    np.testing.assert_allclose(read.state["features.0.weight"].numpy(), expected, rtol=1e-6)


def changed(net: Prototxt, **blobs: Any) -> bytes:
    """The network's file with other blobs, or without a layer where they are None."""
    return caffemodel({k: v for k, v in (net.blobs | blobs).items() if v is not None})


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


def small() -> Prototxt:
    """A ResNet-50 whose layers are there, with a number each: enough for what is said about files."""
    net = resnet(50)
    thin = Prototxt()
    thin.blobs = {
        name: [array[(slice(2),) * array.ndim] for array in arrays] for name, arrays in net.blobs.items()
    }
    return thin


def test_the_scale_factor_of_nothing_and_another_eps(tmp_path: Path) -> None:
    net = small()
    net.blobs["bn_conv1"][2] = np.zeros(1, np.float32)
    (tmp_path / "a.caffemodel").write_bytes(caffemodel(net.blobs, eps=1e-3))
    state = read_caffemodel(tmp_path / "a.caffemodel").state
    # Nothing was summed: mean 0 less the bias, variance 0; and 1e-3 stands for the 1e-5 that BN has here.
    torch.testing.assert_close(state["bn1.running_mean"], torch.from_numpy(-net.blobs["conv1"][1]))
    torch.testing.assert_close(state["bn1.running_var"], torch.full((2,), 1e-3 - 1e-5))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lambda net: b"", ["is damaged"]),
        (lambda net: caffemodel(net.blobs)[:5000], ["is damaged", "ends in the middle"]),
        (lambda net: caffemodel(net.blobs) + text(100, b"")[:-1], ["ends in the middle"]),
        (lambda net: b"PK\3\4" + bytes(100), ["is damaged or no file of caffemodel"]),
        (lambda net: b"\x80" * 40, ["no protobuf message"]),
        (
            lambda net: text(100, text(1, "conv1") + varint(7 << 3 | 2) + varint(2**60)),
            ["ends in the middle"],
        ),
        (lambda net: number(100, 3), ["no Caffe message"]),
        (lambda net: text(100, text(1, b"\xff") + text(7, b"")), ["is damaged"]),
        (lambda net: caffemodel({"conv1": [ones(2)], "norm1": [ones(2)]}), ["holds none", "conv1, norm1"]),
        (lambda net: text(1, "no layers"), ["holds none", "no layers"]),
        (lambda net: changed(net, fc1000=None), ["no layer fc1000"]),
        (lambda net: changed(net, bn3b_branch2b=[ones(2)]), ["bn3b_branch2b has 1 blobs, not 3"]),
        (lambda net: changed(net, scale4f_branch2a=[ones(3), ones(3)]), ["scale4f_branch2a do not fit"]),
        (lambda net: changed(net), ["does not fit the network", "conv1.weight (2, 2, 2, 2)"]),
        (
            lambda net: (
                changed(net) + text(100, text(1, "conv1") + text(7, number(1, 9) + text(5, bytes(8))))
            ),
            ["conv1 has 2 numbers where 9 x 0 x 0 x 0 are announced"],
        ),
        (
            lambda net: changed(net) + text(100, text(1, "conv1") + text(7, text(5, bytes(7)))),
            ["is damaged", "conv1"],
        ),
    ],
    ids=range(16),
)
def test_damaged_truncated_and_foreign_files(
    content: Callable[[Prototxt], bytes], words: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "a.caffemodel"
    file.write_bytes(content(small()))
    said = sentence_of(lambda: import_caffe(file, tmp_path / "w", mean=[0.5] * 3))
    assert str(file) in said
    assert all(word in said for word in words), said
    assert not (tmp_path / "w").exists()


def test_every_truncation_has_a_sentence(tmp_path: Path) -> None:
    whole = caffemodel(small().blobs, eps=1e-5)
    file = tmp_path / "a.caffemodel"
    for length in range(0, len(whole), 211):
        file.write_bytes(whole[:length])
        assert str(file) in sentence_of(lambda: import_caffe(file, tmp_path / "w", mean=[0.5] * 3))


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (ones(3, 4), "not channels x height x width"),
        (ones(2, 3, 4, 4), "not channels x height x width"),
        (300 * ones(1, 3, 4, 4), "no mean of pixels from 0 to 255"),
        (np.nan * ones(1, 3, 4, 4), "no mean of pixels from 0 to 255"),
        (ones(0), "0 numbers"),
    ],
)
def test_what_is_no_mean_image(array: np.ndarray, words: str, tmp_path: Path) -> None:
    file = tmp_path / "mean.binaryproto"
    file.write_bytes(blob(array))
    assert words in sentence_of(lambda: read_mean(file))


def test_a_mean_image_of_doubles_and_of_numbers_one_by_one(tmp_path: Path) -> None:
    file = tmp_path / "mean.binaryproto"
    shape = text(7, b"".join(number(1, size) for size in (3, 1, 2)))
    file.write_bytes(shape + text(8, np.arange(6, dtype="<f8").tobytes()))
    doubles: Tensor = read_mean(file)
    assert (255 * doubles).round().flatten().tolist() == [4, 5, 2, 3, 0, 1]
    file.write_bytes(shape + b"".join(varint(5 << 3 | 5) + struct.pack("<f", i) for i in range(6)))
    assert torch.equal(read_mean(file), doubles)


def test_options_that_do_not_fit(tmp_path: Path, refused: Refused) -> None:
    file = tmp_path / "a.caffemodel"
    file.write_bytes(caffemodel(small().blobs))
    start = ("import", file, "--out", tmp_path / "w")
    assert "needs its mean image: --mean ResNet_mean.binaryproto" in sentence_of(
        lambda: import_caffe(whole_resnet50(tmp_path), tmp_path / "w")
    )
    assert "is a resnet50 and no resnet101" in refused(*start, "--model", "resnet101")
    assert "--variant: a .caffemodel leaves no choice" in refused(*start, "--variant", "v1")
    assert "--std: a .caffemodel leaves no choice" in refused(*start, "--std", "1,1,1")
    assert "there is no file" in refused("import", tmp_path / "no.caffemodel", "--out", tmp_path / "w")
    assert not (tmp_path / "w").exists()


def whole_resnet50(folder: Path) -> Path:
    file = folder / "whole.caffemodel"
    file.write_bytes(caffemodel(resnet(50).blobs))
    return file
