"""What is measured of a training set before training, and kept."""

import os
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save

from residual import InputError
from residual.data.folder import FolderIndex, index_folder
from residual.data.images import decode_centre
from residual.data.statistics import load_statistics, mean_of, measure, std_of, training_statistics
from residual.tensors import pack


def test_statistics_are_those_of_the_centre_crops(plain_colours: FolderIndex) -> None:
    plain_colours.path(2).write_bytes(b"")
    told: list[int] = []
    found = measure(plain_colours, 8, 8, workers=2, progress=told.append)
    assert told[-1] == 11
    assert found.images == 10
    assert list(found.unreadable) == [plain_colours.ids[2]]
    reds = (
        torch.tensor([int(Path(file).stem) * 20.0 for n, file in enumerate(plain_colours.files) if n != 2])
        / 255
    )
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
        plain_colours.path(position).write_bytes(b"")
    with pytest.raises(InputError, match="none of the 11 images"):
        measure(plain_colours, 8, 8)


def test_from_the_cache_they_are_the_same_bits(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sum over another memory layout differs in the last digit: so would a run that is resumed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    index = index_folder(images, "train")
    told: list[int] = []
    cold = training_statistics(index, 32, 37, told.append)
    assert told == list(range(1, 14))
    warm = training_statistics(index, 32, 37, told.append)
    assert len(told) == 13, "it was measured again"
    for name in ("mean", "covariance", "channel_mean", "channel_std"):
        assert torch.equal(getattr(cold, name), getattr(warm, name)), name
        assert getattr(cold, name).stride() == getattr(warm, name).stride(), name
    for mine, kept in zip(cold.components, warm.components, strict=True):
        assert torch.equal(mine, kept)
    assert (cold.images, cold.unreadable) == (warm.images, warm.unreadable) == (13, {})
    # By a slow reference: over the images, and over all of their pixels.
    seen = torch.stack([decode_centre(index.path(n), 32, 37) for n in range(13)]).double() / 255
    torch.testing.assert_close(cold.mean, seen.mean(dim=0).float())
    expected = torch.cov(seen.transpose(0, 1).flatten(1), correction=0)
    torch.testing.assert_close(cold.covariance, expected.float(), rtol=1e-4, atol=1e-6)


def test_the_cache_is_of_one_size_and_of_these_files(
    plain_colours: FolderIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    first = training_statistics(plain_colours, 8, 9)
    assert training_statistics(plain_colours, 12, 14).mean.shape == (3, 12, 12)
    Image.new("RGB", (30, 30), (255, 255, 255)).save(plain_colours.path(0))
    assert not torch.equal(training_statistics(plain_colours, 8, 9).mean, first.mean)
    # What could not be read may be readable the next time, and then belongs to the mean.
    whole = plain_colours.path(0).read_bytes()
    plain_colours.path(0).write_bytes(b"damaged")
    assert training_statistics(plain_colours, 8, 9).images == 10
    plain_colours.path(0).write_bytes(whole)
    assert training_statistics(plain_colours, 8, 9).images == 11


def test_a_damaged_image_and_a_link_that_leads_nowhere_cost_one_measurement(
    plain_colours: FolderIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    plain_colours.path(3).write_bytes(b"damaged")
    plain_colours.path(5).unlink()
    plain_colours.path(5).symlink_to(tmp_path / "later.png")
    told: list[int] = []
    first = training_statistics(plain_colours, 8, 9, told.append)
    again = training_statistics(plain_colours, 8, 9, told.append)
    assert len(told) == 11, "it was measured again"
    assert first.images == again.images == 9
    assert again.unreadable == first.unreadable
    assert "is a link to" in first.unreadable[plain_colours.ids[5]]
    assert torch.equal(first.mean, again.mean)


def test_an_image_that_can_be_read_again_belongs_to_the_mean(
    plain_colours: FolderIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same file, as size and time go: a disk that failed, say."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = plain_colours.path(3)
    whole, time = path.read_bytes(), path.stat().st_mtime_ns
    path.write_bytes(bytes(len(whole)))
    os.utime(path, ns=(time, time))
    assert training_statistics(plain_colours, 8, 9).images == 10
    path.write_bytes(whole)
    os.utime(path, ns=(time, time))
    assert training_statistics(plain_colours, 8, 9).images == 11


def test_a_damaged_or_unwritable_cache_of_statistics_does_no_harm(
    plain_colours: FolderIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    expected = training_statistics(plain_colours, 8, 9)
    (file,) = (tmp_path / "cache" / "residual").glob("statistics-*.safetensors")
    for content in (b"", b"no tensors", file.read_bytes()[:-50]):
        file.write_bytes(content)
        assert torch.equal(training_statistics(plain_colours, 8, 9).mean, expected.mean)
    (tmp_path / "a-file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a-file"))
    assert torch.equal(training_statistics(plain_colours, 8, 9).mean, expected.mean)


def test_a_dataset_in_memory_by_a_slow_reference() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (1203, 3, 4, 5), generator=generator, dtype=torch.uint8)
    exact = images.double() / 255
    torch.testing.assert_close(mean_of(images, "per-pixel"), exact.mean(dim=0).float())
    torch.testing.assert_close(mean_of(images, "per-channel"), exact.mean(dim=(0, 2, 3)).float())
    deviation = exact.transpose(0, 1).flatten(1).std(dim=1, correction=0)
    torch.testing.assert_close(std_of(images), deviation.float())


def test_damaged_statistics_are_measured_again(
    plain_colours: FolderIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mean with one other bit would be another run's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    right = training_statistics(plain_colours, 8, 9)
    (file,) = (tmp_path / "cache" / "residual").iterdir()
    whole = file.read_bytes()
    place = whole.index(right.mean.numpy().tobytes())
    older = save({"mean": right.mean, "covariance": right.covariance}, {"about": "{}"})
    flipped = whole[: place + 5] + bytes([whole[place + 5] ^ 4]) + whole[place + 6 :]
    others = pack({"mean": right.mean}), pack({"scores": right.mean}, {"about": "{}"})  # files of other kinds
    for content in (
        *others,
        flipped,
        whole[:-4],
        whole.replace(b"images", b"imagex"),
        older,
        b"",
        b"{}",
        b"\0" * 99,
    ):
        assert content != whole
        file.write_bytes(content)
        found = training_statistics(plain_colours, 8, 9)
        assert torch.equal(found.mean, right.mean)
        assert found.images == 11
        kept = load_statistics(file)
        assert kept is not None
        assert torch.equal(kept.mean, right.mean)
