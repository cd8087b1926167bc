"""The "standard color augmentation" of Section 3.4: noise along the principal components of RGB."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ColourNoise:
    """AlexNet's noise: each pixel of an image gets ``P (a * l)``, one draw of a ~ N(0, std) an image.

    Attributes:
        values: eigenvalues l of the RGB covariance over the training set, (3,), in units of [0, 1] squared.
        vectors: eigenvectors P in its columns, (3, 3).
        std: of a.
    """

    values: Tensor
    vectors: Tensor
    std: float = 0.1

    def shifts(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw what is added to each of ``count`` images: (count, 3, 1, 1), in units of [0, 1]."""
        a = torch.randn(count, 3, generator=generator) * self.std
        return ((a * self.values.cpu()) @ self.vectors.cpu().T)[:, :, None, None]
