"""Settings of matching."""

from __future__ import annotations

from dataclasses import dataclass

from r2d2_kapture.config.checks import require


@dataclass(frozen=True, kw_only=True)
class MatchConfig:
    """Which nearest neighbours become matches, and how they are computed.

    Attributes:
        ratio: largest distance to the nearest descriptor, relative to that of the
            second nearest, in both directions; 1 keeps all mutual nearest neighbours.
        min_similarity: least cosine similarity of a match; -1 keeps all.
        gpu: index of the CUDA device; -1 is the CPU; None is the first CUDA device
            where there is one and the CPU elsewhere.
        cache_gb: gigabytes of descriptors kept in memory for the pairs to come.
    """

    ratio: float = 1.0
    min_similarity: float = -1.0
    gpu: int | None = None
    cache_gb: float = 2.0

    def __post_init__(self) -> None:
        require(
            0 < self.ratio <= 1,
            f"--ratio: found {self.ratio}, expected above 0 and at most 1 (off)",
        )
        require(
            -1 <= self.min_similarity <= 1,
            f"--min-similarity: found {self.min_similarity}, expected -1 (off) to 1",
        )
        require(
            self.cache_gb >= 0, f"--cache-gb: found {self.cache_gb}, expected 0 or more"
        )
