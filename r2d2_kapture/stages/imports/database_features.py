"""The keypoints and descriptors of a COLMAP database alone, as kapture features."""

from __future__ import annotations

import time
from collections.abc import Collection
from pathlib import Path

from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.colmap.check import write_ahead_log
from r2d2_kapture.io.colmap.stored_database import open_stored
from r2d2_kapture.io.kapture.dataset_files import DatasetFiles
from r2d2_kapture.io.kapture.feature_store import FeatureType
from r2d2_kapture.io.outputs.finished import FINISHED_NAME, Finished
from r2d2_kapture.io.outputs.ledger import STAGE, Contents, open_ledger, write_report
from r2d2_kapture.io.outputs.manifest import Manifest, package_versions
from r2d2_kapture.io.progress import Progress
from r2d2_kapture.stages.imports.colmap_features import (
    features_of_database,
    import_database_features,
)
from r2d2_kapture.types import Report, counted

REPORT_NAME = "import_report.json"
FEATURES = Contents(
    what="features",
    files=("reconstruction/*/*/**/*.*", REPORT_NAME),
)


def import_descriptors(
    database: Path, images: Collection[str], output: Path, options: RunOptions
) -> Report:
    """Make kapture features of the descriptors of a database.

    Args:
        database: COLMAP's, of any version; read only.
        images: that must be in it.
        output: folder of the features.
        options: how to run.

    Returns:
        A report whose ``details`` hold the ``keypoints_type``.

    Raises:
        DatasetError: the database is broken, has other images, or no descriptors.
        OutputError: the output has other content, or cannot be written.
    """
    started = time.monotonic()
    settings = {STAGE: "import of descriptors"}
    finished = Finished.of(
        output / FINISHED_NAME, settings, (database, write_ahead_log(database))
    )
    if not options.force and (earlier := finished.report(started)):
        return earlier
    with open_stored(database) as stored:
        features = features_of_database(stored, None)
        unknown = sorted(set(images) - set(stored.content.names.values()))
        if unknown or features.descriptor_dtype is None:
            found = (
                f"no image '{unknown[0]}'" if unknown else "keypoints, no descriptors"
            )
            raise DatasetError(
                f"{database}: found {found}, expected the descriptors of the "
                f"{counted(len(images), 'image')} of the map; give the database that "
                "the map was made of (database.db beside it), or --features"
            )
        manifest = Manifest(
            model={},
            settings=settings,
            versions=package_versions(),
            inputs={"database": (str(database.resolve()), finished.inputs)},
        )
        target = DatasetFiles(
            root=output,
            features=FeatureType(
                root=output,
                keypoints_type=features.type_name,
                descriptors_type=features.type_name,
                descriptor_dim=features.descriptor_columns,
            ),
        )
        total = len(stored.content.names)
        bar = Progress("import", "image", total, shown=options.progress)
        with open_ledger(output, FEATURES, manifest, options), bar:
            new, counts = import_database_features(stored, features, target, bar)
            report = Report(
                stage="import",
                unit="image",
                done=new,
                skipped=total - new,
                failed=(),
                warnings=features.warnings,
                seconds=time.monotonic() - started,
                outputs=(output,),
                details={"keypoints_type": features.type_name, **counts},
            )
            write_report(output / REPORT_NAME, report)
    made = [f for f in (output / "reconstruction").rglob("*.*") if f.is_file()]
    return finished.note(report, sorted([*made, output / REPORT_NAME]))
