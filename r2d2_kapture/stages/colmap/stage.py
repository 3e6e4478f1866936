"""From a folder of images to a new or existing COLMAP database."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from r2d2_kapture.config.colmap import ColmapConfig
from r2d2_kapture.config.extract import EXTRACTORS
from r2d2_kapture.config.match import MATCHERS, MutualNearestConfig
from r2d2_kapture.config.rotations import Rotations, read_rotations
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.core.extraction import Extractor
from r2d2_kapture.errors import DatasetError
from r2d2_kapture.extractors.registry import build_extractor
from r2d2_kapture.io.colmap.image_folder import given_cameras
from r2d2_kapture.io.kapture.camera_mode import single_camera_hint
from r2d2_kapture.io.kapture.dataset import open_dataset
from r2d2_kapture.io.kapture.feature_table import FeatureTable, open_feature_table
from r2d2_kapture.io.kapture.match_store import open_matches
from r2d2_kapture.io.kapture.pairs import read_pairs, write_pairs
from r2d2_kapture.io.kapture.refined_features import refined_type
from r2d2_kapture.io.names import equal_in_another_form
from r2d2_kapture.io.outputs.ledger import Contents, open_ledger, write_report
from r2d2_kapture.io.outputs.manifest import (
    FILE_NAME,
    Manifest,
    package_versions,
    read_manifest,
)
from r2d2_kapture.models.files import Weights
from r2d2_kapture.stages import extract, match, pairs, refine
from r2d2_kapture.stages.colmap.database import DatabaseUpdate
from r2d2_kapture.stages.colmap.extracted import write_extracted
from r2d2_kapture.stages.colmap.sparse import work_folder, write_sparse_models
from r2d2_kapture.stages.photographs import MAPPING, Inputs, Photographs
from r2d2_kapture.stages.pipeline_layout import Layout
from r2d2_kapture.stages.pipeline_leftovers import remove_refined
from r2d2_kapture.stages.turned_images import seen_as_stored
from r2d2_kapture.stages.unpaired import find_unpaired, unpaired_warning
from r2d2_kapture.stages.verify import VerifiedPairs, open_descriptors
from r2d2_kapture.types import Report, counted

REPORT_NAME = "colmap_report.json"
STATE_NAME = "database.json"
REFINED = "refined"
"""Setting of work folders whose keypoints are refined."""
CONTENTS = Contents(what="work", files=(), flag="--database")
UNPAIRED_REASON = (
    "they get no matches and are in no sparse model; list pairs of them with --pairs, "
    "or choose another --pairing.method"
)


def run(
    config: ColmapConfig,
    *,
    images: Path,
    database: Path,
    weights: Weights | None = None,
    sparse: Path | None = None,
    pairs_list: Path | None = None,
    exclude: Sequence[str] = (),
    masks: Path | None = None,
    rotations: str = "off",
    options: RunOptions = RunOptions(),
) -> Report:
    """Put features and matches of a folder of images into a COLMAP 4 database.

    Keypoints, of R2D2 by default, matches and verified two-view geometries go to a new
    or existing database; sparse models are reconstructed from it on request. Run it
    again to resume. An existing database keeps all data of images that are not in the
    folder; a copy is updated and moved into place at the end.

    Args:
        config: settings of all steps.
        images: folder of images, searched recursively.
        database: COLMAP database; images of an existing one are found by name, and its
            cameras, rigs and frames are kept; <name>_r2d2 next to it has the data to
            resume.
        weights: of config.extract's extractor, if it needs any.
        sparse: folder for sparse models 0, 1, ..., the largest first, each with map.png
            and map.ply, and report.html, which shows the first in a browser.
        pairs_list: list of pairs to match, 'name, name, score' (kapture) or 'name name'
            (COLMAP) per line; by default chosen by --pairing.
        exclude: patterns of what to leave out of the folder, see find_images.
        masks: folder of masks, see MaskFolder.
        rotations: quarter turns in which extraction sees images: ``off``, ``exif``,
            ``auto`` (EXIF's first, else the one in which an image matches others), or
            degrees clockwise; keypoints stay in stored pixels.
        options: how to run. ``force`` replaces third-party features, and redoes
            finished work, also of other settings.

    Raises:
        DatasetError: the images, the database or the list of pairs cannot be used.
        OutputError: the database holds third-party features of the same images, the
            work folder belongs to other settings, or a file cannot be written.
        ReconstructionError: a sparse model is requested and none was found.
    """
    started = time.monotonic()
    work = Layout(output=work_folder(database))
    extractor = build_extractor(config.extract, weights)
    manifest = _manifest(config, extractor, read_rotations(rotations))
    if not options.replaces:
        _refuse_other_refinement(work, config.refine.use)
    with open_ledger(work.output, CONTENTS, manifest, options):
        # all that is in the work folder is of it
        inside = dataclasses.replace(options, replace=True)
        photographs = Photographs(
            config=config.folder,
            output=work.datasets,
            exclude=exclude,
            masks=masks,
            replace=options.force,
        )
        inputs = photographs.take(images=images, mapping=None, queries={})
        (taken,) = inputs.reports
        update = DatabaseUpdate(
            database=database,
            dataset=inputs.mapping,
            state_path=work.output / STATE_NAME,
            force=options.force,
            unreadable=frozenset(item.name for item in taken.failed),
        )
        lacking = update.check(_keypoints_so_far(config, work, extractor.label))
        checked = update.sha256
        extracted = extract.run(
            extractor,
            kapture_root=inputs.mapping,
            output=work.features,
            masks=masks,
            rotations=rotations,
            options=inside,
        )
        keypoints = open_feature_table([work.features], "keypoints", extractor.label)
        source = _write_pairs(config, work, inputs, keypoints, pairs_list, inside)
        listed = [pair.names for pair in read_pairs(work.pairs(MAPPING))]
        matched = match.run(
            config.match,
            features=[work.features],
            pairs=work.pairs(MAPPING),
            output=work.matches,
            options=inside,
        )
        table = open_matches([work.matches], keypoints.type_name)
        verified = update.verify(
            config.verify,
            keypoints=keypoints,
            descriptors=open_descriptors(
                config.verify,
                [work.features],
                keypoints.type_name,
                keypoints.image_names,
            ),
            matches=table,
            pairs=listed,
            output=work.verified,
            options=inside,
        )
        steps = [extracted, matched, _verification(verified)]
        placed = keypoints
        if config.refine.use:
            write_extracted(work.database, inputs.mapping, keypoints, table, verified)
            steps.append(_refine(config, work, inputs, keypoints, inside))
            placed = open_feature_table(
                [work.refined], "keypoints", refined_type(keypoints.type_name)
            )
        else:
            remove_refined(work.refined)
        no_positions = update.write(placed, table, verified, checked)
        made = len(steps)
        if sparse is not None:
            given = given_cameras(inputs.mapping)
            steps.append(
                write_sparse_models(
                    config.map,
                    database,
                    images,
                    sparse,
                    options,
                    given,
                    seen_as_stored(folder.path for folder in keypoints.folders),
                )
            )
        unpaired = find_unpaired(keypoints.image_names, listed)
        report = Report(
            stage="colmap",
            unit="",
            summary=_summary(inputs.photographs, len(listed), steps[made:]),
            done=sum(step.done for step in steps),
            skipped=sum(step.skipped for step in steps),
            failed=tuple(item for step in (taken, *steps) for item in step.failed),
            warnings=(
                *taken.warnings,
                *lacking,
                *no_positions,
                *(text for step in steps for text in step.warnings),
                *unpaired_warning(unpaired, inputs.photographs, UNPAIRED_REASON),
                *single_camera_hint(
                    open_dataset(inputs.mapping).data, config.folder.camera_mode
                ),
            ),
            seconds=time.monotonic() - started,
            outputs=(database, *(() if sparse is None else (sparse,))),
            details={
                "images": inputs.photographs,
                "cameras_of_folder": taken.details["cameras"],
                "with_focal_length": taken.details["with_focal_length"],
                "pairing": source,
                **verified.details(),
                **{"refinement": step.details for step in steps[3:made]},
                **{k: v for step in steps[made:] for k, v in step.details.items()},
            },
        )
        return write_report(work.output / REPORT_NAME, report)


def _refuse_other_refinement(work: Layout, wanted: bool) -> None:
    """Refuse the work folder of a database whose keypoints are refined, or are not.

    Raises:
        OutputError: with the ways out.
    """
    made = read_manifest(work.output / FILE_NAME)
    if made is not None and (REFINED in made.settings) != wanted:
        found = "extracted keypoints" if wanted else "refined keypoints"
        flag = "off" if wanted else "on"
        raise CONTENTS.refusal(
            work.output, f"{found}; give --refine {flag} to continue with them"
        )


def _verification(verified: VerifiedPairs) -> Report:
    """The report of a part of this stage."""
    return Report(
        stage="verify",
        unit="pair",
        done=verified.done,
        skipped=len(verified.pairs) - verified.done,
        failed=tuple(verified.failed),
        seconds=0,
        outputs=(),
    )


def _refine(
    config: ColmapConfig,
    work: Layout,
    inputs: Inputs,
    keypoints: FeatureTable,
    options: RunOptions,
) -> Report:
    """Refine the keypoints of the database in the work folder."""
    return refine.run(
        config.refine.of_stage,
        mapping=inputs.mapping,
        database=work.database,
        output=work.refined,
        features=[work.features],
        keypoints_type=keypoints.type_name,
        options=options,
    )


def _summary(images: int, pairs: int, mapped: Sequence[Report]) -> str:
    made = f"{counted(images, 'photograph')}, {counted(pairs, 'pair')}"
    for report in mapped:
        made += f": {report.details['registered_images']} in the map"
    return made


def _manifest(
    config: ColmapConfig, extractor: Extractor, rotations: Rotations
) -> Manifest:
    """Settings that determine the content of the work folder; devices do not."""
    sections: dict[str, dict[str, Any]] = {
        "": dataclasses.asdict(config.folder),
        "extract.": extractor.provenance,
        "match.": _matcher_settings(config.match.matcher),
        "pairing.": config.pairing.record,
        "verify.": dataclasses.asdict(config.verify),
    }
    settings = {
        prefix + name: value
        for prefix, section in sections.items()
        for name, value in section.items()
    }
    if config.refine.use:
        settings |= {REFINED: True}
        refinement = dataclasses.asdict(config.refine.of_stage)
        settings |= {f"refine.{name}": value for name, value in refinement.items()}
    settings |= {"extractor": extractor.name, **EXTRACTORS.code(extractor.name)}
    if not rotations.is_off:
        settings["rotations"] = rotations.text
    model = {"name": extractor.label}
    if extractor.weights is not None:
        model["sha256"] = extractor.weights.sha256
    return Manifest(model=model, settings=settings, versions=package_versions())


def _matcher_settings(settings: Any) -> dict[str, Any]:
    """Its settings and third-party code, and its name where not the default; weights
    are matching's."""
    default = isinstance(settings, MutualNearestConfig)
    named = {} if default else {"matcher": settings.matcher}
    values = dataclasses.asdict(settings).items()
    plain = {k: str(v) if isinstance(v, Path) else v for k, v in values}
    return named | plain | MATCHERS.code(settings.matcher)


def _keypoints_so_far(
    config: ColmapConfig, work: Layout, type_name: str
) -> FeatureTable | None:
    """Keypoints that an earlier run wrote to the database."""
    root = work.features
    if config.refine.use:
        root, type_name = work.refined, refined_type(type_name)
    folder = root / "reconstruction" / "keypoints" / type_name
    if not (folder / "keypoints.txt").is_file():
        return None
    return open_feature_table([root], "keypoints", type_name)


def _write_pairs(
    config: ColmapConfig,
    work: Layout,
    inputs: Inputs,
    keypoints: FeatureTable,
    pairs_list: Path | None,
    options: RunOptions,
) -> str:
    """List the given or chosen pairs of images with features.

    Returns:
        The list or the method that the pairs come from.
    """
    source = str(pairs_list)
    names = open_dataset(inputs.mapping).image_names
    if pairs_list is not None:
        broken = {failure.name for failure in inputs.reports[0].failed}
        chosen = read_pairs(pairs_list, {*names, *broken})
        named = {name for pair in chosen for name in pair.names}
        unknown = named - broken - set(names)
        if unknown:
            name = min(unknown)
            form = equal_in_another_form(name, names)
            way_out = (
                "names are relative to the folder of images"
                if form is None
                else f"the file is {ascii(form)}, the list has {ascii(name)}, another "
                "Unicode form of it: rename one"
            )
            raise DatasetError(
                f"{pairs_list}: image '{name}' is not among the images; {way_out}"
            )
    else:
        pairing = config.folder.pairing(config.pairing, len(names))
        source = pairing.method
        path = work.pairs(pairing.method)
        pairs.run(
            pairing,
            mapping=inputs.mapping,
            output=path,
            features=[work.features],
            keypoints_type=keypoints.type_name,
            options=options,
        )
        chosen = read_pairs(path)
    extracted = frozenset(keypoints.image_names)
    usable = [pair for pair in chosen if extracted.issuperset(pair.names)]
    if not usable:
        raise DatasetError(
            f"{pairs_list or inputs.mapping}: found no pair among "
            f"{counted(len(names), 'image')}, {len(extracted)} with features; expected "
            "2 images or more with features, and a pair of them"
        )
    write_pairs(work.pairs(MAPPING), usable)
    return source
