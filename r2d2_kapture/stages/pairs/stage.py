"""Pairs: which images to match, as a list in kapture's format."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from r2d2_kapture.config.checks import require
from r2d2_kapture.config.pairs import ADDED, PairMethod, PairsConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.config.slices import read_slice
from r2d2_kapture.config.stores import Store
from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.kapture.dataset import Dataset, DatasetOrPath, open_dataset
from r2d2_kapture.io.kapture.global_features import ARCHIVE_NAME, SUFFIX
from r2d2_kapture.io.kapture.pairs import (
    PairList,
    pairs_sha256,
    read_pairs,
    write_pairs,
)
from r2d2_kapture.io.outputs.atomic import (
    read_json,
    remove_file,
    write_json_atomic,
)
from r2d2_kapture.io.outputs.finished import FINISHED_NAME, Finished
from r2d2_kapture.io.outputs.image_changes import refuse_shared_names
from r2d2_kapture.io.outputs.image_records import sha256_of
from r2d2_kapture.io.outputs.ledger import Contents
from r2d2_kapture.io.outputs.manifest import differences
from r2d2_kapture.io.stores.shards import SHARD_FILES
from r2d2_kapture.stages.pairs.inputs import PairInputs
from r2d2_kapture.stages.pairs.methods import PAIR_METHODS, method_files
from r2d2_kapture.stages.pairs.retrieval import VOCABULARY_NAME
from r2d2_kapture.stages.unpaired import REASONS, unpaired_warning
from r2d2_kapture.types import Failure, Report

LISTS = Contents(what="pairs", files=())


def run(
    config: PairsConfig,
    *,
    mapping: DatasetOrPath,
    query: DatasetOrPath | None = None,
    output: Path,
    features: Sequence[Path] = (),
    map_path: Path | None = None,
    merge: Sequence[Path] = (),
    only: Collection[str] | None = None,
    keypoints_type: str | None = None,
    descriptors_type: str | None = None,
    global_features_type: str | None = None,
    global_features_output: Path | None = None,
    store: Store = "files",
    options: RunOptions = RunOptions(),
) -> Report:
    """Choose image pairs to match, and write their list.

    Pairs are all, neighbours in time or space, images that observe the same points of a
    map, similar by existing global features or ones aggregated from local features,
    that match at low resolution, or the best of several lists. Without --query, mapping
    images are paired with each other; with it, queries with mapping images. A query is
    paired with another one only if that is a mapping image too. Images without a pair
    are named in the report. The list is ordered by the first image's name, then by
    descending score, and written by each run, since inputs may have changed; computed
    features are kept.

    Args:
        config: the method and its settings.
        mapping: kapture dataset of the map's images.
        query: kapture dataset of query images, paired with mapping images only.
        output: list of pairs, in kapture's format; <stem>.report.json next to it has
            settings and counts.
        features: folders of local or global features in addition to those in the
            datasets, such as global_features/AP-GeM-LM18.
        map_path: for covisibility: a COLMAP model, a kapture dataset with points3d and
            observations, or an output of kapture_r2d2_map.
        merge: lists of pairs to add; of duplicates the first is kept; --method merge
            keeps all pairs unless --top-k limits them per image, --method fuse chooses
            the best of all lists together.
        only: images that may be paired, such as those with features; None takes all.
        keypoints_type, descriptors_type, global_features_type: by default the only
            existing one.
        global_features_output: kapture folder for the features that --method local,
            --method lowres and the search for loops compute, to share between lists; by
            default <output>_features next to the list.
        store: ``files`` writes each of these features, and matches, into a file of its
            own; ``tar`` into one archive of a kind, ``shards`` into archives of bounded
            size, see docs/formats.md.
        options: how to run.

    Raises:
        ConfigError: the method lacks an input, or does not use one.
        DatasetError, FeatureFormatError, ReconstructionError: inputs are broken.
        OutputError: the list was made with other settings or other tools.
    """
    started = time.monotonic()
    check_inputs(config.method, query, map_path, merge)
    report_path = output.with_name(f"{output.stem}.report.json")
    settings = {
        **config.record,
        "top_k": config.partners,
        "keypoints_type": keypoints_type,
        "descriptors_type": descriptors_type,
        "global_features_type": global_features_type,
        "with_query": query is not None,
        "merged_lists": len(merge),
    }
    if output.is_dir():
        found = (
            f"a folder, expected a file for the list, such as {output / 'pairs.txt'}"
        )
        raise LISTS.refusal(output, found, forcible=False)
    if output.exists() and not options.replaces:
        refuse_others(output, report_path, settings)
    datasets = [open_with_images(root) for root in (mapping, query) if root]
    refuse_shared_names([dataset.image_paths for dataset in datasets])
    known = {name for dataset in datasets for name in dataset.image_names}
    inputs = PairInputs(
        mapping=datasets[0],
        query=None if query is None else datasets[1],
        features=(*features, *(dataset.root for dataset in datasets)),
        map_path=map_path,
        lists={path: read_pairs(path, known) for path in merge},
        keypoints_type=keypoints_type,
        descriptors_type=descriptors_type,
        global_features_type=global_features_type,
        described=global_features_output or output.with_name(f"{output.stem}_features"),
        store=store,
        options=options,
    )
    lists = list(inputs.lists.values())
    merged = PairList.joined(lists)
    finished = Finished.of(
        output.with_name(f".{output.name}{FINISHED_NAME}"),
        [
            settings,
            sorted(only or ()),
            [pairs.digest for pairs in lists],
            store,
        ],
        (
            *(f for dataset in datasets for f in dataset.files),
            *method_files(config, inputs),
        ),
    )
    if not options.force and (earlier := finished.report(started)):
        return earlier
    selected = PAIR_METHODS[config.method](config, inputs)
    added = PairList.of([]) if config.method == "fuse" else merged
    every = arranged(config, selected.pairs, added, with_query=query is not None)
    every, unlisted = _listable(every, inputs)
    first_names = list(inputs.first_names)
    if only is not None:
        every = every.where(every.holding(only) == 2)
        first_names = [name for name in first_names if name in only]
    pairs = PairList.of(read_slice(config.slice).of(every))
    failed = (*unlisted, *selected.failed)
    unpaired = sorted(set(first_names).difference(every.images))
    digest = pairs_sha256(output, pairs)
    unchanged = output.exists() and sha256_of(output) == digest
    report = Report(
        stage="pairs",
        unit="pair",
        done=0 if unchanged else len(pairs),
        skipped=len(pairs) if unchanged else 0,
        failed=failed,
        seconds=time.monotonic() - started,
        outputs=(output,),
        details={
            "method": config.method,
            "images_in_pairs": len(pairs.images),
            **selected.details,
        },
        warnings=(
            *selected.warnings,
            *unpaired_warning(
                sorted(set(unpaired) - {failure.name for failure in failed}),
                len(first_names),
                REASONS[config.method],
            ),
        ),
    )
    described = report.to_json() | {
        "unpaired": unpaired,
        "settings": settings,
        "sha256": digest,
    }
    if not unchanged:
        # remove the list first and write it last: it never exists without its report
        remove_file(output)
        write_json_atomic(report_path, described)
        write_pairs(output, pairs)
    elif report.failed or _says_otherwise(report_path, described):
        write_json_atomic(report_path, described)
    if report.failed:  # these are tried again
        return report
    described_by = (f"*{SUFFIX}", ARCHIVE_NAME, *SHARD_FILES, VOCABULARY_NAME)
    of_types = inputs.described / "reconstruction" / "global_features"
    made = [path for name in described_by for path in of_types.glob(f"*/**/{name}")]
    return finished.note(report, (output, report_path, *made))


def _listable(
    pairs: PairList, inputs: PairInputs
) -> tuple[PairList, tuple[Failure, ...]]:
    """The pairs that can be listed, and failures of images with other names."""
    datasets = [inputs.mapping, *([] if inputs.query is None else [inputs.query])]
    comments = [n for d in datasets for n in d.image_names if n.startswith("#")]
    reason = "starts with #, which kapture's lists do not support; rename the image"
    failed = tuple(Failure(name=name, reason=f"{name}: {reason}") for name in comments)
    left_out = tuple(failure for dataset in datasets for failure in dataset.left_out)
    kept = pairs.where(pairs.holding(comments) == 0) if comments else pairs
    return kept, left_out + failed


def check_inputs(
    method: PairMethod,
    query: DatasetOrPath | None,
    map_path: Path | None,
    merge: Sequence[Path],
) -> None:
    """Refuse a method that lacks an input, or does not use one.

    Raises:
        ConfigError: naming the flag.
    """
    require(
        method not in ("sequential", "covisibility") or query is None,
        f"--method {method}: found --query, expected mapping images alone; choose "
        "another method for queries",
    )
    require(
        method == "covisibility" or map_path is None,
        f"--method {method}: found --map, which only covisibility uses",
    )
    require(
        method not in ("fuse", "merge") or bool(merge),
        f"--method {method}: found no --merge, expected lists of pairs",
    )


def open_with_images(root: DatasetOrPath) -> Dataset:
    """Open a dataset with images.

    Raises:
        DatasetError: it has no images, or as open_dataset.
    """
    dataset = open_dataset(root)
    if not dataset.image_names:
        raise DatasetError(
            f"{dataset.root}: records_camera.txt lists no image; nothing to pair"
        )
    return dataset


def arranged(
    config: PairsConfig, pairs: PairList, merged: PairList, *, with_query: bool
) -> PairList:
    """The complete list, in order and without duplicates.

    Args:
        config: numbers of pairs.
        pairs: of the method; of duplicates, the better is kept.
        merged: of lists, in order of precedence; with method ``merge`` the best
            ``top_k`` of each first image are kept.
        with_query: the first image is a query; else the pair is in order of names.
    """
    if config.min_score is not None:
        pairs = pairs.where(pairs.scores >= config.min_score)
    if not with_query:
        pairs = pairs.in_name_order()
    if config.method == "merge" and config.partners:
        merged = merged.best_of_each(config.partners)
    every = PairList.joined([pairs.best_first(), merged]).unique()
    if config.min_score is not None:
        every = every.where(every.scores >= config.min_score)
    return every.best_first() if len(merged) else every


def _says_otherwise(report_path: Path, described: dict[str, Any]) -> bool:
    """Whether the report of an equal list names other settings or unpaired images."""
    written = read_json(report_path)
    ours = json.loads(json.dumps(described))
    return any(written.get(key) != ours[key] for key in ("settings", "unpaired"))


def refuse_others(output: Path, report_path: Path, settings: dict[str, Any]) -> None:
    """Refuse to replace a list made with other settings.

    Raises:
        OutputError: naming what differs.
    """
    report = read_json(report_path)
    if report.get("sha256") != sha256_of(output):
        found = "a list that was edited or made by another tool"
        raise LISTS.refusal(output, found)
    # as JSON has them
    ours = json.loads(json.dumps(settings))
    unsaid = {name: getattr(PairsConfig, name) for name in ADDED}
    theirs = report.get("settings", {})
    LISTS.refuse(output, differences(unsaid | theirs, unsaid | ours))
