"""A stream of images through an extractor: batches, uploads, and too little memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import OutOfMemoryError

from r2d2_kapture.core.extraction import Extractor, Image, Mask
from r2d2_kapture.errors import FeatureFormatError
from r2d2_kapture.types import LocalFeatures


@dataclass(frozen=True, kw_only=True, eq=False)
class Loaded:
    """An image that was decoded: (H, W, 3) uint8, and its mask, (H, W) bool."""

    name: str
    image: Image
    mask: Mask | None


Extracted = tuple[str, LocalFeatures | MemoryError]


def stream(extractor: Extractor, images: Iterable[Loaded]) -> Iterator[Extracted]:
    """Extract images in their order, in batches of equal size.

    Each batch is copied to the device before the previous one is extracted. Images of a
    batch that is too large for memory are extracted one after another; one that is too
    large by itself comes with the error.

    Raises:
        FeatureFormatError: an extractor gives other features than it declares.
    """
    previous: tuple[list[Loaded], Any] | None = None
    for batch in equal_sizes(images, extractor.runtime.batch_size):
        current = batch, _upload(extractor, batch)
        if previous is not None:
            yield from _extract(extractor, *previous)
        previous = current
    if previous is not None:
        yield from _extract(extractor, *previous)


def equal_sizes(images: Iterable[Loaded], batch_size: int) -> Iterator[list[Loaded]]:
    """Group consecutive images of equal size, at most ``batch_size`` together."""
    batch: list[Loaded] = []
    for loaded in images:
        if batch and batch[0].image.shape[:2] != loaded.image.shape[:2]:
            yield batch
            batch = []
        batch.append(loaded)
        if len(batch) == batch_size:
            yield batch
            batch = []
    if batch:
        yield batch


def _upload(extractor: Extractor, batch: list[Loaded]) -> Any:
    return extractor.upload([it.image for it in batch], [it.mask for it in batch])


def _extract(
    extractor: Extractor, batch: list[Loaded], upload: Any
) -> Iterator[Extracted]:
    try:
        results = extractor.extract_uploaded(upload)
    except FeatureFormatError as error:
        names = ", ".join(loaded.name for loaded in batch)
        raise FeatureFormatError(
            f"{names}: --extractor {extractor.name}: {error}"
        ) from error
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        reason = " ".join(f"too large for memory: {error}".split())
    else:
        for loaded, features in zip(batch, results, strict=True):
            _require_declared(extractor, features, loaded.name)
            yield loaded.name, features
        return
    del upload
    if len(batch) == 1:
        yield batch[0].name, MemoryError(reason)
        return
    for loaded in batch:
        yield from _extract(extractor, [loaded], _upload(extractor, [loaded]))


def _require_declared(extractor: Extractor, features: LocalFeatures, name: str) -> None:
    """Refuse what a third-party extractor may give: other descriptors than the files
    are opened for, and numbers that are none."""
    made = f"{name}: --extractor {extractor.name}: found"
    if not isinstance(features, LocalFeatures):
        raise FeatureFormatError(
            f"{made} {type(features).__name__}, expected LocalFeatures"
        )
    rows = features.descriptors
    found, said = rows.shape[1:], (extractor.descriptor_dim,)
    if (rows.dtype.name, found) != (extractor.descriptor_type, said):
        raise FeatureFormatError(
            f"{made} descriptors of {found[0]} {rows.dtype}, expected {said[0]} "
            f"{extractor.descriptor_type}, as its class says; correct the class"
        )
    for part in ("keypoints", "scales", "scores", "descriptors"):
        if not np.isfinite(getattr(features, part)).all():
            raise FeatureFormatError(f"{made} {part} that are not finite")


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory was insufficient; torch has no exception class for it on the
    CPU."""
    return isinstance(
        error, (MemoryError, OutOfMemoryError)
    ) or "allocate memory" in str(error)
