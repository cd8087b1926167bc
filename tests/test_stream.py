"""Batches of pictures that are decoded ahead: which pictures, of what, and what if some are damaged."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from residual import InputError
from residual.data.colour import ColourNoise
from residual.data.crops import CentreCrop, ScaleCrop
from residual.data.folder import FolderIndex, index_folder
from residual.data.images import DamagedImage
from residual.data.order import Order
from residual.data.statistics import measure
from residual.data.stream import StreamBatches
from residual.models.preprocessing import Preprocessing

CPU = torch.device("cpu")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FolderIndex:
    """Eleven pictures of one colour each, so that a picture is known by its colour."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for number in range(11):
        path = tmp_path / "train" / f"class{number % 3}" / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20 + number, 16), (number * 20, 100, 50)).save(path)
    return index_folder(tmp_path, "train")


class Raw:
    """A preparation that changes nothing but the type."""

    std = torch.ones(3, 1, 1)

    def __call__(self, images: Tensor) -> Tensor:
        return images.float()


def stream(index: FolderIndex, **options: Any) -> StreamBatches:
    settings: dict[str, Any] = {
        "batch": 4,
        "flip": True,
        "noise": None,
        "seed": 3,
        "device": CPU,
        "workers": 2,
    }
    crop = options.pop("crop", ScaleCrop(size=8, low=9, high=12))
    return StreamBatches(index, crop, options.pop("prepare", Raw()), **settings | options)


def seen(inputs: Tensor) -> list[int]:
    """Return the numbers of the pictures in a batch."""
    return [round(float(x[0].mean()) / 20) for x in inputs]


def test_every_picture_once_an_epoch_with_its_class(index: FolderIndex) -> None:
    batches = stream(index)
    assert len(batches) == 3
    numbers, targets = [], []
    for iteration in range(11):
        inputs, y = batches(iteration)
        assert inputs.shape == (4, 3, 8, 8)
        assert inputs.is_contiguous(memory_format=torch.channels_last)
        numbers += seen(inputs)
        targets += y.tolist()
    # Four epochs of eleven pictures in eleven batches of four.
    assert all(sorted(numbers[i : i + 11]) == list(range(11)) for i in range(0, 44, 11))
    assert numbers[:11] != numbers[11:22]
    assert [number % 3 for number in numbers] == targets


def test_a_resumed_run_sees_the_same_pictures(index: FolderIndex) -> None:
    through, resumed = stream(index), stream(index, workers=1)
    expected = [through(i) for i in range(8)]
    for i in (5, 6, 7, 2):
        inputs, targets = resumed(i)
        assert torch.equal(inputs, expected[i][0])
        assert torch.equal(targets, expected[i][1])


def test_ranks_share_a_batch(index: FolderIndex) -> None:
    whole = stream(index)
    shares = [stream(index, rank=rank, ranks=2) for rank in range(2)]
    for i in range(4):
        expected = whole(i)
        found = [share(i) for share in shares]
        assert torch.equal(torch.cat([inputs for inputs, _ in found]), expected[0])
        assert torch.equal(torch.cat([targets for _, targets in found]), expected[1])


def test_mirror_images_and_noise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    picture = Image.new("RGB", (8, 8))
    picture.paste((200, 200, 200), (0, 0, 4, 8))  # bright on the left
    (tmp_path / "train" / "a").mkdir(parents=True)
    for number in range(64):
        picture.save(tmp_path / "train" / "a" / f"{number}.png")
    index = index_folder(tmp_path, "train")
    crop = CentreCrop(8, 8)
    inputs, _ = stream(index, crop=crop, batch=64)(0)
    bright_left = (inputs[:, 0, 0, 0] == 200).sum().item()
    assert 20 < bright_left < 44
    assert (inputs[:, 0, 0].sum(dim=1) == 800).all()
    still, _ = stream(index, crop=crop, batch=64, flip=False)(0)
    assert (still[:, 0, 0, 0] == 200).all()
    noise = ColourNoise(torch.tensor([0.0, 0.0, 10.0]), torch.eye(3))
    prepare = Preprocessing(torch.zeros(3), torch.tensor([1.0, 1.0, 2.0]))
    noisy, _ = stream(index, crop=crop, batch=64, flip=False, noise=noise, prepare=prepare)(0)
    plain = prepare(still.byte())
    # One draw a picture, along the third component alone, in the preprocessing's units.
    difference = noisy - plain
    assert difference[:, :2].abs().max() < 1e-6
    assert difference[:, 2].flatten(1).std(dim=1).max() < 1e-6
    assert difference[:, 2, 0, 0].std().item() == pytest.approx(0.5, rel=0.3)


def test_damaged_pictures_are_replaced_named_and_counted(index: FolderIndex) -> None:
    bad = index.path(4)
    name = int(bad.stem)
    bad.write_bytes(b"no picture")
    batches = stream(index)
    epoch = [batches(i) for i in range(11)]
    numbers = [n for inputs, _ in epoch for n in seen(inputs)]
    assert name not in numbers
    # Four times a neighbour in its batch stood in for it, with the neighbour's class.
    assert Counter(numbers).total() == 44
    assert [n % 3 for n in numbers] == [t for _, targets in epoch for t in targets.tolist()]
    assert list(batches.unreadable) == [index.ids[4]]
    assert "is no picture that can be read" in batches.unreadable[index.ids[4]]

    fatal = stream(index, damaged="fatal")
    with pytest.raises(DamagedImage, match=r"mend or remove it, or set data.folder.damaged=skip"):
        list(map(fatal, range(3)))


def test_a_batch_of_damaged_pictures_is_an_error(index: FolderIndex) -> None:
    for position in range(11):
        index.path(position).write_bytes(b"")
    with pytest.raises(InputError, match="none of the 4 pictures of a batch can be read"):
        stream(index)(0)


def test_the_order_is_that_of_resident_batches() -> None:
    order = Order(10, 4, 7)
    row = torch.cat([order(i) for i in range(5)])
    assert sorted(row[:10].tolist()) == list(range(10))
    assert sorted(row[10:].tolist()) == list(range(10))
    assert torch.equal(Order(10, 4, 7)(3), order(3))
    assert not torch.equal(Order(10, 4, 8)(0), order(0))


def test_statistics_are_those_of_the_centre_crops(index: FolderIndex) -> None:
    index.path(2).write_bytes(b"")
    told: list[int] = []
    found = measure(index, CentreCrop(8, 8), workers=2, progress=told.append)
    assert told[-1] == 11
    assert found.pictures == 10
    assert list(found.unreadable) == [index.ids[2]]
    reds = torch.tensor([int(Path(file).stem) * 20.0 for n, file in enumerate(index.files) if n != 2]) / 255
    assert found.mean.shape == (3, 8, 8)
    torch.testing.assert_close(found.mean[0], reds.mean().expand(8, 8))
    torch.testing.assert_close(found.channel_mean, torch.tensor([reds.mean(), 100 / 255, 50 / 255]))
    variance = reds.var(correction=0)
    torch.testing.assert_close(found.channel_std[0], variance.sqrt(), rtol=1e-3, atol=1e-5)
    values, vectors = found.components
    # Only red varies: one component, along red.
    assert values[2].item() == pytest.approx(variance.item(), rel=1e-3)
    assert values[:2].max() < 1e-4
    assert abs(vectors[0, 2]).item() == pytest.approx(1, abs=1e-4)
    for position in range(11):
        index.path(position).write_bytes(b"")
    with pytest.raises(InputError, match="none of the 11 pictures"):
        measure(index, CentreCrop(8, 8))
