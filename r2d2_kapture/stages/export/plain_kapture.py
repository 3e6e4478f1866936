"""A kapture dataset of plain files, whatever layout its features and matches have."""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.errors import DatasetError, FeatureFormatError
from r2d2_kapture.io.kapture.feature_table import (
    SUFFIXES,
    FeatureKind,
    find_feature_folders,
)
from r2d2_kapture.io.kapture.match_store import ARCHIVE_NAME, SUFFIX, matches_folder
from r2d2_kapture.io.kapture.pixel_origins import ORIGIN_NAME
from r2d2_kapture.io.names import shown
from r2d2_kapture.io.outputs.atomic import output_error
from r2d2_kapture.io.outputs.finished import FINISHED_NAME, Finished
from r2d2_kapture.io.outputs.ledger import (
    STAGE,
    Contents,
    open_item,
    open_ledger,
    write_item,
    write_report,
)
from r2d2_kapture.io.outputs.lock import LOCK_NAME
from r2d2_kapture.io.outputs.manifest import Manifest, package_versions
from r2d2_kapture.io.outputs.pieces import refuse_pieces
from r2d2_kapture.io.progress import Progress
from r2d2_kapture.io.stores.reading import (
    ShardItems,
    StoredItem,
    StoredItems,
    open_items,
)
from r2d2_kapture.io.stores.shards import check_shards
from r2d2_kapture.stages.export.inputs import Inputs, pipeline_around
from r2d2_kapture.types import Failure, Report

REPORT_NAME = "export_report.json"
IMAGES = Path("sensors") / "records_data"
ITEMS = tuple(f"reconstruction/**/*{suffix}" for suffix in (*SUFFIXES.values(), SUFFIX))
OF_RUNS = (LOCK_NAME, FINISHED_NAME)


@dataclass(frozen=True, kw_only=True)
class TypeFolder:
    """Items of one type in a folder.

    Attributes:
        path: of the folder.
        inside: where it belongs in a dataset.
        items: in it.
        suffix: of their names.
        before: folders of the same type whose items come before these.
        alone: whether there is no other folder of the type.
    """

    path: Path
    inside: Path
    items: StoredItems
    suffix: str
    before: tuple[StoredItems, ...] = ()
    alone: bool = True

    def tables(self) -> list[Path]:
        """Its small files: how items are read, and, if they say so of all items, how
        they were made."""
        of_all = (f"{self.inside.parent.name}.txt", ORIGIN_NAME)
        return [
            path
            for path in sorted(self.path.iterdir())
            if path.is_file()
            and path.suffix not in (self.suffix, ".tar")
            and path.name not in OF_RUNS
            and (self.alone or (path.name in of_all and not self.before))
        ]

    def names(self) -> Iterator[str]:
        """Of the items that are exported."""
        for name in self.items.names():
            hidden = any(items.find(name) is not None for items in self.before)
            if name.endswith(self.suffix) and not hidden:
                yield name


@dataclass(kw_only=True)
class Counts:
    """Files of items: written, found written, and not to be read."""

    done: int = 0
    skipped: int = 0
    failed: list[Failure] = field(default_factory=list)

    def report(self, started: float, output: Path) -> Report:
        """The report of a run that began at a time of time.monotonic."""
        return Report(
            stage="export",
            unit="file",
            done=self.done,
            skipped=self.skipped,
            failed=tuple(self.failed),
            seconds=time.monotonic() - started,
            outputs=(output,),
        )


def export_plain(
    inputs: Inputs,
    *,
    output: Path,
    types: Mapping[FeatureKind, str | None],
    verified: Path | None,
    started: float,
    options: RunOptions,
) -> Report:
    """Write the features and matches of folders as kapture's plain files.

    Tables of sensors and of points are copied, and the folder of images is linked.

    Args:
        inputs: where they are.
        output: folder of the dataset.
        types: the only types that are exported, where these are named.
        verified: output of kapture_r2d2_verify, whose matches replace others.
        started: when the run did, by time.monotonic.
        options: force and progress are used.

    Raises:
        DatasetError: there are neither features nor matches, or a shard is damaged.
        OutputError: the output was made otherwise, or cannot be written.
    """
    folders = _type_folders(inputs, types, verified or inputs.matches)
    copies = _copies(inputs.mapping, folders)
    settings = {
        STAGE: "export",
        "to": "kapture",
        **{f"{kind}_type": types[kind] or "all" for kind in SUFFIXES},
        "verified": str(verified.resolve()) if verified else "",
    }
    finished = Finished.of(
        output / FINISHED_NAME,
        settings,
        (
            *copies,
            *(f for one in folders for f in one.items.files(one.names())),
        ),
    )
    manifest = Manifest(
        model={},
        settings=settings,
        versions=package_versions(),
        inputs={inputs.flag: (str(inputs.root.resolve()), finished.inputs)},
    )
    if not options.force:
        if earlier := finished.report(started, items=_places(output, folders)):
            return earlier
    for folder in folders:
        if isinstance(folder.items, ShardItems):
            check_shards(folder.items.folder)
    counts = Counts()
    bar = Progress("export", "file", None, shown=options.progress)
    copied = (glob.escape(str(inside)) for inside in copies.values())
    contents = Contents(
        what="export", files=(*ITEMS, *copied, str(IMAGES), REPORT_NAME)
    )
    with open_ledger(output, contents, manifest, options, anew=options.force), bar:
        for table, inside in copies.items():
            with open_item(output, output / inside, keep_same=True) as file:
                file.write(table.read_bytes())
        _link_images(inputs.mapping / IMAGES, output / IMAGES)
        for folder in folders:
            for name in folder.names():
                _export_item(output, folder, name, counts)
                bar.update()
        report = counts.report(started, output)
        write_report(output / REPORT_NAME, report)
        if report.failed:  # these are tried again
            return report
        places = _places(output, folders)
        tables = [output / inside for inside in copies.values()]
        return finished.note(report, [output / REPORT_NAME, *tables], places)


def _type_folders(
    inputs: Inputs, types: Mapping[FeatureKind, str | None], matches: Path
) -> list[TypeFolder]:
    """The folders of all types, in the order in which their items count.

    Raises:
        DatasetError: there are none, or slices of one are not put together.
    """
    found: list[tuple[Path, Path, StoredItems, str]] = []
    for root in inputs.roots:
        for kind, suffix in SUFFIXES.items():
            for one in find_feature_folders(root, kind):
                if types[kind] in (None, one.type_name):
                    inside = Path("reconstruction", kind, one.type_name)
                    found.append((one.path, inside, one.items, suffix))
    parent = matches_folder(matches, "any").parent
    for path in sorted(parent.glob("*/")):
        if types["keypoints"] in (None, path.name):
            inside = Path("reconstruction", "matches", path.name)
            items = open_items(path, ARCHIVE_NAME, SUFFIX)
            found.append((path, inside, items, SUFFIX))
    for path, *_ in found:
        refuse_pieces(path)
    if not found:
        pipeline = None if inputs.layout else pipeline_around(inputs.root)
        way_out = (
            "expected outputs of kapture_r2d2_extract or kapture_r2d2_match"
            if pipeline is None
            else "which a pipeline keeps in folders of their own; give "
            f"--pipeline {pipeline} instead of --kapture-root"
        )
        raise DatasetError(
            f"{inputs.root}: found neither features nor matches of the types wanted, "
            f"{way_out}"
        )
    places = [inside for _, inside, _, _ in found]
    return [
        TypeFolder(
            path=path,
            inside=inside,
            items=items,
            suffix=suffix,
            before=tuple(other[2] for other in found[:number] if other[1] == inside),
            alone=places.count(inside) == 1,
        )
        for number, (path, inside, items, suffix) in enumerate(found)
    ]


def _copies(root: Path, folders: Sequence[TypeFolder]) -> dict[Path, Path]:
    """Where tables belong in a dataset: those of sensors, of points and of types."""
    found = sorted([*root.glob("sensors/*"), *root.glob("reconstruction/*.txt")])
    copies = {table: table.relative_to(root) for table in found if table.is_file()}
    for folder in folders:
        copies |= {table: folder.inside / table.name for table in folder.tables()}
    return copies


def _places(output: Path, folders: Sequence[TypeFolder]) -> Iterator[str]:
    """Where the items are exported to."""
    for folder in folders:
        place = output / folder.inside
        yield from (os.path.join(place, name) for name in folder.names())


def _link_images(source: Path, target: Path) -> None:
    if source.is_dir() and not os.path.lexists(target):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(source.resolve())
        except OSError as error:
            raise output_error(target, error) from error


def _export_item(output: Path, folder: TypeFolder, name: str, counts: Counts) -> None:
    found = folder.items.find(name)
    if found is None:
        return
    path = os.path.join(output, folder.inside, name)
    try:
        if os.stat(path).st_size == found.size:
            counts.skipped += 1
            return
    except OSError:
        pass
    try:
        content = _content(found, name)
    except FeatureFormatError as error:
        counts.failed.append(Failure(name=shown(name), reason=str(error)))
        return
    write_item(output, path, content)
    counts.done += 1


def _content(item: StoredItem, name: str) -> bytes:
    try:
        content = item.read().tobytes()
    except OSError as error:
        raise FeatureFormatError(
            f"{item.path}: cannot be read: {error.strerror}"
        ) from error
    if len(content) != item.size:
        raise FeatureFormatError(f"{item.path}: breaks off in '{shown(name)}'")
    return content
