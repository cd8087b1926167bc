"""The colour augmentation."""

import torch

from residual.data.colour import ColourNoise


def test_colour_noise_moves_along_the_components() -> None:
    vectors = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1)))[0]
    values = torch.tensor([0.002, 0.02, 0.2])
    shifts = ColourNoise(values, vectors).shifts(20_000, torch.Generator().manual_seed(2))[:, :, 0, 0]
    along = shifts @ vectors
    assert along.mean(dim=0).abs().max() < 1e-3
    # N(0, 0.1) times the eigenvalue, the same for all pixels of an image.
    torch.testing.assert_close(along.std(dim=0), 0.1 * values, rtol=0.03, atol=0)
    again = ColourNoise(values, vectors).shifts(20_000, torch.Generator().manual_seed(2))[:, :, 0, 0]
    assert torch.equal(shifts, again)
