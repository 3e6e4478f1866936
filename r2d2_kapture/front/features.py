"""Local features with methods that save, load and convert them to tensors."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from torch import Tensor

from r2d2_kapture import types
from r2d2_kapture.errors import ConfigError
from r2d2_kapture.io.features.npz import read_npz, write_npz


class LocalFeatures(types.LocalFeatures):
    """Keypoints and descriptors of one image, best score first; see types."""

    @classmethod
    def of(cls, features: types.LocalFeatures) -> LocalFeatures:
        """Convert features to this class."""
        fields = dataclasses.fields(features)
        return cls(**{field.name: getattr(features, field.name) for field in fields})

    @classmethod
    def load(cls, path: str | Path) -> LocalFeatures:
        """Read a NumPy archive written by ``save``, kapture_r2d2_extract_images or
        R2D2.

        Raises:
            FeatureFormatError: missing, truncated, of another format, or without a
                required field.
        """
        return cls.of(read_npz(Path(path)))

    def save(self, path: str | Path) -> None:
        """Write a NumPy archive, the ``.r2d2`` file of docs/formats.md.

        Raises:
            OutputError: the file cannot be written.
        """
        write_npz(Path(path), self)

    def to_torch(self, device: str | torch.device = "cpu") -> dict[str, Tensor]:
        """Tensors by name on a device.

        Returns:
            ``keypoints`` (N, 2), ``scales`` (N,), ``scores`` (N,), ``descriptors``
            (N, D), float32, and ``image_size`` (2,) int64: width, height.

        Raises:
            ConfigError: no such device here.
        """
        try:
            return self._on(torch.device(device))
        except (RuntimeError, AssertionError) as error:  # torch's word for no CUDA
            reason = str(error).partition("\n")[0]
            raise ConfigError(f"device '{device}': cannot be used: {reason}") from error

    def _on(self, device: torch.device) -> dict[str, Tensor]:
        arrays = {
            name: torch.from_numpy(getattr(self, name)).to(device)
            for name in ("keypoints", "scales", "scores", "descriptors")
        }
        size = torch.tensor(self.image_size, dtype=torch.int64, device=device)
        return arrays | {"image_size": size}
