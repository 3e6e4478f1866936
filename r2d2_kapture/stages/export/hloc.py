"""hloc's files: features, matches, global features and lists of pairs and queries."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from r2d2_kapture.coordinates import CameraOrigin
from r2d2_kapture.io.features.hdf5 import write_h5
from r2d2_kapture.io.features.hloc import (
    camera_line,
    check_plain_names,
    write_h5_global,
    write_h5_matches,
)
from r2d2_kapture.io.kapture.feature_provenance import refuse_stale_matches
from r2d2_kapture.io.kapture.feature_table import (
    FeatureTable,
    find_feature_folders,
    open_feature_table,
)
from r2d2_kapture.io.kapture.local_features import LocalFeatureTables
from r2d2_kapture.io.kapture.match_store import MatchTable, find_matches
from r2d2_kapture.io.kapture.pairs import read_pairs, sorted_pair
from r2d2_kapture.io.outputs.atomic import write_text_atomic
from r2d2_kapture.io.progress import Progress
from r2d2_kapture.stages.export.feature_files import NO_SCORES, source_features
from r2d2_kapture.stages.export.formats import BeforeMove, Written, readable_features
from r2d2_kapture.stages.export.inputs import Inputs
from r2d2_kapture.stages.export.query_cameras import Queries
from r2d2_kapture.stages.export.source import Source
from r2d2_kapture.types import Failure, PairMatches, some_names

FEATURES_NAME, MATCHES_NAME = "features.h5", "matches.h5"
GLOBAL_NAME = "global-feats.h5"
PAIRS_NAME = "pairs.txt"
HLOC_FILES = (
    *(FEATURES_NAME, MATCHES_NAME, GLOBAL_NAME),
    *(PAIRS_NAME, "pairs-*.txt", "queries-*.txt"),
)
UNCERTAINTY = 1.0
"""Pixels: hloc's own where a method states none."""

Pair = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Hloc:
    """The files of a dataset, or of a pipeline with its queries.

    Attributes:
        source: mapping images.
        queries: by name.
        tables: keypoints and descriptors of all of these.
        matches: of their pairs; may be empty.
        pairs_files: lists of pairs of queries, by their names.
        global_features: of the images; None without.
        camera_origin: of the queries' cameras, as the user gives it.
    """

    source: Source
    queries: Mapping[str, Queries]
    tables: LocalFeatureTables
    matches: MatchTable
    pairs_files: Mapping[str, Path] = field(default_factory=dict)
    global_features: FeatureTable | None = None
    camera_origin: CameraOrigin = "auto"

    @property
    def settings(self) -> dict[str, Any]:
        """The other features."""
        return {
            "descriptors_type": self.tables.descriptors.type_name,
            "global_features_type": (
                self.global_features and self.global_features.type_name
            ),
        }

    @property
    def files(self) -> Iterator[Path | str]:
        """Those of descriptors, matches, global features and queries."""
        names = self._names
        yield from self.tables.descriptors.files(names)
        yield from self.matches.files(self.matches.pairs)
        for queries in self.queries.values():
            yield from queries.files
        yield from self.pairs_files.values()
        if self.global_features is not None:
            yield from self.global_features.files(names)

    @property
    def _names(self) -> list[str]:
        """All images with keypoints."""
        of_queries = (n for q in self.queries.values() for n in q.dataset.image_names)
        table = self.source.keypoints
        return [*self.source.names, *(name for name in of_queries if name in table)]

    def write(
        self, output: Path, before_move: BeforeMove, *, progress: bool | None
    ) -> Written:
        """See ``Format``.

        Raises:
            FeatureFormatError: names that hloc cannot tell apart.
            DatasetError: matches of features that were made anew since.
        """
        names = self._names
        check_plain_names(names)
        refuse_stale_matches(self.matches, self.tables.keypoints, names)
        failed: list[Failure] = []
        items = readable_features(self._paths, self.tables, failed, progress=progress)
        write_h5(output / FEATURES_NAME, items, uncertainty=UNCERTAINTY)
        usable = frozenset(names) - {failure.name for failure in failed}
        lists = self._pairs(usable)
        wanted = [pair for pairs in lists.values() for pair in pairs]
        kept, dropped = write_h5_matches(
            output / MATCHES_NAME, self._matched(wanted, progress)
        )
        for name, pairs in lists.items():
            text = "".join(f"{first} {second}\n" for first, second in pairs)
            write_text_atomic(output / name, text)
        details: dict[str, object] = {
            "scores": NO_SCORES,
            "images": len(usable),
            "pairs": len(wanted),
            "matches": kept,
        }
        if self.global_features is not None:
            details["global_features"] = _write_global(
                self.global_features, output / GLOBAL_NAME, usable
            )
        warnings = list(self._write_queries(output, usable))
        if not wanted:
            warnings.append(
                f"there are no matches of type {self.matches.keypoints_type}: "
                f"{PAIRS_NAME} and {MATCHES_NAME} are empty"
            )
        warnings += _dropped_warning(dropped)
        warnings += self._spaces_warning(lists, usable)
        return Written(failed=tuple(failed), details=details, warnings=tuple(warnings))

    @property
    def _paths(self) -> dict[str, Path]:
        paths = self.source.paths
        for queries in self.queries.values():
            paths |= queries.dataset.image_paths
        return {name: paths[name] for name in self._names}

    def _pairs(self, usable: Container[str]) -> dict[str, list[Pair]]:
        """Pairs that have matches by the name of their list; a query comes first."""
        mapping = frozenset(self.source.names)
        there = [
            pair
            for pair in self.matches.pairs
            if pair[0] in usable and pair[1] in usable
        ]
        lists = {PAIRS_NAME: [pair for pair in there if mapping.issuperset(pair)]}
        known = frozenset(there)
        for name, path in self.pairs_files.items():
            lists[f"pairs-{name}.txt"] = [
                pair.names
                for pair in read_pairs(path, known=frozenset(self._names))
                if sorted_pair(*pair.names) in known
            ]
        return lists

    def _matched(
        self, pairs: Sequence[Pair], progress: bool | None
    ) -> Iterator[tuple[Pair, PairMatches, int]]:
        count_of = lru_cache(None)(self.tables.keypoints.count)
        bar = Progress("export", "pair", len(pairs), shown=progress)
        for pair in bar.over(pairs):
            matches = self.matches.read(*pair)
            if matches is not None:
                counts = count_of(pair[0]), count_of(pair[1])
                matches.check_counts(pair, counts)
                yield pair, matches, counts[0]

    def _write_queries(self, output: Path, usable: Container[str]) -> Iterator[str]:
        """Write lists of queries with their cameras; warn of what is not certain."""
        for name, queries in self.queries.items():
            images = [one for one in queries.dataset.image_names if one in usable]
            cameras, warnings = queries.cameras(images, self.camera_origin)
            text = "".join(camera_line(one, cameras[one]) + "\n" for one in images)
            write_text_atomic(output / f"queries-{name}.txt", text)
            yield from warnings

    def _spaces_warning(
        self, lists: Mapping[str, Sequence[Pair]], usable: Iterable[str]
    ) -> Iterator[str]:
        """Warn of names that hloc splits, and of the files that have them."""
        spaced = {name for name in usable if " " in name}
        listed = {file: {n for pair in lists[file] for n in pair} for file in lists}
        for query, queries in self.queries.items():
            listed[f"queries-{query}.txt"] = {*queries.dataset.image_names}
        files = [file for file, names in listed.items() if names & spaced]
        if files:
            yield (
                f"{len(spaced)} images have spaces in their names, at which hloc "
                f"splits its lists: {some_names(sorted(spaced))}; rename them before "
                f"hloc reads {', '.join(files)}"
            )


def open_hloc(
    source: Source,
    inputs: Inputs,
    *,
    descriptors_type: str | None,
    global_features_type: str | None,
    camera_origin: CameraOrigin,
) -> Hloc:
    """Open what hloc's files hold.

    Raises:
        DatasetError, FeatureFormatError: features or queries cannot be used.
    """
    queries: dict[str, Queries] = {}
    lists: dict[str, Path] = {}
    if inputs.layout is not None:
        for name, dataset in inputs.query_datasets().items():
            localized = inputs.layout.localized(name)
            queries[name] = Queries(dataset=dataset, localized=localized)
            lists[name] = inputs.layout.pairs(name)
    roots = [*inputs.roots, *([inputs.layout.retrieval] if inputs.layout else [])]
    there = [root for root in roots if root.is_dir()]
    has_global = any(find_feature_folders(root, "global_features") for root in there)
    return Hloc(
        source=source,
        queries=queries,
        tables=source_features(source, descriptors_type),
        matches=find_matches([inputs.matches], source.matches_type(inputs.matches)),
        pairs_files={name: path for name, path in lists.items() if path.is_file()},
        global_features=(
            open_feature_table(there, "global_features", global_features_type)
            if has_global or global_features_type is not None
            else None
        ),
        camera_origin=camera_origin,
    )


def _write_global(table: FeatureTable, path: Path, images: Iterable[str]) -> int:
    rows = [(name, table.read(name)[0]) for name in sorted(images) if name in table]
    write_h5_global(path, rows)
    return len(rows)


def _dropped_warning(dropped: int) -> Iterator[str]:
    if dropped:
        yield (
            f"{dropped} matches are left out: hloc keeps one match, the best, for each "
            "keypoint of a pair's first image"
        )
