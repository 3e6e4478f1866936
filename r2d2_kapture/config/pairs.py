"""Settings of the choice of image pairs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from r2d2_kapture.config.checks import Checked, bounded, require

PairMethod = Literal[
    "exhaustive", "sequential", "poses", "covisibility", "global", "local", "merge"
]


@dataclass(frozen=True, kw_only=True)
class PairsConfig(Checked):
    """Settings of the choice of image pairs.

    Attributes:
        method: ``exhaustive`` takes all; ``sequential`` neighbours in time of one
            camera, score 1 / steps; ``poses`` nearby cameras of similar direction,
            score 1 / (1 + distance); ``covisibility`` images that observe common points
            of a map, score their number; ``global`` similar global features, score
            their cosine; ``local`` the same with features aggregated from local ones
            (VLAD); ``merge`` only the lists of --merge.
        top_k: best partners of an image, 0 for all; by default 20, and all for merge;
            not for exhaustive and sequential.
        min_score: least score of a pair; all are taken by default.
        overlap: greatest number of time steps between sequential pairs.
        quadratic_overlap: pair images 2, 4, 8, ... 2 ** (overlap - 1) steps apart too.
        loop: the sequence is a loop: its last images precede its first.
        max_distance: largest distance between camera centres, in units of the dataset;
            any by default.
        max_angle: largest angle in degrees between viewing directions.
        vlad_clusters: visual words of the vocabulary of ``local``.
        vlad_dim: dimension of VLAD descriptors after whitening, if there are at least
            four mapping images per dimension; 0 keeps all dimensions.
        seed: random seed of the vocabulary.
        slice: ``i/n`` writes part i of n of the list, for runs on a cluster.
    """

    method: PairMethod = "exhaustive"
    top_k: int | None = bounded(None, at_least=0)
    min_score: float | None = None
    overlap: int = bounded(10, at_least=1)
    quadratic_overlap: bool = False
    loop: bool = False
    max_distance: float | None = bounded(None, above=0)
    max_angle: float = bounded(
        45.0, above=0, at_most=180, note="above 0 to 180 degrees"
    )
    vlad_clusters: int = bounded(64, at_least=1)
    vlad_dim: int = bounded(256, at_least=0)
    seed: int = bounded(0, at_least=0, below=2**32, note="32 bits")
    slice: str = "1/1"

    def __post_init__(self) -> None:
        super().__post_init__()
        part, count = self.part
        require(
            1 <= part <= count,
            f"--slice: found {self.slice!r}, expected i/n with i from 1 to n",
        )

    @property
    def partners(self) -> int:
        """Best partners of an image, 0 for all."""
        if self.top_k is None:
            return 0 if self.method == "merge" else 20
        return self.top_k

    @property
    def part(self) -> tuple[int, int]:
        """The written part of the list, from 1, and the number of parts."""
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", self.slice)
        return (int(found[1]), int(found[2])) if found else (0, 0)
