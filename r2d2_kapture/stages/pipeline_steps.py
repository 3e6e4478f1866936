"""The stages of a pipeline in their order, with the inputs that they share."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from r2d2_kapture.config.pairs import PairsConfig
from r2d2_kapture.config.pipeline import PipelineConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.config.stores import Store
from r2d2_kapture.io.kapture.dataset import Dataset
from r2d2_kapture.io.kapture.feature_table import open_feature_table
from r2d2_kapture.io.kapture.refined_features import refined_type
from r2d2_kapture.stages import evaluate, localize, map, match, pairs, refine, verify
from r2d2_kapture.stages.cluster import Executor, here
from r2d2_kapture.stages.pipeline_layout import Layout
from r2d2_kapture.types import Report


@dataclass(frozen=True, kw_only=True)
class Sources:
    """The features of all images.

    Attributes:
        roots: folders that are searched.
        keypoints_type, descriptors_type, global_features_type: in use; None is the only
            existing one.
        images: that may be paired; None takes all.
    """

    roots: tuple[Path, ...]
    keypoints_type: str | None
    descriptors_type: str | None
    global_features_type: str | None
    images: frozenset[str] | None = None


@dataclass(frozen=True, kw_only=True)
class MapInputs:
    """What a map is made of.

    Attributes:
        database: with verified matches.
        features: folders of its keypoints.
        keypoints_type: of these; None is the only existing one.
    """

    database: Path
    features: tuple[Path, ...]
    keypoints_type: str | None


@dataclass(frozen=True, kw_only=True)
class Steps:
    """The stages of a pipeline, with what they share.

    Attributes:
        config: of all stages.
        mapping: dataset of the map's images.
        sources: features of all images.
        layout: of the outputs.
        options: how the stages run.
        execute: runs those that make slices.
        store: layout of matches, global features and refined keypoints.
        model_in: that the dataset was made of; None without one.
    """

    config: PipelineConfig
    mapping: Dataset
    sources: Sources
    layout: Layout
    options: RunOptions
    execute: Executor = here
    store: Store = "files"
    model_in: Path | None = None

    def build_map(self) -> Iterator[Report]:
        """Pairs of mapping images, their matches, the geometry of those, the map."""
        pairs_file = self.layout.pairs("mapping")
        yield from self._match(self.config.mapping_pairs, None, pairs_file)
        yield self.execute(
            verify.run,
            self.config.verify,
            mapping=self.mapping,
            features=self.sources.roots,
            matches=[self.layout.matches],
            pairs=pairs_file,
            database=self.layout.database,
            output=self.layout.verified,
            keypoints_type=self.sources.keypoints_type,
            store=self.store,
            options=self.options,
        )
        inputs = MapInputs(
            database=self.layout.database,
            features=self.sources.roots,
            keypoints_type=self.sources.keypoints_type,
        )
        if self.config.refine.use:
            yield self._refine(inputs, self.layout.refined)
            inputs = self._refined(self.layout.refined)
        if self.config.refines_again:
            yield self._map(inputs, self.layout.first_map)
            yield self._refine(inputs, self.layout.refined_again, self.layout.first_map)
            inputs = self._refined(self.layout.refined_again)
        yield self._map(inputs, self.layout.map)

    def _refine(
        self, inputs: MapInputs, output: Path, map_path: Path | None = None
    ) -> Report:
        return self.execute(
            refine.run,
            self.config.refine.of_stage,
            mapping=self.mapping,
            database=inputs.database,
            output=output,
            features=inputs.features,
            keypoints_type=inputs.keypoints_type,
            map_path=map_path,
            store=self.store,
            options=self.options,
        )

    def _refined(self, output: Path) -> MapInputs:
        """What refinement has written."""
        roots, name = self.sources.roots, self.sources.keypoints_type
        extracted = open_feature_table(roots, "keypoints", name).type_name
        return MapInputs(
            database=output / self.layout.refined_database.name,
            features=(output,),
            keypoints_type=refined_type(extracted),
        )

    def _map(self, inputs: MapInputs, output: Path) -> Report:
        """Make a map; that of keypoints refined again begins with the first one."""
        again = self.config.refines_again and output == self.layout.map
        return map.run(
            self.config.map,
            mapping=self.mapping,
            database=inputs.database,
            output=output,
            features=inputs.features,
            keypoints_type=inputs.keypoints_type,
            initial=self.layout.first_map if again else None,
            options=self.options,
        )

    def localize(self, name: str, query: Dataset) -> Iterator[Report]:
        """Pairs of queries with mapping images, matches, poses, and their errors."""
        pairs_file = self.layout.pairs(name)
        yield from self._match(self.config.query_pairs, query, pairs_file)
        yield self.execute(
            localize.run,
            self.config.localize,
            map_path=self.layout.map,
            query=query,
            pairs=pairs_file,
            features=self.sources.roots,
            matches=[self.layout.matches],
            output=self.layout.localized(name),
            keypoints_type=self.sources.keypoints_type,
            options=self.options,
        )
        if query.data.trajectories:
            yield evaluate.run(
                self.config.evaluate,
                ground_truth=query,
                estimated={name: self.layout.localized(name)},
                output=self.layout.evaluated(name),
                map_path=self.layout.map,
                options=dataclasses.replace(self.options, replace=True),
            )

    def register(self, queries: Mapping[str, Dataset]) -> Report:
        """The map and all localized queries as one COLMAP model."""
        return localize.register(
            self.config.localize,
            map_path=self.layout.map,
            localized={
                self.layout.localized(name): localize.QueryInputs(
                    query=query,
                    pairs=self.layout.pairs(name),
                    features=self.sources.roots,
                    matches=(self.layout.matches,),
                    keypoints_type=self.sources.keypoints_type,
                )
                for name, query in queries.items()
            },
            output=self.layout.model,
            options=self.options,
        )

    def _match(
        self, which: PairsConfig, query: Dataset | None, pairs_file: Path
    ) -> Iterator[Report]:
        """Pairs of mapping images, or of queries with them, and their matches."""
        yield pairs.run(
            which,
            mapping=self.mapping,
            query=query,
            output=pairs_file,
            features=self.sources.roots,
            map_path=self.model_in if which.method == "covisibility" else None,
            only=self.sources.images,
            keypoints_type=self.sources.keypoints_type,
            descriptors_type=self.sources.descriptors_type,
            global_features_type=self.sources.global_features_type,
            global_features_output=self.layout.retrieval,
            store=self.store,
            options=self.options,
        )
        yield self.execute(
            match.run,
            self.config.match,
            features=self.sources.roots,
            pairs=pairs_file,
            output=self.layout.matches,
            keypoints_type=self.sources.keypoints_type,
            descriptors_type=self.sources.descriptors_type,
            store=self.store,
            options=self.options,
        )
