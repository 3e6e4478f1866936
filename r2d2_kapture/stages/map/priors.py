"""Positions of images as priors of a map: in metres, east, north and up.

Priors enter bundle adjustment with a robust loss, and COLMAP moves the map onto them.
A similarity that agrees with most of them then shows whether they fit. It also aligns
what was made without them: global mapping, and known poses, which stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pycolmap

from r2d2_kapture.config.map import MapConfig
from r2d2_kapture.io.colmap.log import quiet_pycolmap
from r2d2_kapture.io.colmap.pose_priors import (
    deviations,
    read_pose_priors,
    replace_with_cartesian,
)
from r2d2_kapture.io.geodesy import EnuFrame, Positions
from r2d2_kapture.io.georeference import Georeference, transform
from r2d2_kapture.io.kapture.gnss import GnssPosition, Position, in_metres
from r2d2_kapture.types import some_names

FEWEST = 3
CHI2_LARGEST = 16.27
"""Squared deviation of three coordinates in units of their own: 99.9 % are below."""
FACTORS = (1, 3, 10)
"""By which deviations may be larger than said, for an alignment."""
LEAST_SHARE = 0.5
"""More of the positions must agree with the map."""
LARGEST_SCALE_ERROR = 0.2
WARNED_TURN = 6.0
LARGEST_TURN = 20.0
"""Degrees of uncertainty of the rotation about the main axis of the positions."""

ROUNDING = 1e-6
"""Relative: what is smaller does not count as an extent."""

NO_ALTITUDE = (
    "none of the positions has an altitude: they are taken for level, and altitudes on "
    "Earth for unknown ones that count from 0 m"
)

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, eq=False)
class Priors:
    """Positions of the images of a map.

    Attributes:
        names: of the images.
        positions: (N, 3) in metres.
        deviations: (N, 3) their standard deviations.
        frame: of the positions; None for a local one.
    """

    names: list[str]
    positions: Positions
    deviations: Positions
    frame: EnuFrame | None

    def write(self, database: Path) -> None:
        """Make them the priors of a copy of a database."""
        with quiet_pycolmap(), closing(pycolmap.Database.open(str(database))) as opened:
            replace_with_cartesian(opened, self.names, self.positions, self.deviations)


@dataclass(frozen=True, kw_only=True, eq=False)
class Fit:
    """A similarity from a map to the positions of its images.

    Attributes:
        similarity: metric_from_map.
        names: images with both.
        residuals: (N,) distances in metres.
        agree: (N,) which positions agree.
        noise: standard deviation in metres of a coordinate.
        turn: uncertainty in degrees of the rotation about the main axis.
        problem: why it is of no use; None if it is.
    """

    similarity: pycolmap.Sim3d
    names: list[str]
    residuals: npt.NDArray[np.float64]
    agree: Bools
    noise: float
    turn: float
    problem: str | None

    @property
    def most_agree(self) -> bool:
        """Whether most positions agree with the map."""
        return _most(self.agree)

    def georeference(
        self, frame: EnuFrame | None, metric_from_map: pycolmap.Sim3d
    ) -> Georeference:
        """Of the map as it is, or as this similarity has moved it."""
        agreed = self.residuals[self.agree]
        return Georeference(
            frame=frame,
            metric_from_map=metric_from_map,
            images=len(self.names),
            outliers=int((~self.agree).sum()),
            residual_median=round(float(np.median(agreed)), 4),
            residual_95=round(float(np.percentile(agreed, 95)), 4),
        )

    def warnings(self) -> tuple[str, ...]:
        """What of the positions may not be as the user expects."""
        found = []
        wrong = [name for name, agrees in zip(self.names, self.agree) if not agrees]
        if wrong:
            found.append(
                f"the positions of {len(wrong)} of {len(self.names)} images disagree "
                f"with the map and count for little: {some_names(wrong)}"
            )
        if self.turn > WARNED_TURN:
            found.append(
                "the positions of the images are nearly on a line: the rotation of the "
                f"map about it is uncertain by {self.turn:.0f} degrees"
            )
        return tuple(found)


def find_priors(
    config: MapConfig, database: Path, known: Mapping[str, Position] | None = None
) -> tuple[Priors | None, tuple[str, ...]]:
    """The positions of the images of a database.

    Args:
        config: whether, and how accurate they are.
        database: a copy, whose priors are used where no others are known.
        known: positions of a dataset.

    Returns:
        None where there are too few; with a warning where there are any.
    """
    if config.priors == "off":
        return None, ()
    with quiet_pycolmap(), closing(pycolmap.Database.open(str(database))) as opened:
        positions_of = known or read_pose_priors(opened)
        there = {image.name for image in opened.read_all_images()}
    named = {name: one for name, one in positions_of.items() if name in there}
    with_altitude = {
        name: one
        for name, one in named.items()
        if not isinstance(one, GnssPosition) or one.altitude is not None
    }
    used = with_altitude if len(with_altitude) >= FEWEST else named
    if not used:
        return None, ()
    positions, frame = in_metres(used)
    spread = float(np.linalg.norm(np.ptp(positions, axis=0)))
    if len(used) < FEWEST or spread == 0:
        found = f"{len(used)} of {len(there)} images have a position"
        where = " and all at one place" if spread == 0 and len(used) > 1 else ""
        return None, (
            f"{found}{where}, expected {FEWEST} or more at different places: the "
            "map is not in metres",
        )
    priors = Priors(
        names=list(used),
        positions=positions,
        deviations=np.array(
            [
                deviations(one, config.prior_accuracy, 10 * config.prior_accuracy)
                for one in used.values()
            ]
        ),
        frame=frame,
    )
    return priors, () if with_altitude else (NO_ALTITUDE,)


def fit_priors(
    model: pycolmap.Reconstruction,
    priors: Priors,
    *,
    factor: float = 1.0,
    moved: bool = False,
) -> Fit | None:
    """Compare a map with positions.

    Args:
        model: the map.
        priors: positions of its images.
        factor: of their deviations.
        moved: whether the map is in the frame of the priors; else the similarity that
            agrees with most of them is searched.

    Returns:
        None without any similarity.
    """
    centers = {
        image.name: image.projection_center()
        for image in model.images.values()
        if image.has_pose
    }
    rows = [row for row, name in enumerate(priors.names) if name in centers]
    if len(rows) < FEWEST:
        return None
    names = [priors.names[row] for row in rows]
    source = np.array([centers[name] for name in names])
    target, sigma = priors.positions[rows], factor * priors.deviations[rows]

    def agreeing(similarity: pycolmap.Sim3d) -> Bools:
        offsets = (transform(similarity, source) - target) / sigma
        return np.asarray((offsets**2).sum(axis=1) < CHI2_LARGEST)

    similarity: pycolmap.Sim3d | None = pycolmap.Sim3d()
    if not moved:
        similarity = _most_agreed(source, target, sigma)
        if similarity is not None and agreeing(similarity).sum() >= FEWEST:
            agree = agreeing(similarity)
            similarity = pycolmap.estimate_sim3d(source[agree], target[agree])
    if similarity is None:
        return None
    agree = agreeing(similarity)
    offsets = transform(similarity, source) - target
    return _judged(similarity, names, target, offsets, agree, sigma)


def _most_agreed(
    source: Positions, target: Positions, sigma: Positions
) -> pycolmap.Sim3d | None:
    """The similarity that brings the most positions to where they are to be."""
    largest = float(np.median(sigma.max(axis=1)))
    options = pycolmap.RANSACOptions(
        max_error=np.sqrt(CHI2_LARGEST) * largest, random_seed=0
    )
    found = pycolmap.estimate_sim3d_robust(source, target, options)
    return None if found is None else found["tgt_from_src"]


def _judged(
    similarity: pycolmap.Sim3d,
    names: list[str],
    target: Positions,
    offsets: Positions,
    agree: Bools,
    sigma: Positions,
) -> Fit:
    count = int(agree.sum())
    noise = float(np.median(sigma[:, 0]))
    turn, problem = np.float64(0), None
    if not _most(agree):
        problem = (
            f"the positions of {len(names) - count} of {len(names)} images disagree "
            "with the map"
        )
    else:
        if 3 * count - 7 >= 2 * FEWEST:  # else they follow any positions
            squares = float((offsets[agree] ** 2).sum())
            noise = float(np.sqrt(squares / (3 * count - 7)))
        extents, noise = _extents(target[agree], noise)
        with np.errstate(divide="ignore"):
            scale_error, turn, _ = noise / (extents * np.sqrt(count))
        turn = np.degrees(turn)
        if scale_error > LARGEST_SCALE_ERROR:
            problem = (
                "the positions of the images are no farther from each other than "
                f"they are uncertain ({noise:.2g} m)"
            )
        elif turn > LARGEST_TURN:
            problem = (
                "the positions of the images are on a line, about which the map may "
                "turn"
            )
    return Fit(
        similarity=similarity,
        names=names,
        residuals=np.linalg.norm(offsets, axis=1),
        agree=agree,
        noise=noise,
        turn=float(turn),
        problem=problem,
    )


def _most(agree: Bools) -> bool:
    return bool(agree.sum() >= FEWEST and agree.sum() > LEAST_SHARE * len(agree))


def _extents(
    positions: Positions, noise: float
) -> tuple[npt.NDArray[np.float64], float]:
    """(3,) standard deviations along the main axes without the noise, and the noise,
    which numbers have even where they are exact."""
    centred = positions - positions.mean(axis=0)
    lengths = np.linalg.svd(centred, compute_uv=False) / np.sqrt(len(positions))
    noise = max(noise, ROUNDING * float(lengths[0]))
    return np.sqrt(np.clip(lengths**2 - noise**2, 0, None)), noise
