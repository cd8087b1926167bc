"""Batches of images that are decoded ahead: which images, of what, and what if some are damaged."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import CPU
from PIL import Image
from torch import Tensor

from residual import InputError
from residual.data.colour import ColourNoise
from residual.data.crops import ScaleCrop
from residual.data.folder import FolderIndex, index_folder
from residual.data.images import DamagedImage
from residual.data.stream import StreamBatches
from residual.models.preprocessing import Preprocessing


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
    """Return the numbers of the images in a batch."""
    return [round(float(x[0].mean()) / 20) for x in inputs]


def test_every_image_once_an_epoch_with_its_class(plain_colours: FolderIndex) -> None:
    batches = stream(plain_colours)
    assert len(batches) == 3
    numbers, targets = [], []
    for iteration in range(11):
        inputs, y = batches(iteration)
        assert inputs.shape == (4, 3, 8, 8)
        assert inputs.is_contiguous(memory_format=torch.channels_last)
        numbers += seen(inputs)
        targets += y.tolist()
    # Four epochs of eleven images in eleven batches of four.
    assert all(sorted(numbers[i : i + 11]) == list(range(11)) for i in range(0, 44, 11))
    assert numbers[:11] != numbers[11:22]
    assert [number % 3 for number in numbers] == targets


def test_a_resumed_run_sees_the_same_images(plain_colours: FolderIndex) -> None:
    through, resumed = stream(plain_colours), stream(plain_colours, workers=1)
    expected = [through(i) for i in range(8)]
    for i in (5, 6, 7, 2):
        inputs, targets = resumed(i)
        assert torch.equal(inputs, expected[i][0])
        assert torch.equal(targets, expected[i][1])


def test_ranks_share_a_batch(plain_colours: FolderIndex) -> None:
    whole = stream(plain_colours)
    shares = [stream(plain_colours, rank=rank, ranks=2) for rank in range(2)]
    for i in range(4):
        expected = whole(i)
        found = [share(i) for share in shares]
        assert torch.equal(torch.cat([inputs for inputs, _ in found]), expected[0])
        assert torch.equal(torch.cat([targets for _, targets in found]), expected[1])


def test_flips_and_noise(tmp_path: Path) -> None:
    image = Image.new("RGB", (8, 8))
    image.paste((200, 200, 200), (0, 0, 4, 8))  # bright on the left
    (tmp_path / "train" / "a").mkdir(parents=True)
    for number in range(64):
        image.save(tmp_path / "train" / "a" / f"{number}.png")
    index = index_folder(tmp_path, "train")
    crop = ScaleCrop(8, 8, 8)  # all of the image
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
    # One draw an image, along the third component alone, in the preprocessing's units.
    difference = noisy - plain
    assert difference[:, :2].abs().max() < 1e-6
    assert difference[:, 2].flatten(1).std(dim=1).max() < 1e-6
    assert difference[:, 2, 0, 0].std().item() == pytest.approx(0.5, rel=0.3)


def test_damaged_images_are_replaced_named_and_counted(plain_colours: FolderIndex) -> None:
    bad = plain_colours.path(4)
    name = int(bad.stem)
    bad.write_bytes(b"no image")
    batches = stream(plain_colours)
    epoch = [batches(i) for i in range(11)]
    numbers = [n for inputs, _ in epoch for n in seen(inputs)]
    assert name not in numbers
    # Four times a neighbour in its batch stood in for it, with the neighbour's class.
    assert Counter(numbers).total() == 44
    assert [n % 3 for n in numbers] == [t for _, targets in epoch for t in targets.tolist()]
    assert list(batches.unreadable) == [plain_colours.ids[4]]
    assert "is no image that can be read" in batches.unreadable[plain_colours.ids[4]]

    fatal = stream(plain_colours, damaged="fatal")
    with pytest.raises(
        DamagedImage, match=r"mend it and go on with --resume, .* or with data.folder.damaged=skip"
    ):
        list(map(fatal, range(3)))


def test_a_batch_of_damaged_images_is_filled_from_those_that_come_later(plain_colours: FolderIndex) -> None:
    first, second, third = (stream(plain_colours).indices(i).tolist() for i in range(3))
    for position in first:
        plain_colours.path(position).write_bytes(b"")
    batches = stream(plain_colours)
    inputs, targets = batches(0)
    # The four of the next batch, each with its own class.
    assert seen(inputs) == [int(plain_colours.path(position).stem) for position in second]
    assert targets.tolist() == plain_colours.targets[second].tolist()
    assert len(batches.unreadable) == 4
    # A resumed run gets the same, whatever it knows of the images.
    expected = batches(5)
    again = stream(plain_colours)
    assert torch.equal(again(5)[0], expected[0])
    assert torch.equal(again(0)[0], inputs)
    # Two that can be read make up a batch of four.
    for position in [*second, *third]:
        if position not in first and position != second[0] and position != second[1]:
            plain_colours.path(position).write_bytes(b"")
    left = [int(plain_colours.path(position).stem) for position in second[:2]]
    assert sorted(set(seen(stream(plain_colours)(0)[0]))) == sorted(left)
    fatal = stream(plain_colours, damaged="fatal")
    with pytest.raises(DamagedImage, match=r"mend it and go on"):
        fatal(0)


def test_a_folder_of_damaged_images_is_an_error(plain_colours: FolderIndex) -> None:
    for position in range(11):
        plain_colours.path(position).write_bytes(b"")
    with pytest.raises(InputError, match=r"none of the 11 images of .* can be read"):
        stream(plain_colours)(0)


@pytest.mark.gpu
def test_a_batch_reaches_a_gpu_without_waiting(plain_colours: FolderIndex) -> None:
    device = torch.device("cuda")
    noise = ColourNoise(torch.ones(3), torch.eye(3), 0.1)
    prepare = Preprocessing(torch.zeros(3)).to(device)
    batches = stream(plain_colours, device=device, noise=noise, prepare=prepare)
    batches(0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        inputs, targets = batches(1)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert inputs.device.type == targets.device.type == "cuda"
