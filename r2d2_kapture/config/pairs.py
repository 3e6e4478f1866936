"""Settings of the choice of image pairs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from r2d2_kapture.config.checks import Checked, bounded, require
from r2d2_kapture.config.slices import WHOLE, read_slice

PairMethod = Literal[
    "exhaustive",
    "sequential",
    "poses",
    "gnss",
    "covisibility",
    "global",
    "local",
    "lowres",
    "fuse",
    "merge",
]
Similarity = Literal["global", "local"]
CovisibilityScore = Literal["count", "iou"]
Fusion = Literal["round_robin", "mean", "power", "min", "max"]
ADDED = (
    "expand_rig_images",
    "max_interval",
    "loop_top_k",
    "loop_every",
    "loop_gap",
    "loop_by",
    "min_distance",
    "covisibility_score",
    "fusion",
    "lowres_size",
    "lowres_keypoints",
    "lowres_candidates",
)
"""Settings that outputs of earlier versions do not note."""
UNNOTED = ("memory_gb",)
"""Settings that change no output."""


@dataclass(frozen=True, kw_only=True)
class PairsConfig(Checked):
    """Settings of the choice of image pairs.

    Attributes:
        method: ``exhaustive`` takes all; ``sequential`` neighbours in time of one
            camera, score 1 / steps; ``poses`` nearby cameras of similar direction,
            score 1 / (1 + distance); ``gnss`` the same by GNSS positions, in metres,
            whatever the direction; ``covisibility`` images that observe common points
            of a map, score --covisibility-score; ``global`` similar global features,
            score their cosine; ``local`` the same with features aggregated from local
            ones (VLAD); ``lowres`` images with matches at low resolution, of the
            bundled model, score the number that agree with a fundamental matrix,
            where that is more than by chance;
            ``fuse`` the best of all lists of --merge together, by
            --fusion; ``merge`` only the lists of --merge, one after another.
        top_k: best partners of an image, 0 for all; by default 20, and all for merge;
            not for exhaustive and sequential.
        min_score: least score of a pair; all are taken by default.
        overlap: greatest number of time steps between sequential pairs.
        quadratic_overlap: pair images 2, 4, 8, ... 2 ** (overlap - 1) steps apart too.
        expand_rig_images: pair an image of a rig with those of all its cameras at
            neighbouring times, not of its own camera only (COLMAP's expand_rig_images).
        max_interval: longest time between successive images of a sequence; after a
            longer gap another sequence begins. In units of the dataset's timestamps,
            which kapture does not fix: often nanoseconds, and image numbers in a folder
            of photographs; no limit by default.
        loop: the sequence is a loop: its last images precede its first.
        loop_top_k: loop closure: most similar images, outside of its neighbourhood in
            time, that an image is paired with, score their cosine; 0 for none (COLMAP's
            loop_detection_num_images).
        loop_every: of each sequence every n-th image looks for loops, the first one
            included (COLMAP's loop_detection_period).
        loop_gap: steps in time within which images are no loop; by default --overlap
            (COLMAP's loop_detection_min_index_distance).
        loop_by: what loops are found by: ``local`` or ``global`` features, as by the
            methods of these names.
        min_distance: least distance between camera centres, against pairs of nearly
            the same image, of which no point can be triangulated; in units of the
            dataset, and metres of ``gnss``.
        max_distance: largest distance between camera centres, in the same units; any by
            default.
        max_angle: largest angle in degrees between viewing directions.
        covisibility_score: ``count`` of the points that both images observe, or
            ``iou``, that number divided by that of the points that at least one does.
        fusion: how ``fuse`` joins lists: ``round_robin`` takes for each image the best
            of each list, then the second best, score 1 / rank; ``mean``, ``power`` (the
            geometric mean), ``min`` and ``max`` are of a pair's scores, of which those
            of lists without it are the list's lowest.
        vlad_clusters: visual words of the vocabulary of ``local``.
        vlad_dim: dimension of VLAD descriptors after whitening, if there are at least
            four mapping images per dimension; 0 keeps all dimensions.
        lowres_size: longest side in pixels of the images of ``lowres``.
        lowres_keypoints: keypoints of an image of ``lowres``.
        lowres_candidates: images, the most similar as by ``local``, that each image is
            matched with by ``lowres``; 0 matches all with all.
        seed: random seed of the vocabulary, and of ``lowres``'s sampling of matches.
        slice: ``i/n`` writes part i of n of the list, for runs on a cluster.
        memory_gb: global features and their similarities held at a time, in GB (10^9
            bytes), 0.1 or more, beside the images' names and the list itself; the list
            is the same whatever it is. All pairs of all images are refused where they
            need more.
    """

    method: PairMethod = "exhaustive"
    top_k: int | None = bounded(None, at_least=0)
    min_score: float | None = None
    overlap: int = bounded(10, at_least=1)
    quadratic_overlap: bool = False
    expand_rig_images: bool = False
    max_interval: float | None = bounded(None, above=0)
    loop: bool = False
    loop_top_k: int = bounded(0, at_least=0)
    loop_every: int = bounded(10, at_least=1)
    loop_gap: int | None = bounded(None, at_least=0)
    loop_by: Similarity = "local"
    min_distance: float = bounded(0.0, at_least=0)
    max_distance: float | None = bounded(None, above=0)
    max_angle: float = bounded(
        45.0, above=0, at_most=180, note="above 0 to 180 degrees"
    )
    covisibility_score: CovisibilityScore = "count"
    fusion: Fusion = "round_robin"
    vlad_clusters: int = bounded(64, at_least=1)
    vlad_dim: int = bounded(256, at_least=0)
    lowres_size: int = bounded(512, at_least=64)
    lowres_keypoints: int = bounded(512, at_least=16)
    lowres_candidates: int = bounded(50, at_least=0)
    seed: int = bounded(0, at_least=0, below=2**32, note="32 bits")
    slice: str = WHOLE
    memory_gb: float = bounded(
        4.0, at_least=0.1, at_most=1e5, note="GB (10^9 bytes), 0.1 to 100000"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.max_distance is None or self.min_distance <= self.max_distance,
            f"--min-distance: found {self.min_distance}, expected at most "
            f"--max-distance ({self.max_distance})",
        )
        read_slice(self.slice)

    @property
    def partners(self) -> int:
        """Best partners of an image, 0 for all."""
        if self.top_k is None:
            return 0 if self.method == "merge" else 20
        return self.top_k

    @property
    def similarity(self) -> Similarity | None:
        """Features that images are compared by; None if they are not."""
        if self.method == "global" or self.method == "local":
            return self.method
        return self.loop_by if self.method == "sequential" and self.loop_top_k else None

    @property
    def record(self) -> dict[str, Any]:
        """The settings that outputs note, which an earlier version would note too."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in UNNOTED
            and (field.name not in ADDED or getattr(self, field.name) != field.default)
        }
