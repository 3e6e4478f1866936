"""Settings of the choice of image pairs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from r2d2_kapture.config.checks import require, require_choice

PairMethod = Literal[
    "exhaustive", "sequential", "poses", "covisibility", "global", "local", "merge"
]


@dataclass(frozen=True, kw_only=True)
class PairsConfig:
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
    top_k: int | None = None
    min_score: float | None = None
    overlap: int = 10
    quadratic_overlap: bool = False
    loop: bool = False
    max_distance: float | None = None
    max_angle: float = 45.0
    vlad_clusters: int = 64
    vlad_dim: int = 256
    seed: int = 0
    slice: str = "1/1"

    def __post_init__(self) -> None:
        require_choice("--method", self.method, PairMethod)
        require(self.partners >= 0, f"--top-k: found {self.top_k}, expected 0 or more")
        require(
            self.overlap >= 1, f"--overlap: found {self.overlap}, expected 1 or more"
        )
        require(
            self.max_distance is None or self.max_distance > 0,
            f"--max-distance: found {self.max_distance}, expected more than 0",
        )
        require(
            0 < self.max_angle <= 180,
            f"--max-angle: found {self.max_angle}, expected above 0 to 180 degrees",
        )
        require(
            self.vlad_clusters >= 1,
            f"--vlad-clusters: found {self.vlad_clusters}, expected 1 or more",
        )
        require(
            self.vlad_dim >= 0, f"--vlad-dim: found {self.vlad_dim}, expected 0 or more"
        )
        require(0 <= self.seed < 2**32, f"--seed: found {self.seed}, expected 32 bits")
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
