"""Where what is exported lies: in a dataset, or where a pipeline says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r2d2_kapture.errors import ConfigError, DatasetError
from r2d2_kapture.io.kapture.dataset import Dataset, open_dataset
from r2d2_kapture.io.kapture.match_store import matches_folder
from r2d2_kapture.io.kapture.refined_features import refined_type
from r2d2_kapture.io.outputs.atomic import read_json
from r2d2_kapture.stages.pipeline_layout import Layout

REPORT_NAME = "pipeline_report.json"


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Folders to read.

    Attributes:
        root: that the user gave.
        mapping: dataset of the images.
        queries: datasets by name.
        roots: folders of features.
        matches: kapture folder of matches.
        keypoints_type: of the features in use; None if there is one alone.
        layout: of the outputs of a pipeline, if it is one.
    """

    root: Path
    mapping: Path
    queries: Mapping[str, Path]
    roots: tuple[Path, ...]
    matches: Path
    keypoints_type: str | None = None
    layout: Layout | None = None

    @property
    def flag(self) -> str:
        """The one that named the root."""
        return "--pipeline" if self.layout else "--kapture-root"

    def query_datasets(self) -> dict[str, Dataset]:
        """The queries that are still there, by name.

        Raises:
            DatasetError: one of them is broken.
        """
        return {
            name: open_dataset(path)
            for name, path in self.queries.items()
            if path.is_dir()
        }

    def query_images(self) -> frozenset[str]:
        """Names of the images of all queries; see ``query_datasets``."""
        datasets = self.query_datasets().values()
        return frozenset(name for one in datasets for name in one.image_names)


def find_inputs(kapture_root: Path | None, pipeline: Path | None) -> Inputs:
    """The folders of a dataset, or of a pipeline.

    Raises:
        ConfigError: neither or both are given.
        DatasetError: the dataset is a pipeline's folder; see ``_read_pipeline``.
    """
    if pipeline is not None and kapture_root is None:
        return _read_pipeline(pipeline)
    if kapture_root is None or pipeline is not None:
        found = "neither" if kapture_root is None else "both"
        raise ConfigError(
            f"--kapture-root, --pipeline: found {found}, expected one of them"
        )
    own = (kapture_root / name for name in ("sensors", "reconstruction"))
    if (kapture_root / REPORT_NAME).is_file() and not any(map(Path.is_dir, own)):
        raise DatasetError(
            f"{kapture_root}: found the output of kapture_r2d2_pipeline, expected a "
            f"kapture dataset; give --pipeline {kapture_root} instead of --kapture-root"
        )
    return Inputs(
        root=kapture_root,
        mapping=kapture_root,
        queries={},
        roots=(kapture_root,),
        matches=kapture_root,
    )


def pipeline_around(folder: Path) -> Path | None:
    """The output of a pipeline that a folder is, or lies in."""
    around = (folder, *folder.parents)[:3]
    return next((path for path in around if (path / REPORT_NAME).is_file()), None)


def _read_pipeline(work: Path) -> Inputs:
    """Read where the inputs of a pipeline are.

    Args:
        work: its output folder.

    Raises:
        DatasetError: no pipeline has ended there, or an input is no longer there.
    """
    layout = Layout(output=work)
    report = work / REPORT_NAME
    if not report.is_file():
        raise DatasetError(
            f"{work}: found no {REPORT_NAME}, expected the output of "
            "kapture_r2d2_pipeline; give its --output, or run it to its end"
        )
    try:
        inputs: dict[str, Any] = read_json(report)["inputs"]
        mapping = Path(inputs["mapping"]["path"])
        queries = {name: Path(one["path"]) for name, one in inputs["queries"].items()}
        features = list(map(Path, inputs["features"]))
        keypoints_type: str | None = inputs["keypoints_type"]
    except (KeyError, TypeError, AttributeError) as error:
        raise DatasetError(
            f"{report}: found no inputs of the pipeline, expected those of mapping, "
            "queries and features; run kapture_r2d2_pipeline again"
        ) from error
    for path in (mapping, *features):
        if not path.is_dir():
            raise DatasetError(
                f"{path}: found no such folder, expected an input of {work}; put it "
                "back, or run kapture_r2d2_pipeline again"
            )
    refined = (layout.refined_again, layout.refined)
    own = [path for path in (*refined, layout.features) if path.is_dir()]
    there = [path for path in queries.values() if path.is_dir()]
    used = keypoints_type or _verified_type(layout.verified)
    if used is not None and layout.refined_database.is_file():
        used = refined_type(used)
    return Inputs(
        layout=layout,
        root=work,
        matches=layout.matches,
        mapping=mapping,
        queries=queries,
        roots=(*own, *features, mapping, *there),
        keypoints_type=used,
    )


def _verified_type(verified: Path) -> str | None:
    """The only type of keypoints whose matches a pipeline has verified."""
    folders = sorted(matches_folder(verified, "any").parent.glob("*/"))
    return folders[0].name if len(folders) == 1 else None
