"""Localization on the virtual gallery, with the features that its authors computed.

The bars are those published for the tutorial (kapture-localization) and, for the rig, a
prototype's. Four queries cannot rank millimetres: nothing here is to be tuned on them.
"""

from __future__ import annotations

import itertools
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
import pytest

from r2d2_kapture.config.localize import LocalizeConfig
from r2d2_kapture.config.map import MapConfig
from r2d2_kapture.config.match import MatchConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.config.verify import VerifyConfig
from r2d2_kapture.io.kapture.dataset import open_dataset
from r2d2_kapture.io.kapture.feature_table import open_feature_table
from r2d2_kapture.io.kapture.pairs import ImagePair, write_pairs
from r2d2_kapture.io.kapture.trajectories import read_camera_poses
from r2d2_kapture.stages.localize import stage as localize
from r2d2_kapture.stages.map import stage as map
from r2d2_kapture.stages.match import stage as match
from r2d2_kapture.stages.verify import stage as verify
from tests.scenes.localization import position_error, rotation_error

pytestmark = [pytest.mark.slow, pytest.mark.shared]
QUIET = RunOptions(progress=False)


@dataclass(frozen=True)
class Gallery:
    """Where the data are and where results go."""

    data: Path
    work: Path

    @property
    def features(self) -> Path:
        return self.data / "local_features/r2d2_500"

    def match(self, name: str, pairs: list[tuple[str, str]]) -> Path:
        path = self.work / f"{name}.txt"
        write_pairs(path, [ImagePair(image1=a, image2=b) for a, b in pairs])
        match.run(
            MatchConfig(gpu=-1),
            features=[self.features],
            pairs=path,
            output=self.work / "matches",
            options=QUIET,
        )
        return path

    def map(self, mapping: Path) -> Path:
        """Triangulate all images of a dataset."""
        output = self.work / "maps" / mapping.name
        names = sorted(open_dataset(mapping).image_names)
        pairs = self.match(
            f"map {mapping.name}", list(itertools.combinations(names, 2))
        )
        verify.run(
            VerifyConfig(),
            mapping=mapping,
            features=[self.features],
            matches=[self.work / "matches"],
            pairs=pairs,
            database=output / "map.db",
            output=output / "verified",
            options=QUIET,
        )
        map.run(
            MapConfig(),
            mapping=mapping,
            database=output / "map.db",
            output=output / "map",
            options=QUIET,
        )
        return output / "map"

    def localize(
        self, map_path: Path, query: Path, pairs: Path, **settings: Any
    ) -> dict[str, pycolmap.Rigid3d]:
        output = self.work / "localized" / f"{query.name} {settings}"
        localize.run(
            LocalizeConfig(**settings),
            map_path=map_path,
            query=query,
            pairs=pairs,
            features=[self.features],
            matches=[self.work / "matches"],
            output=output,
            options=QUIET,
        )
        return read_camera_poses(open_dataset(output)).cam_from_world

    def part(self, name: str, keep: Any) -> Path:
        """The mapping dataset, of it the images whose names ``keep`` takes."""
        root = self.work / "datasets" / name
        (root / "sensors").mkdir(parents=True)
        for source in (self.data / "mapping/sensors").glob("*.txt"):
            shutil.copy(source, root / "sensors")
        records = root / "sensors/records_camera.txt"
        lines = records.read_text().splitlines(keepends=True)
        records.write_text(
            "".join(line for line in lines if line.startswith("#") or keep(line))
        )
        return root


@pytest.fixture
def gallery(shared: Path, tmp_path: Path) -> Gallery:
    return Gallery(data=shared / "data/virtual_gallery", work=tmp_path)


def truth(dataset: Path) -> dict[str, pycolmap.Rigid3d]:
    return read_camera_poses(open_dataset(dataset)).cam_from_world


def top_five(gallery: Gallery) -> list[tuple[str, str]]:
    """Mapping images nearest to each query by the authors' AP-GeM features."""
    table = open_feature_table(
        [gallery.data / "global_features/AP-GeM-LM18"], "global_features"
    )
    mapped, queries = truth(gallery.data / "mapping"), truth(gallery.data / "query")
    names = sorted(mapped)
    vectors = np.concatenate([table.read(name) for name in names])
    pairs = []
    for query in queries:
        nearest = np.argsort(-(vectors @ table.read(query)[0]), kind="stable")[:5]
        pairs += [(query, names[i]) for i in nearest]
    return pairs


def test_four_queries_are_within_the_published_errors(gallery: Gallery) -> None:
    map_path = gallery.map(gallery.data / "mapping")
    pairs = gallery.match("queries", top_five(gallery))
    true = truth(gallery.data / "query")
    found = gallery.localize(map_path, gallery.data / "query", pairs)
    assert sorted(found) == sorted(true)
    metres = [position_error(found[name], true[name]) for name in true]
    degrees = [np.degrees(rotation_error(found[n], true[n])) for n in true]
    assert np.median(metres) <= 0.0110 and np.mean(metres) <= 0.0124
    assert np.median(degrees) <= 0.1675 and np.mean(degrees) <= 0.2086

    unknown = gallery.localize(
        map_path, gallery.data / "query", pairs, focal_length="estimate"
    )
    assert sorted(unknown) == sorted(true)
    assert np.median([position_error(unknown[n], true[n]) for n in true]) < 0.1


@pytest.mark.parametrize("frame", [224, 225, 226, 227])
def test_a_frame_held_out_is_placed_better_by_its_rig(
    gallery: Gallery, frame: int
) -> None:
    rest = gallery.part("rest", lambda line: not line.startswith(f"{frame},"))
    query = gallery.part("frame", lambda line: line.startswith(f"{frame},"))
    images, others = (sorted(truth(root)) for root in (query, rest))
    assert (len(images), len(others)) == (2, 10)
    map_path = gallery.map(rest)
    pairs = gallery.match("queries", list(itertools.product(images, others)))
    true = truth(query)
    errors = {
        rigs: [
            position_error(pose, true[name])
            for name, pose in gallery.localize(
                map_path, query, pairs, rigs=rigs
            ).items()
        ]
        for rigs in ("off", "auto")
    }
    assert len(errors["off"]) == len(errors["auto"]) == 2
    assert np.mean(errors["auto"]) < np.mean(errors["off"])
