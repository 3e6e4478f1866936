"""Stages that read features: of pictures replaced since, or of others of the name."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from r2d2_kapture.config.localize import LocalizeConfig
from r2d2_kapture.config.match import MatchConfig
from r2d2_kapture.config.pairs import PairsConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.config.verify import VerifyConfig
from r2d2_kapture.errors import DatasetError, FeatureFormatError
from r2d2_kapture.io.colmap.database_keypoints import database_keypoints
from r2d2_kapture.io.colmap.map_dataset import MapKeypoints
from r2d2_kapture.io.kapture.dataset import open_dataset
from r2d2_kapture.io.kapture.feature_store import FeatureType, open_feature_writer
from r2d2_kapture.io.kapture.followed_features import STATES_NAME
from r2d2_kapture.io.kapture.local_features import open_local_features
from r2d2_kapture.io.kapture.match_store import open_matches
from r2d2_kapture.io.outputs.image_changes import outstanding
from r2d2_kapture.io.outputs.image_records import (
    RECORDS_NAME,
    record_image,
    stamp_image,
)
from r2d2_kapture.io.outputs.manifest import Manifest
from r2d2_kapture.stages import export
from r2d2_kapture.stages.benchmark.stored_features import features_in_kapture
from r2d2_kapture.stages.localize import stage as localize
from r2d2_kapture.stages.match import stage as match
from r2d2_kapture.stages.pairs import stage as pairs
from r2d2_kapture.stages.verify import stage as verify
from r2d2_kapture.types import LocalFeatures, Report
from tests.scenes.kapture_files import write_dataset

NAMES = ("a.png", "b.png", "sub/c.png")
SIZE = (64, 48)
POINTS = 30
DIM = 8
QUIET = RunOptions(progress=False, workers=1)


def write_picture(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", SIZE, value).save(path)


def write_pictures(root: Path, first: int = 0) -> Path:
    for number, name in enumerate(NAMES):
        write_picture(root / "sensors/records_data" / name, first + number)
    write_dataset(root, list(NAMES))
    return root


def seen_in(path: Path) -> LocalFeatures:
    """Features that the grey value of a picture decides, always as many."""
    with Image.open(path) as picture:
        value = picture.getpixel((0, 0))
    rng = np.random.default_rng(value)  # type: ignore[arg-type]
    descriptors = np.random.default_rng(0).normal(size=(POINTS, DIM))
    descriptors += rng.normal(scale=0.1, size=(POINTS, DIM))
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    return LocalFeatures(
        keypoints=rng.uniform(0, 40, (POINTS, 2)).astype(np.float32),
        scales=np.full(POINTS, 32, np.float32),
        scores=np.ones(POINTS, np.float32),
        descriptors=descriptors.astype(np.float32),
        image_size=SIZE,
    )


def extract(dataset: Path, output: Path) -> Path:
    """Extract as the stage does, without a network."""
    kind = FeatureType(
        root=output,
        keypoints_type="t",
        descriptors_type="t",
        descriptor_dim=DIM,
    )
    manifest = Manifest(model={"sha256": "x"}, settings={}, versions={})
    with open_feature_writer(kind, manifest) as writer:
        for name, path in outstanding(
            open_dataset(dataset).image_paths, writer
        ).images.items():
            record = record_image(path, stamp_image(path), SIZE)
            writer.write(name, seen_in(path), record)
    return output


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return write_pictures(tmp_path / "dataset")


class Walk:
    """The stages on one dataset, their outputs in one folder."""

    def __init__(self, dataset: Path, folder: Path) -> None:
        self.dataset, self.folder = dataset, folder
        self.features = extract(dataset, folder / "features")
        self.pairs = folder / "pairs.txt"

    def pair(self) -> Report:
        return pairs.run(
            PairsConfig(method="local", top_k=2, vlad_clusters=4),
            mapping=self.dataset,
            output=self.pairs,
            features=[self.features],
            options=QUIET,
        )

    def match(self) -> Report:
        return match.run(
            MatchConfig(gpu=-1),
            features=[self.features],
            pairs=self.pairs,
            output=self.folder / "matches",
            options=QUIET,
        )

    def verify(self) -> Report:
        return verify.run(
            VerifyConfig(),
            mapping=self.dataset,
            features=[self.features],
            matches=[self.folder / "matches"],
            pairs=self.pairs,
            database=self.folder / "map.db",
            output=self.folder / "verified",
            options=QUIET,
        )

    def all(self) -> list[Report]:
        extract(self.dataset, self.features)
        return [self.pair(), self.match(), self.verify()]

    def content(self) -> dict[str, str]:
        """Digests of all that was made, and the content of the database."""
        suffixes = (".kpt", ".desc", ".gfeat", ".safetensors", ".matches", ".txt")
        found = {
            str(path.relative_to(self.folder)): path.read_bytes()
            for path in self.folder.rglob("*")
            if path.suffix in suffixes
        }
        with closing(sqlite3.connect(self.folder / "map.db")) as connection:
            found["map.db"] = "\n".join(connection.iterdump()).encode()
        return {name: hashlib.sha256(data).hexdigest() for name, data in found.items()}


@pytest.fixture
def walk(dataset: Path, tmp_path: Path) -> Walk:
    return Walk(dataset, tmp_path / "walk")


def replace(dataset: Path, name: str = "b.png") -> None:
    write_picture(dataset / "sensors" / "records_data" / name, 99)


def test_what_was_made_of_a_replaced_picture_is_made_again(
    walk: Walk, dataset: Path, tmp_path: Path
) -> None:
    walk.all()
    assert all(report.done == 0 for report in walk.all())
    before = walk.content()
    replace(dataset)
    _, matched, verified = walk.all()
    assert (matched.done, matched.skipped) == (2, 1)
    assert (verified.done, verified.skipped) == (2, 1)
    fresh = Walk(dataset, tmp_path / "fresh")
    fresh.all()
    assert walk.content() == fresh.content() != before
    # the picture that was there first comes back
    write_picture(dataset / "sensors" / "records_data" / "b.png", 1)
    walk.all()
    assert walk.content() == before


def test_descriptors_stopped_in_the_middle_follow_too(
    walk: Walk, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    walk.all()
    replace(dataset)
    extract(dataset, walk.features)
    with monkeypatch.context() as patch:

        def stop(*_: Any) -> None:
            raise KeyboardInterrupt

        patch.setattr("r2d2_kapture.io.stores.writing.write_item", stop)
        with pytest.raises(KeyboardInterrupt):
            walk.pair()
    walk.all()
    fresh = Walk(dataset, tmp_path / "fresh")
    fresh.all()
    assert walk.content() == fresh.content()


def test_features_of_a_picture_that_was_replaced_are_refused(
    walk: Walk, dataset: Path, tmp_path: Path
) -> None:
    walk.all()
    replace(dataset)
    changed = r"b\.png has changed since its features were made; run the extraction"
    with pytest.raises(DatasetError, match=changed):
        walk.pair()
    with pytest.raises(DatasetError, match=changed):
        walk.match()
    with pytest.raises(DatasetError, match=changed):
        walk.verify()
    with pytest.raises(DatasetError, match=changed):
        localize_in_no_map(dataset, walk)
    extract(dataset, walk.features)
    stale = r"extracted again, of 1 images: 'b\.png'; run kapture_r2d2_match again"
    with pytest.raises(DatasetError, match=stale):
        walk.verify()
    walk.match()
    assert walk.verify().done == 2


def localize_in_no_map(query: Path, walk: Walk) -> Report:
    return localize.run(
        LocalizeConfig(),
        map_path=walk.folder / "absent",
        query=query,
        pairs=walk.pairs,
        features=[walk.features],
        matches=[walk.folder / "matches"],
        output=walk.folder / "localized",
        options=QUIET,
    )


def test_features_of_another_dataset_of_the_same_names_are_refused(
    walk: Walk, tmp_path: Path
) -> None:
    walk.all()
    query = write_pictures(tmp_path / "query", first=20)
    other = (
        r"of .*dataset/.*a\.png, expected those of .*query/.*a\.png.*\(3 such images"
    )
    with pytest.raises(DatasetError, match=other):
        localize_in_no_map(query, walk)
    two = r"dataset/.*a\.png and .*query/.*a\.png: found two images of one name"
    with pytest.raises(DatasetError, match=two):
        pairs.run(
            PairsConfig(method="exhaustive"),
            mapping=walk.dataset,
            query=query,
            output=tmp_path / "pairs.txt",
        )
    of_query = extract(query, tmp_path / "features of the query")
    with pytest.raises(DatasetError, match=two):
        open_local_features([walk.features, of_query])
    # features of what one file was before are no other image: the first ones count
    old = shutil.copytree(walk.features, tmp_path / "old")
    replace(walk.dataset)
    extract(walk.dataset, walk.features)
    assert len(open_local_features([walk.features, old]).keypoints.folders) == 2


def test_features_that_a_stopped_run_left_are_refused(
    walk: Walk, dataset: Path
) -> None:
    walk.all()
    for path in walk.features.rglob(RECORDS_NAME):
        with path.open("a", encoding="utf-8") as file:
            file.write('{"name": "b.png"}\n')
    with pytest.raises(DatasetError, match=r"'b\.png' was being extracted"):
        walk.verify()
    walk.all()


@pytest.mark.parametrize("to", ["colmap-db", "h5"])
def test_export_refuses_features_of_other_pictures(
    dataset: Path, tmp_path: Path, to: Any
) -> None:
    extract(dataset, dataset)
    replace(dataset)
    settings = {"kapture_root": dataset, "to": to, "options": QUIET}
    with pytest.raises(DatasetError, match=r"b\.png has changed"):
        export.run(output=tmp_path / "one", **settings)
    extract(dataset, dataset)
    export.run(output=tmp_path / "one", **settings)


def test_what_older_versions_made_is_kept(walk: Walk, dataset: Path) -> None:
    walk.all()
    for path in walk.features.rglob(RECORDS_NAME):
        path.unlink()
    older = {name: "manifest.json, manifest.json" for name in NAMES}
    (states,) = (walk.folder / "matches").rglob(STATES_NAME)
    states.write_text(json.dumps(older), "utf-8")
    for path in (walk.folder / "pairs_features").rglob(STATES_NAME):
        path.unlink()
    written = {
        path: path.stat().st_mtime_ns
        for suffix in ("kpt", "matches", "gfeat")
        for path in walk.folder.rglob(f"*.{suffix}")
    }
    for path in (dataset / "sensors" / "records_data").rglob("*.png"):
        os.utime(path, ns=(10**18, 10**18))
    assert all(report.done == 0 for report in walk.all())
    assert written == {path: path.stat().st_mtime_ns for path in written}
    replace(dataset)
    assert [report.done for report in walk.all()][1:] == [2, 2]


def test_matches_of_copied_features_are_kept(walk: Walk) -> None:
    walk.all()
    copy = shutil.copytree(walk.features, walk.folder / "copy")
    walk.features = copy
    assert walk.match().skipped == 3
    assert len(open_matches([walk.folder / "matches"], "t").pairs) == 3


def test_evaluation_refuses_features_of_a_picture_that_was_replaced(
    dataset: Path, tmp_path: Path
) -> None:
    data = dataset / "sensors" / "records_data"
    tables = open_local_features([extract(dataset, tmp_path / "features")])
    load = features_in_kapture(tables, data).load
    assert len(load(data / "b.png")) == POINTS
    replace(dataset)
    with pytest.raises(FeatureFormatError, match=r"b\.png has changed since"):
        load(data / "b.png")
    assert len(load(data / "a.png")) == POINTS


def test_maps_are_made_of_features_of_the_dataset(walk: Walk, dataset: Path) -> None:
    walk.all()
    database = walk.folder / "map.db"

    def keypoints() -> MapKeypoints:
        return database_keypoints(database, open_dataset(dataset), [walk.features], "t")

    assert keypoints().type_name == "t"
    replace(dataset)
    with pytest.raises(DatasetError, match=r"b\.png has changed since"):
        keypoints()
    extract(dataset, walk.features)
    with pytest.raises(DatasetError, match=r"'b\.png'.*are not the"):
        keypoints()
