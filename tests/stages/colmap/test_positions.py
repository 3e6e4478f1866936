"""Databases and sparse models of photographs with GPS in EXIF."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pycolmap

from r2d2_kapture.io.colmap.pose_priors import read_pose_priors, write_pose_priors
from r2d2_kapture.io.georeference import read_georeference
from r2d2_kapture.io.kapture.gnss import GnssPosition, Position
from r2d2_kapture.models.checkpoints import Checkpoint
from tests.scenes import gps
from tests.scenes.colmap import Foreign
from tests.scenes.world import Scene
from tests.stages.colmap_runs import content, run

ELSEWHERE = GnssPosition(latitude=1.0, longitude=2.0, altitude=3.0, accuracy=4.0)


def tag(photos: Path, scene: Scene) -> None:
    for name, place in gps.places(scene).items():
        gps.tag(photos / name, place)


def priors_of(path: Path) -> dict[str, Position]:
    with closing(pycolmap.Database.open(str(path))) as database:
        return read_pose_priors(database)


def test_positions_become_priors_and_the_model_is_in_metres(
    photos: Path, checkpoint: Checkpoint, scene: Scene
) -> None:
    tag(photos, scene)
    sparse, path = photos.parent / "sparse", photos.parent / "a b.db"
    report = run(photos, checkpoint, sparse=sparse)
    assert sorted(priors_of(path)) == sorted(scene.names)
    assert report.details["priors"]["images"] == len(scene.names)
    found = read_georeference(sparse)
    assert found is not None and found == read_georeference(sparse / "0")
    model = pycolmap.Reconstruction(str(sparse / "0"))
    centers = {i.name: i.projection_center() for i in model.images.values()}
    placed = found.wgs84(np.array(list(centers.values())))
    assert placed is not None
    # the focal lengths are those of EXIF at first
    assert gps.errors(dict(zip(centers, placed)), scene).max() < 0.2
    before = content(path)
    again = run(photos, checkpoint, sparse=sparse)
    assert content(path) == before and again.details == report.details


def test_warnings_on_positions_are_repeated(
    photos: Path, checkpoint: Checkpoint, scene: Scene
) -> None:
    name, place = next(iter(gps.places(scene).items()))
    gps.tag(photos / name, place)
    warned = [
        [w for w in run(photos, checkpoint, sparse=sparse).warnings if "position" in w]
        for sparse in [photos.parent / "sparse"] * 2
    ]
    assert warned[0] == warned[1] and "images have a position, expected" in warned[0][0]


def test_priors_of_others_stay(
    photos: Path, foreign: Foreign, checkpoint: Checkpoint, scene: Scene
) -> None:
    tag(photos, scene)
    with closing(pycolmap.Database.open(str(foreign.path))) as database:
        theirs = sorted(image.name for image in database.read_all_images())
        known = {name: ELSEWHERE for name in theirs[:1]}
        write_pose_priors(database, known)
    run(photos, checkpoint)
    priors = priors_of(foreign.path)
    assert priors[theirs[0]] == ELSEWHERE
    added = set(scene.names) - set(theirs)
    assert added <= priors.keys() and ELSEWHERE not in [priors[n] for n in added]
