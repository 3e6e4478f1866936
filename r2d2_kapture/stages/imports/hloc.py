"""Import of hloc's HDF5 files: features, matches and global features."""

from __future__ import annotations

import glob
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.errors import DatasetError, FeatureFormatError
from r2d2_kapture.io.features.hdf5 import h5_names, read_h5, read_h5_matches
from r2d2_kapture.io.features.hloc import (
    H5Kind,
    check_plain_names,
    h5_kind,
    h5_pairs,
    read_h5_global,
)
from r2d2_kapture.io.kapture.dataset import check_table_name
from r2d2_kapture.io.kapture.dataset_files import DatasetFiles
from r2d2_kapture.io.kapture.feature_store import FeatureType
from r2d2_kapture.io.kapture.global_features import open_global_feature_writer
from r2d2_kapture.io.kapture.pixel_origins import ORIGIN_NAME
from r2d2_kapture.io.outputs.atomic_folder import owned
from r2d2_kapture.io.outputs.finished import FINISHED_NAME, Finished
from r2d2_kapture.io.outputs.ledger import (
    STAGE,
    Contents,
    is_made_with,
    open_ledger,
    write_report,
)
from r2d2_kapture.io.outputs.manifest import (
    FILE_NAME,
    Manifest,
    package_versions,
    read_manifest,
)
from r2d2_kapture.io.progress import Progress
from r2d2_kapture.types import Failure, LocalFeatures, Report, some_names

REPORT_NAME = "import_report.json"
TYPE, GLOBAL_TYPE = "keypoints_type", "global_features_type"
FILES: dict[str, dict[str, tuple[str, ...]]] = {
    TYPE: {
        "keypoints": ("**/*.kpt", "keypoints.txt", ORIGIN_NAME),
        "descriptors": ("**/*.desc", "descriptors.txt"),
        "matches": ("**/*.matches",),
    },
    GLOBAL_TYPE: {
        "global_features": ("**/*.gfeat", "global_features.txt", FILE_NAME),
    },
}
"""Patterns of files below the folders of types, by the setting that names these."""
COLUMNS = 3
"""x, y and the side of the patch, as R2D2 has them."""


@dataclass(frozen=True, kw_only=True)
class _Files:
    """Files of hloc by what they hold.

    Attributes:
        features: of images.
        matches: of their pairs; may be none.
        global_features: likewise.
    """

    features: Path
    matches: Path | None
    global_features: Path | None


def run(
    *,
    hloc: Sequence[Path],
    output: Path,
    keypoints_type: str | None = None,
    options: RunOptions = RunOptions(),
) -> Report:
    """Make kapture features and matches of hloc's HDF5 files.

    Rows stay in their order. The output has no images and cameras: it is what
    --features and --matches take beside a dataset of them.

    Args:
        hloc: features, and any of matches and global features, told apart by what
            they hold.
        output: kapture folder to make.
        keypoints_type: name of the features; by default that of the file of features.
        options: force and progress are used.

    Raises:
        DatasetError: no features, or two files of a kind.
        FeatureFormatError: a file is broken, or pairs cannot be told apart.
        OutputError: the output exists and must not be replaced, or cannot be written.
    """
    started = time.monotonic()
    files = _sort(hloc)
    name = keypoints_type or files.features.stem
    settings: dict[str, str | None] = {
        STAGE: "import",
        "sources": "hloc",
        TYPE: name,
        GLOBAL_TYPE: (
            None if files.global_features is None else files.global_features.stem
        ),
    }
    kinds = files.features, files.matches, files.global_features
    paths = [path.resolve() for path in kinds if path is not None]
    finished = Finished.of(output / FINISHED_NAME, settings, paths)
    manifest = Manifest(
        model={},
        settings=settings,
        versions=package_versions(),
        inputs={"hloc": (", ".join(map(str, paths)), finished.inputs)},
    )
    contents = _contents(output, settings)
    if not options.force and is_made_with(output, contents, manifest, options):
        if (earlier := finished.report(started)) is not None:
            return earlier
    images = h5_names(files.features)
    if not images:
        raise DatasetError(f"{files.features}: found no image, expected features")
    for image in images:
        check_table_name(image, files.features)
    job = _Import(files=files, name=name, output=output, manifest=manifest)
    job.target(1)  # whose name is checked
    with open_ledger(output, contents, manifest, options, anew=options.force):
        new, counts, failed = job.features(images, options)
        details: dict[str, object] = {
            TYPE: name,
            "images": len(counts),
            "keypoints": sum(counts.values()),
        }
        warnings: list[str] = []
        if files.matches is not None:
            details |= job.matches(files.matches, counts, options, warnings)
        if files.global_features is not None:
            details |= job.global_features(files.global_features, options)
        report = Report(
            stage="import",
            unit="image",
            done=new,
            skipped=len(counts) - new,
            failed=tuple(failed),
            seconds=time.monotonic() - started,
            outputs=(output,),
            details=details,
            warnings=tuple(warnings),
        )
        write_report(output / REPORT_NAME, report)
    if failed:  # these are tried again
        return report
    return finished.note(report, sorted(owned(output, contents.files)))


@dataclass(frozen=True, kw_only=True)
class _Import:
    """Attributes:
    files: to read.
    name: of the features.
    output: folder to write in.
    manifest: of all.
    """

    files: _Files
    name: str
    output: Path
    manifest: Manifest

    def features(
        self, images: Sequence[str], options: RunOptions
    ) -> tuple[int, dict[str, int], list[Failure]]:
        """Write keypoints and descriptors.

        Returns:
            How many images were missing, the keypoints of each, and what failed.
        """
        new = 0
        counts: dict[str, int] = {}
        failed = []
        columns: int | None = None
        bar = Progress("import", "image", len(images), shown=options.progress)
        for image in bar.over(images):
            try:
                found = read_h5(self.files.features, image, as_stored=True)
                width = found.descriptors.shape[1]
                _check_finite(found)
                if columns not in (None, width):
                    raise FeatureFormatError(
                        f"found descriptors of {width} values, expected {columns} as "
                        "those of the images before it; extract it again"
                    )
            except FeatureFormatError as error:
                failed.append(Failure(name=image, reason=str(error)))
                continue
            target = self.target(width)
            if columns is None:
                target.describe_keypoints(COLUMNS)
                target.describe_descriptors(np.dtype(np.float32), width)
            columns = width
            rows = np.column_stack([found.keypoints, found.scales]).astype(np.float32)
            stored = found.descriptors.astype(np.float32)
            missing = [
                target.write_rows("keypoints", image, rows),
                target.write_rows("descriptors", image, stored),
            ]
            new += any(missing)
            counts[image] = len(rows)
        return new, counts, failed

    def matches(
        self,
        path: Path,
        counts: dict[str, int],
        options: RunOptions,
        warnings: list[str],
    ) -> dict[str, int]:
        """Write the matches of pairs whose features were written."""
        check_plain_names(counts)
        pairs, unknown = h5_pairs(path, counts)
        if unknown:
            warnings.append(
                f"{len(unknown)} pairs of {path.name} are of images without features "
                f"in {self.files.features.name}: {some_names(unknown)}; they are not "
                "imported"
            )
        total = 0
        target = self.target(1)
        bar = Progress("import", "pair", len(pairs), shown=options.progress)
        for pair in bar.over(pairs):
            sizes = counts[pair[0]], counts[pair[1]]
            matches = read_h5_matches(path, *pair, sizes)
            try:
                matches.check_counts(pair, sizes)
            except FeatureFormatError as error:
                raise FeatureFormatError(f"{path}: {error}") from error
            target.write_matches(self.output, pair, matches)
            total += len(matches)
        return {"pairs": len(pairs), "matches": total}

    def global_features(self, path: Path, options: RunOptions) -> dict[str, object]:
        """Write global features, of a type named as their file."""
        rows = dict(read_h5_global(path))
        widths = {len(row) for row in rows.values()}
        if len(widths) != 1:
            found = " and ".join(map(str, sorted(widths)))
            raise FeatureFormatError(
                f"{path}: found global features of {found} values, expected one "
                "length; make the file again"
            )
        with open_global_feature_writer(
            self.output, path.stem, widths.pop(), self.manifest, options
        ) as writer:
            for image, row in rows.items():
                writer.write(image, row)
        return {GLOBAL_TYPE: path.stem, "global_features": len(rows)}

    def target(self, width: int) -> DatasetFiles:
        """The dataset, for descriptors of a width."""
        features = FeatureType(
            root=self.output,
            keypoints_type=self.name,
            descriptors_type=self.name,
            descriptor_dim=width,
        )
        return DatasetFiles(root=self.output, features=features)


def _check_finite(features: LocalFeatures) -> None:
    """Refuse what arithmetic of half precision, or a broken tool, leaves."""
    for name in ("keypoints", "scales", "descriptors"):
        if not np.isfinite(getattr(features, name)).all():
            raise FeatureFormatError(
                f"{name}: found NaN or infinity, expected numbers; extract it again"
            )


def _sort(paths: Sequence[Path]) -> _Files:
    """Tell files apart by what they hold."""
    known: dict[H5Kind, Path] = {}
    for path in paths:
        kind = h5_kind(path)
        other = known.setdefault(kind, path)
        if other != path:
            raise DatasetError(
                f"--hloc: found {kind} in {other} and {path}, expected one file of "
                "them; import each into a folder of its own"
            )
    if "features" not in known:
        raise DatasetError(
            f"--hloc: found no features in {', '.join(map(str, paths))}, expected a "
            "file with the keypoints of images; give the features.h5 that they belong "
            "to"
        )
    return _Files(
        features=known["features"],
        matches=known.get("matches"),
        global_features=known.get("global features"),
    )


def _contents(output: Path, settings: Mapping[str, str | None]) -> Contents:
    """What an import makes, and has made of another name."""
    earlier = read_manifest(output / FILE_NAME)
    all_settings = [settings, *([] if earlier is None else [earlier.settings])]
    patterns = {
        f"reconstruction/{kind}/{glob.escape(str(name))}/{pattern}"
        for made in all_settings
        for setting, kinds in FILES.items()
        if (name := made.get(setting)) is not None
        for kind, patterns in kinds.items()
        for pattern in patterns
    }
    return Contents(
        what="features", files=(*sorted(patterns), REPORT_NAME, FINISHED_NAME)
    )
