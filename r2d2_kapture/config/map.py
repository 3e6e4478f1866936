"""Settings of mapping."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from r2d2_kapture.config.checks import Checked, bounded, require

MapMethod = Literal["auto", "triangulate", "incremental", "hierarchical", "global"]
Calibration = Literal["auto", "none", "view_graph"]
PointsFrom = Literal["triangulation", "depth", "matched_depth"]
PriorUse = Literal["auto", "align", "off"]
PatchUse = Literal["auto", "on", "off"]
Switch = bool | Literal["auto"]
LIMIT = 2**31
"""Of numbers that COLMAP takes: 32 bits, of which one is the sign."""


@dataclass(frozen=True, kw_only=True)
class MapConfig(Checked):
    """Settings of mapping.

    Attributes:
        method: ``triangulate`` keeps the poses of the dataset fixed, and leaves out
            images without a pose; the others estimate all poses: ``incremental``;
            ``hierarchical``, incremental in clusters that are then joined, for
            thousands of images; ``global``. ``auto`` triangulates if every image with
            verified matches has a pose, and if none has one is incremental up to 5,000
            images, hierarchical beyond.
        cluster_images: most images of a cluster of ``hierarchical``, apart from those
            that it shares with others; 20 or more.
        block_images: with known poses, images whose points are triangulated at a time,
            2 or more; more are triangulated in blocks, unless cameras are refined,
            which takes all at once. Less memory, the same tracks but for a few at
            borders.
        points_from: with known poses: ``triangulation`` of verified matches, or depth
            maps of the dataset (records_depth.txt) at the keypoints: ``depth`` takes
            all keypoints, and needs no second view of a point; ``matched_depth`` only
            those with a verified match that has the same depth, for smaller maps.
        refine_intrinsics: let bundle adjustment change focal lengths and distortion;
            ``auto`` does so for cameras that the dataset does not know
            (UNKNOWN_CAMERA), or knows from EXIF only. ``global`` cannot hold single
            cameras, and refines all if there is one to refine.
        calibration: what guessed cameras begin with: ``none``, the guess (1.2 times the
            longest side); ``view_graph``, focal lengths that their pairs agree on, and
            only matches that agree with those; ``auto`` maps both ways (of more than
            100 images, those that connect best) and keeps what registers more images,
            then what more verified matches agree with.
        priors: how the positions of images are used, of EXIF, GNSS records or the
            database: ``auto`` has bundle adjustment of ``incremental`` weigh them, and
            aligns other maps to them; ``align`` estimates poses without them, and
            aligns; ``off`` ignores them. A map of estimated poses is then in metres,
            east, north, up; known poses stay, and georeference.json has the way there.
            Fewer than 3 positions, or positions on a line, are not used.
        prior_accuracy: standard deviation in metres of positions that say none,
            horizontally; altitudes deviate twice as much.
        refine_rigs: if poses are unknown, let bundle adjustment refine the poses of
            cameras in their rig.
        two_view_tracks: keep points observed by only two keypoints; ``auto`` does so if
            poses are known.
        min_matches: least number of verified matches of a pair that is used.
        max_reprojection_error: largest reprojection error in pixels of an observation
            that is kept.
        min_angle: smallest angle in degrees between the rays of a point.
        min_model_size: least number of images of a model, if poses are unknown.
        patches: ``on`` stores a patch of each point, which keypoints of queries are
            registered against (782 bytes a point), if the images are there; ``auto``
            does so if the keypoints were refined; ``off`` stores none.
        seed: random seed.
        threads: threads of COLMAP, which affect the map as the seed does: results with
            another number may differ in the last digits, and in ``global`` they differ
            from run to run with more than 1.
    """

    method: MapMethod = "auto"
    cluster_images: int = bounded(500, at_least=20, below=LIMIT)
    block_images: int = bounded(10_000, at_least=2)
    points_from: PointsFrom = "triangulation"
    refine_intrinsics: Switch = "auto"
    calibration: Calibration = "auto"
    priors: PriorUse = "auto"
    prior_accuracy: float = bounded(5.0, above=0)
    refine_rigs: bool = False
    two_view_tracks: Switch = "auto"
    min_matches: int = bounded(15, at_least=1, below=LIMIT)
    max_reprojection_error: float = bounded(4.0, above=0)
    min_angle: float = bounded(1.5, above=0)
    min_model_size: int = bounded(3, at_least=2, below=LIMIT)
    patches: PatchUse = "auto"
    seed: int = bounded(0, at_least=0, below=LIMIT)
    threads: int = bounded(1, at_least=1, below=LIMIT)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.points_from == "triangulation"
            or self.method in ("auto", "triangulate"),
            f"--points-from {self.points_from}: found --method {self.method}, expected "
            "known poses, since depth maps give none; omit one of the two flags",
        )
