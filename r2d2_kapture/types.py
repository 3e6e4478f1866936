"""Types passed between the stages: validated, frozen, independent of torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from r2d2_kapture.errors import FeatureFormatError

FloatArray = npt.NDArray[np.float32]
IndexArray = npt.NDArray[np.int64]

PATCH_DIAMETER = 32.0
"""Side in pixels of the patch that R2D2 describes on a level of scale 1."""

DESCRIPTOR_TYPES = ("float32", "float16", "uint8")
UNIT_TOLERANCE = 1e-3
"""How far from 1 a norm may be: descriptors in float16 pass."""


def unit_rows(rows: npt.NDArray[Any]) -> FloatArray:
    """(N, D) float32 rows of unit L2 norm; rows of zeros stay zeros.

    Rows that have it already stay as they are, to the bit.
    """
    norms = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    unit = np.abs(norms - 1) < UNIT_TOLERANCE
    if unit.all():
        return rows.astype(np.float32, copy=False)
    return (rows / np.where(unit | (norms == 0), 1, norms)).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class LocalFeatures:
    """Keypoints and descriptors of one image, best score first.

    Attributes:
        keypoints: (N, 2) float32, x and y in pixels of the stored image, (0, 0) at the
            centre of the top-left pixel.
        scales: (N,) float32, side in pixels of the patch described (32 / level scale
            for R2D2, 92 / level scale for D2-Net).
        scores: (N,) float32, higher is better.
        descriptors: (N, D) float32 or float16, unit L2 norm, or uint8 of any norm;
            compared by L2.
        image_size: (W, H) of the stored image in pixels.

    Raises:
        FeatureFormatError: shapes or types disagree.
    """

    keypoints: FloatArray
    scales: FloatArray
    scores: FloatArray
    descriptors: npt.NDArray[Any]
    image_size: tuple[int, int]

    def __post_init__(self) -> None:
        count = len(self.keypoints)
        shapes = {
            "keypoints": (count, 2),
            "scales": (count,),
            "scores": (count,),
            "descriptors": (count, *self.descriptors.shape[1:2]),
        }
        for name, shape in shapes.items():
            array = getattr(self, name)
            types = DESCRIPTOR_TYPES if name == "descriptors" else ("float32",)
            if array.shape != shape or array.dtype.name not in types:
                raise FeatureFormatError(
                    f"{name}: found {array.dtype} {array.shape}, "
                    f"expected {' or '.join(types)} {shape}"
                )
        if self.descriptors.ndim != 2:
            raise FeatureFormatError(
                f"descriptors: found {self.descriptors.ndim} axes, expected (N, D)"
            )

    def __len__(self) -> int:
        return len(self.keypoints)

    def __repr__(self) -> str:
        """Counts, not the arrays."""
        width, height = self.image_size
        return (
            f"{type(self).__name__}({len(self)} keypoints, descriptors of "
            f"{self.descriptors.shape[1]} values, image of {width} x {height})"
        )

    def best_first(self) -> LocalFeatures:
        """The same features by descending score; equal scores keep their order."""
        order = np.argsort(-self.scores, kind="stable")
        return dataclasses.replace(
            self,
            keypoints=self.keypoints[order],
            scales=self.scales[order],
            scores=self.scores[order],
            descriptors=self.descriptors[order],
        )

    @property
    def unit_descriptors(self) -> FloatArray:
        """(N, D) float32 descriptors of unit L2 norm; zeros stay zeros."""
        if self.descriptors.dtype == np.float32:
            return self.descriptors
        return unit_rows(self.descriptors)

    @property
    def keypoints_with_scale(self) -> FloatArray:
        """(N, 3) float32: x, y, patch size in pixels, as kapture keeps them."""
        return np.column_stack([self.keypoints, self.scales]).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class FileStyle:
    """Naming of feature files of an image, and the unit of their scales.

    Attributes:
        suffix: of a NumPy archive, appended to the name of the image.
        mat_suffix: of a MATLAB file.
        scale_unit: patch side in pixels of which the file's column of scales counts
            multiples.
    """

    suffix: str
    mat_suffix: str
    scale_unit: float = 1.0


R2D2_FILES = FileStyle(suffix=".r2d2", mat_suffix=".r2d2.mat")


@dataclass(frozen=True, kw_only=True)
class PairMatches:
    """Matches between the keypoints of two images.

    Attributes:
        indices: (K, 2) int64, row of the keypoint in the first and in the second image.
        scores: (K,) float32, higher is better; cosine similarity where we matched.

    Raises:
        FeatureFormatError: shapes or types disagree, or an index is negative.
    """

    indices: IndexArray
    scores: FloatArray

    def __post_init__(self) -> None:
        expected = {"indices": (len(self.scores), 2), "scores": (len(self.scores),)}
        dtypes = {"indices": np.int64, "scores": np.float32}
        for name, shape in expected.items():
            array = getattr(self, name)
            if array.shape != shape or array.dtype != dtypes[name]:
                raise FeatureFormatError(
                    f"match {name}: found {array.dtype} {array.shape}, expected "
                    f"{np.dtype(dtypes[name])} {shape}"
                )
        if len(self) and self.indices.min() < 0:
            raise FeatureFormatError("match indices: found one below 0")

    def __len__(self) -> int:
        return len(self.scores)

    def __repr__(self) -> str:
        """The count, not the arrays."""
        return f"PairMatches({len(self)} matches)"

    def swapped(self) -> PairMatches:
        """The matches from the second image to the first, by the new first index."""
        order = np.argsort(self.indices[:, 1], kind="stable")
        return PairMatches(
            indices=np.ascontiguousarray(self.indices[order, ::-1]),
            scores=self.scores[order],
        )

    def check_counts(self, pair: tuple[str, str], counts: tuple[int, int]) -> None:
        """Refuse matches of keypoints that do not exist.

        Args:
            pair: names of the two images.
            counts: their numbers of keypoints.

        Raises:
            FeatureFormatError: an index is out of range.
        """
        if len(self) and (self.indices.max(axis=0) >= counts).any():
            raise FeatureFormatError(
                f"matches of '{pair[0]}' and '{pair[1]}': found indices up to "
                f"{self.indices.max(axis=0).tolist()}, expected below {list(counts)}, "
                "the numbers of keypoints; match the pair again with these features"
            )


@dataclass(frozen=True, kw_only=True)
class Failure:
    """An item that a stage could not process, with the reason."""

    name: str
    reason: str

    def to_text(self) -> str:
        """The reason, with the name in front unless it starts with it."""
        if self.reason.startswith(self.name):
            return self.reason
        return f"{self.name}: {self.reason}"


@dataclass(frozen=True, kw_only=True)
class Report:
    """The report of a stage: counts, failures, time in seconds and outputs.

    Attributes:
        stage: its name.
        done, skipped: number of items made by this run, and of finished ones found.
        failed: items that could not be processed.
        seconds: of the run.
        outputs: paths of the results.
        unit: noun of the items, in the singular; empty if they are of different kinds,
            which omits it.
        summary: the result as text.
        details: numbers of the stage, by name.
        warnings: sentences on results that may not be what the user expects.
        stages: reports of the stages, for a run of several stages.
    """

    stage: str
    done: int
    skipped: int
    failed: tuple[Failure, ...]
    seconds: float
    outputs: tuple[Path, ...]
    unit: str = "item"
    summary: str = ""
    details: dict[str, Any] = dataclasses.field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    stages: tuple[Report, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON values, without the stages."""
        return {
            "stage": self.stage,
            "unit": self.unit,
            "done": self.done,
            "skipped": self.skipped,
            "failed": [dataclasses.asdict(failure) for failure in self.failed],
            "warnings": list(self.warnings),
            "seconds": round(self.seconds, 3),
            "outputs": [str(path) for path in self.outputs],
            **self.details,
        }

    def to_text(self) -> str:
        """The report as printed by a command at its end."""
        lines = [f"{self.stage}: {self.work()} ({duration(self.seconds)})"]
        lines += _stage_table(self.stages)
        lines += _indented(self.details, "  ")
        lines += [f"  warning: {text}" for text in self.warnings]
        lines += [f"  failed: {item.to_text()}" for item in self.failed]
        lines += [f"  output: {path}" for path in self.outputs]
        return "\n".join(lines)

    def work(self) -> str:
        """The counts as text, such as "3 pairs, 2 already done, 1 failed"."""
        nothing_new = self.skipped and not self.done
        count = counted(self.skipped if nothing_new else self.done, self.unit)
        parts = [count if self.unit else self.summary]
        if nothing_new:
            parts.append("already done")
        elif self.skipped and self.unit:
            parts.append(f"{self.skipped} already done")
        if self.failed:
            parts.append(f"{len(self.failed)} failed")
        if self.unit and self.summary:
            parts.append(self.summary)
        return ", ".join(parts)


def counted(count: int, noun: str) -> str:
    """A count with its noun: "1 pair", "20 matches", "3 queries"."""
    if count == 1:
        return f"1 {noun}"
    if noun.endswith("y"):
        return f"{count} {noun[:-1]}ies"
    return f"{count} {noun}{'es' if noun.endswith('ch') else 's'}"


def some_names(names: Iterable[str]) -> str:
    """Up to three names in quotes, and the number of further names."""
    listed = list(names)
    more = f" and {len(listed) - 3} more" if len(listed) > 3 else ""
    return ", ".join(f"'{name}'" for name in listed[:3]) + more


def duration(seconds: float) -> str:
    """Such as "0.4 s", "12 s", "3 min 18 s" or "2 h 05 min"."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


METRES = "m"
OWN_UNITS = "units of the map"
MAP_UNIT = "map_unit"
"""Name of the unit of a map, one of these, in a report; it stands for OWN_UNITS."""
WORDS = {
    "median_error": ("median error", "px"),
    "mean_reprojection_error": ("mean reprojection error", "px"),
    "median_position_std": (
        "median standard deviation of positions",
        OWN_UNITS,
    ),
    "median_gnss_distance": ("median distance from the queries' GNSS positions", "m"),
    "median_position": ("median position error", "m"),
    "mean_position": ("mean position error", "m"),
    "median_position_of_all": ("median position error, missing ones included", "m"),
    "median_rotation": ("median rotation error", "degrees"),
    "mean_rotation": ("mean rotation error", "degrees"),
    "median_rotation_of_all": (
        "median rotation error, missing ones included",
        "degrees",
    ),
    "recall": ("recall", "%"),
    "depth_rejected": ("matched keypoints rejected by their depth", ""),
    "known_share": ("known share", "%"),
    "with_focal_length": ("cameras with a focal length from EXIF", ""),
    "with_position": ("photographs with a position from EXIF", ""),
    "residual_median": ("median distance of cameras and positions", "m"),
    "residual_95": ("95 % of the distances below", "m"),
    "with_focal_length_found": ("queries whose focal length was found", ""),
    "step_median": ("median step", "px"),
    "median_step": ("median step", "px"),
    "median_error_before": ("median error before", "px"),
    "median_error_after": ("median error after", "px"),
    "step_95": ("95 % of the steps below", "px"),
    "similarity_before": ("median similarity before", ""),
    "similarity_after": ("median similarity after", ""),
    "in_rigs": ("queries in rigs", ""),
}
"""Names and units of numbers in a report, and of those below their name."""


def _stage_table(stages: Sequence[Report]) -> list[str]:
    """A line for each stage: its name, counts and time."""
    rows = [(s.stage, s.work(), duration(s.seconds)) for s in stages]
    widths = [max(map(len, column)) for column in zip(*rows)]
    return [
        f"  {name:{widths[0]}}  {work:{widths[1]}}  {time:>{widths[2]}}"
        for name, work, time in rows
    ]


def _indented(values: Mapping[str, Any], indent: str, unit: str = "") -> list[str]:
    """One line per value, nested values below their key; empty values are omitted."""
    lines = []
    for key, value in values.items():
        if key == MAP_UNIT:
            continue  # printed with the numbers
        words, unit_of_value = WORDS.get(key, (key.replace("_", " "), unit))
        if unit_of_value == OWN_UNITS:
            unit_of_value = values.get(MAP_UNIT, OWN_UNITS)
        if isinstance(value, Mapping):
            below = _indented(value, indent + "  ", unit_of_value)
            # the keys of several items of one kind are their names
            head = words if indent == "  " else key
            lines += [f"{indent}{head}:", *below] if below else []
        elif said := _in_words(value, unit_of_value):
            lines.append(f"{indent}{words}: {said}")
    return lines


def _in_words(value: Any, unit: str) -> str:
    """A value of a report as text; empty values give ''."""
    if value is True:
        return "yes"
    if unit == "%" and isinstance(value, (int, float)):
        return f"{100 * value:.3g} %"
    if isinstance(value, float):
        number = f"{value:.3g}" if unit else f"{value:.4g}"
    elif isinstance(value, (list, tuple)):
        number = ", ".join(_in_words(item, "") or str(item) for item in value)
    else:
        number = str(value) if value else ""
    return f"{number} {unit}" if number and unit else number
