"""Export of datasets, and of what a pipeline made, to the formats of other tools."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

from r2d2_kapture.config.cameras import CameraMode
from r2d2_kapture.config.checks import require
from r2d2_kapture.config.extract import ExportFormat
from r2d2_kapture.config.origins import OriginConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.io.colmap.bundler import BUNDLE_NAME, LIST_NAME
from r2d2_kapture.io.colmap.sparse_map import COLMAP_FILES, ENDS
from r2d2_kapture.io.colmap.verified import find_verified
from r2d2_kapture.io.kapture.match_store import find_matches, open_matches
from r2d2_kapture.io.outputs.ledger import Contents
from r2d2_kapture.stages.export.colmap import (
    DATABASE_NAME,
    MODEL_NAME,
    Bundler,
    Colmap,
    Colmap3,
    ColmapDatabase,
)
from r2d2_kapture.stages.export.content import Content, find_descriptors
from r2d2_kapture.stages.export.dataset_content import DatasetContent
from r2d2_kapture.stages.export.feature_files import (
    ColmapTexts,
    H5File,
    source_features,
)
from r2d2_kapture.stages.export.formats import Format
from r2d2_kapture.stages.export.hloc import HLOC_FILES, open_hloc
from r2d2_kapture.stages.export.inputs import Inputs, find_inputs
from r2d2_kapture.stages.export.outputs import REPORT_NAME, Export
from r2d2_kapture.stages.export.pipeline_content import PipelineContent
from r2d2_kapture.stages.export.plain_kapture import export_plain
from r2d2_kapture.stages.export.source import Source, open_source
from r2d2_kapture.stages.export.unchanged import early_note, note_end
from r2d2_kapture.types import Report

MODEL_FILES = (
    DATABASE_NAME,
    *(f"{MODEL_NAME}/{name}.{end}" for name in COLMAP_FILES for end in ENDS),
)
FILES: dict[ExportFormat, str] = {"colmap-db": "colmap.db", "h5": "features.h5"}
"""Formats of one file, and its default name."""
FOLDERS: dict[ExportFormat, tuple[str, tuple[str, ...]]] = {
    "colmap": ("colmap", MODEL_FILES),
    "colmap3": ("colmap3", MODEL_FILES),
    "bundler": ("bundler", (BUNDLE_NAME, LIST_NAME)),
    "hloc": ("hloc", HLOC_FILES),
    "colmap-text": ("colmap_text", ("**/*.txt",)),
}
"""Formats of several files, the default name of their folder, and what is in it."""
COLMAP_FORMATS: dict[ExportFormat, Callable[..., Format]] = {
    "colmap": Colmap,
    "colmap3": Colmap3,
    "colmap-db": ColmapDatabase,
    "bundler": Bundler,
}
FEATURE_FORMATS: dict[ExportFormat, Callable[..., Format]] = {
    "h5": H5File,
    "colmap-text": ColmapTexts,
}
WITH_TEXT: tuple[ExportFormat, ...] = ("colmap", "colmap3")
WITH_DESCRIPTORS = WITH_TEXT
WITH_MODEL = (*WITH_TEXT, "bundler")
VERIFIED_NAME = "verified"
"""Where kapture_r2d2_import puts verified matches in a dataset."""


def run(
    config: OriginConfig = OriginConfig(),
    *,
    kapture_root: Path | None = None,
    pipeline: Path | None = None,
    to: ExportFormat,
    output: Path | None = None,
    verified: Path | None = None,
    keypoints_type: str | None = None,
    descriptors_type: str | None = None,
    global_features_type: str | None = None,
    camera_mode: CameraMode = "auto",
    text: bool = False,
    options: RunOptions = RunOptions(),
) -> Report:
    """Export a kapture dataset, or what a pipeline made, for other tools.

    The output is a COLMAP database with or without a model, Bundler's file, hloc's HDF5
    layout, or COLMAP's text files. Images whose size differs from that of their camera
    or keypoints get no keypoints and no matches in a database, and fail.

    Args:
        config: of cameras and keypoints.
        kapture_root: folder of a kapture dataset; or
        pipeline: output folder of kapture_r2d2_pipeline: colmap, colmap3, colmap-db and
            bundler hold its database with verified geometries and its map, as they are;
            the other formats its features and matches.
        to: ``colmap``: a folder with database.db (cameras, rigs, frames, images,
            keypoints in COLMAP's pixel origin, descriptors, matches, two-view
            geometries, pose priors) and sparse, the binary model of images with poses,
            points and tracks, in the same ids; ``colmap3``: the same for COLMAP 3.8;
            ``colmap-db``: a database of COLMAP 4 alone, without descriptors;
            ``bundler``: bundle.out and its list of images; ``hloc``: features.h5,
            matches.h5, global-feats.h5 and pairs.txt, of a pipeline also pairs and
            cameras of queries; ``h5``: features.h5 alone; ``colmap-text``: one file per
            image; ``kapture``: a kapture dataset of plain files: features and matches
            (also from archives or shards) and the tables of a dataset around them, if
            any. Of a pipeline these are the tables of its mapping images: no records of
            queries, no verified matches (see --verified), and no map, which is kapture
            already in map/kapture.
        output: file for colmap-db and h5, else folder; by default in the dataset or
            --pipeline, and named colmap.db, features.h5 or as the format.
        verified: output of kapture_r2d2_verify, for two-view geometries; by default the
            folder verified in --kapture-root, if any. With --to kapture, its matches
            are exported instead of others.
        keypoints_type, descriptors_type, global_features_type: by default the only
            existing one; with --to kapture, all.
        camera_mode: for COLMAP's formats, which images of unknown cameras
            (UNKNOWN_CAMERA) share one: ``auto`` those of the same sensor of the
            dataset; ``single`` all of the same size; ``per-folder`` those of the same
            folder and size; ``per-image`` none; known cameras, and those of rigs, are
            never merged. A pipeline has decided it.
        text: write the model of colmap and colmap3 as text.
        options: force (redo an export, or replace a file of others) and progress are
            used.

    Raises:
        ConfigError: neither or both of a dataset and a pipeline.
        DatasetError, FeatureFormatError, OutputError: nothing is written. A file that
            no export wrote, or one made with other settings, stays without force.
    """
    started = time.monotonic()
    require(
        not text or to in WITH_TEXT,
        f"--text: found --to {to}, expected one of {', '.join(WITH_TEXT)}",
    )
    inputs = find_inputs(kapture_root, pipeline)
    if to == "kapture":
        return export_plain(
            inputs,
            output=output or inputs.root / to,
            types={
                "keypoints": keypoints_type,
                "descriptors": descriptors_type,
                "global_features": global_features_type,
            },
            verified=verified,
            started=started,
            options=options,
        )
    name, files = FOLDERS.get(to) or (FILES[to], ())
    place = output or inputs.root / name
    note = early_note(
        inputs,
        verified or inputs.mapping / VERIFIED_NAME,
        place,
        is_file=not files,
        settings=[
            *(to, dataclasses.asdict(config), camera_mode, text, str(verified)),
            *(keypoints_type, descriptors_type, global_features_type),
        ],
    )
    if note is not None and not options.force:
        if earlier := note.report(started):
            return earlier
    source = open_source(
        inputs.mapping,
        roots=inputs.roots,
        of_others=inputs.query_images(),
        keypoints_needed=to not in COLMAP_FORMATS,
        keypoints_type=keypoints_type or inputs.keypoints_type,
        origins=config,
    )
    form: Format
    if to in COLMAP_FORMATS:
        form = COLMAP_FORMATS[to](
            source=source,
            content=_content(to, source, inputs, verified, camera_mode),
            descriptors=(
                find_descriptors(source, descriptors_type)
                if to in WITH_DESCRIPTORS
                else None
            ),
            text=text,
        )
    elif to == "hloc":
        form = open_hloc(
            source,
            inputs,
            descriptors_type=descriptors_type,
            global_features_type=global_features_type,
            camera_origin=config.camera_origin,
        )
    else:
        tables = source_features(source, descriptors_type)
        form = FEATURE_FORMATS[to](source=source, tables=tables)
    export = Export(
        source=source,
        form=form,
        inputs=inputs,
        settings={"to": to},
        output=place,
        started=started,
        options=options,
    )
    if not files:
        return note_end(note, export.to_file(), place)
    texts = to == "colmap-text"
    contents = Contents(what="export", files=(*files, REPORT_NAME), by_name=texts)
    return note_end(note, export.to_folder(contents), place)


def _content(
    to: ExportFormat,
    source: Source,
    inputs: Inputs,
    verified: Path | None,
    camera_mode: CameraMode,
) -> Content:
    """What COLMAP's formats hold."""
    if inputs.layout is not None:
        return PipelineContent(layout=inputs.layout)
    geometries = verified or inputs.mapping / VERIFIED_NAME
    of_geometries = source.matches_type(geometries)
    if verified is not None:
        open_matches([verified], of_geometries)  # it must be there
    return DatasetContent(
        source=source,
        matches=find_matches([inputs.matches], source.matches_type(inputs.matches)),
        verified=(
            find_verified(geometries, of_geometries) if to in WITH_MODEL else None
        ),
        camera_mode=camera_mode,
    )
