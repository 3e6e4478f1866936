"""What flows between the stages: validated, frozen, free of torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
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


@dataclass(frozen=True, kw_only=True)
class LocalFeatures:
    """Keypoints and descriptors of one image, best score first.

    Attributes:
        keypoints: (N, 2) float32, x and y in pixels of the stored image, (0, 0) at the
            centre of the top-left pixel.
        scales: (N,) float32, side in pixels of the patch described (32 / level scale
            for R2D2, 92 / level scale for D2-Net).
        scores: (N,) float32, higher is better.
        descriptors: (N, D) float32, unit L2 norm.
        image_size: (W, H) of the stored image in pixels.

    Raises:
        FeatureFormatError: shapes or types disagree.
    """

    keypoints: FloatArray
    scales: FloatArray
    scores: FloatArray
    descriptors: FloatArray
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
            if array.shape != shape or array.dtype != np.float32:
                raise FeatureFormatError(
                    f"{name}: found {array.dtype} {array.shape}, "
                    f"expected float32 {shape}"
                )
        if self.descriptors.ndim != 2:
            raise FeatureFormatError(
                f"descriptors: found {self.descriptors.ndim} axes, expected (N, D)"
            )

    def __len__(self) -> int:
        return len(self.keypoints)

    def best_first(self) -> LocalFeatures:
        """The same features by falling score; equal scores keep their order."""
        order = np.argsort(-self.scores, kind="stable")
        return dataclasses.replace(
            self,
            keypoints=self.keypoints[order],
            scales=self.scales[order],
            scores=self.scores[order],
            descriptors=self.descriptors[order],
        )

    @property
    def keypoints_with_scale(self) -> FloatArray:
        """(N, 3) float32: x, y, patch size in pixels, as kapture keeps them."""
        return np.column_stack([self.keypoints, self.scales]).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class FileStyle:
    """How files of one image's features are named and what their scales mean.

    Attributes:
        suffix: of a NumPy archive, after the name of the image.
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
            counts: how many keypoints they have.

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
    """One item that a stage could not process, and why."""

    name: str
    reason: str

    def to_text(self) -> str:
        """The reason, led by the name unless it begins with it."""
        if self.reason.startswith(self.name):
            return self.reason
        return f"{self.name}: {self.reason}"


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a stage did: counts, reasons, time in seconds and where the output is.

    Attributes:
        stage: its name.
        done, skipped: items that this run made, and that it found made.
        failed: items that could not be made.
        seconds: of the run.
        outputs: where the results are.
        details: numbers of the stage, by name.
        warnings: sentences on what was made and may not be what the user expects.
    """

    stage: str
    done: int
    skipped: int
    failed: tuple[Failure, ...]
    seconds: float
    outputs: tuple[Path, ...]
    details: dict[str, Any] = dataclasses.field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return {
            "stage": self.stage,
            "done": self.done,
            "skipped": self.skipped,
            "failed": [dataclasses.asdict(failure) for failure in self.failed],
            "warnings": list(self.warnings),
            "seconds": round(self.seconds, 3),
            "outputs": [str(path) for path in self.outputs],
            **self.details,
        }

    def to_text(self) -> str:
        """The report as the lines that a command prints at its end."""
        lines = [
            f"{self.stage}: {self.done} done, {self.skipped} skipped, "
            f"{len(self.failed)} failed in {self.seconds:.1f} s"
        ]
        lines += _indented(self.details, "  ")
        lines += [f"  warning: {text}" for text in self.warnings]
        lines += [f"  failed: {item.to_text()}" for item in self.failed]
        lines += [f"  output: {path}" for path in self.outputs]
        return "\n".join(lines)


def counted(count: int, noun: str) -> str:
    """How many of something there are: "1 pair", "20 pairs", "3 queries"."""
    if count == 1:
        return f"1 {noun}"
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{count} {plural}"


def some_names(names: Iterable[str]) -> str:
    """Up to three names in quotes, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - 3} more" if len(listed) > 3 else ""
    return ", ".join(f"'{name}'" for name in listed[:3]) + more


def _indented(values: Mapping[str, Any], indent: str) -> list[str]:
    """One line a value, nested ones below their key; floats to 4 digits."""
    lines = []
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            lines += [f"{indent}{key}:", *_indented(value, indent + "  ")]
        elif isinstance(value, float):
            lines.append(f"{indent}{key}: {value:.4g}")
        else:
            lines.append(f"{indent}{key}: {value}")
    return lines
