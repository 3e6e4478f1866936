"""Pairs by matches at low resolution."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from r2d2_kapture.config.extract import DEFAULT_MODEL
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.io.kapture.match_store import find_matches
from r2d2_kapture.io.kapture.pairs import read_pairs
from r2d2_kapture.matching.matcher import MatchInput
from r2d2_kapture.stages.pairs.lowres import VerifiedNearest, VerifiedNearestConfig
from r2d2_kapture.synthetic.rendering import PinholeCamera, look_at
from tests.scenes.contents import files_below
from tests.scenes.features import unit_rows
from tests.scenes.rendered import write_photographs
from tests.scenes.two_views import posed_image, seen_by, space_points
from tests.stages.pair_runs import names_in, run

CAMERA = PinholeCamera(image_size=(320, 240), focal_length=300.0)
LEFT = ["left 1.jpg", "left 2.jpg", "left 3.jpg"]
RIGHT = ["é/right 1.jpg", "é/right 2.jpg", "é/right 3.jpg"]
SMALL = {
    "method": "lowres",
    "lowres_size": 256,
    "lowres_keypoints": 200,
    "min_score": 15.0,
}


def standing(step: float, target: float) -> np.ndarray:
    """Camera to the side of the middle that looks at the wall at another place."""
    return look_at(np.array([step, 0.0, 1.3]), np.array([target, 4.0, 1.2]))


@pytest.fixture(scope="module")
def mapping(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three views of one end of a wall, and three of the other; none sees both."""
    poses = {name: standing(-3.5 + 0.3 * i, -4) for i, name in enumerate(LEFT)}
    poses |= {name: standing(3.5 - 0.3 * i, 4) for i, name in enumerate(RIGHT)}
    return write_photographs(tmp_path_factory.mktemp("room") / "m", poses, CAMERA)


@pytest.fixture(scope="module")
def query(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pose = {"q.jpg": standing(-3.3, -4.1)}
    return write_photographs(tmp_path_factory.mktemp("room") / "q", pose, CAMERA)


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory, mapping: Path) -> Path:
    """Features and matches of the mapping images."""
    folder = tmp_path_factory.mktemp("lowres")
    run(
        mapping,
        folder / "p.txt",
        global_features_output=folder / "described",
        **SMALL,
    )
    return folder / "described"


def test_pairs_that_see_the_same(mapping: Path, described: Path) -> None:
    path = described.with_name("p.txt")
    seen = {*itertools.combinations(LEFT, 2), *itertools.combinations(RIGHT, 2)}
    assert set(names_in(path)) == seen
    table = find_matches([described], f"{DEFAULT_MODEL}_256_200")
    assert len(table.pairs) == 15
    for pair in read_pairs(path):
        assert pair.score == table.count(*pair.names) >= 15


def test_queries_share_what_is_there(
    mapping: Path, query: Path, described: Path, tmp_path: Path
) -> None:
    settings = {**SMALL, "global_features_output": described}
    before = files_below(described / "reconstruction/descriptors")
    report = run(mapping, tmp_path / "q.txt", query=query, **settings)
    assert report.details["images_extracted"] == 1
    assert sorted(names_in(tmp_path / "q.txt")) == [("q.jpg", name) for name in LEFT]
    after = files_below(described / "reconstruction/descriptors")
    assert all(
        after[name] == data for name, data in before.items() if "json" not in name
    )
    data = (tmp_path / "q.txt").read_bytes()
    again = run(mapping, tmp_path / "q.txt", query=query, **settings)
    assert (again.done, again.skipped) == (0, 3)
    assert (tmp_path / "q.txt").read_bytes() == data


def test_candidates_bound_the_cost(
    mapping: Path, described: Path, tmp_path: Path
) -> None:
    """The two most similar of each image are those that see the same."""
    report = run(
        mapping,
        tmp_path / "p.txt",
        lowres_candidates=2,
        vlad_clusters=8,
        global_features_output=described,
        **SMALL,
    )
    assert 6 <= report.details["candidate_pairs"] < 15
    assert report.details["candidate_pairs_matched"] == 0
    found = set(names_in(tmp_path / "p.txt"))
    assert found == set(names_in(described.with_name("p.txt")))


def test_killed_while_matching_then_resumed(
    mapping: Path, described: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {**SMALL, "global_features_output": tmp_path / "d", "store": "shards"}
    calls = itertools.count()
    nearest = VerifiedNearest.__call__

    def killed(self: VerifiedNearest, *features: MatchInput) -> object:
        if next(calls) == 5:
            raise KeyboardInterrupt
        return nearest(self, *features)

    options = RunOptions(workers=1)
    with monkeypatch.context() as patch:
        patch.setattr(VerifiedNearest, "__call__", killed)
        with pytest.raises(KeyboardInterrupt):
            run(mapping, tmp_path / "p.txt", options=options, **settings)
    assert not (tmp_path / "p.txt").exists()
    report = run(mapping, tmp_path / "p.txt", **settings)
    assert report.details["images_extracted"] == 0
    assert report.details["candidate_pairs_matched"] < 15
    expected = described.with_name("p.txt").read_bytes()
    assert (tmp_path / "p.txt").read_bytes() == expected


def test_an_image_that_cannot_be_read_fails_once(
    mapping: Path, described: Path, tmp_path: Path
) -> None:
    copy = write_photographs(
        tmp_path / "m", {n: standing(-3.5, -4) for n in LEFT}, CAMERA
    )
    (copy / "sensors/records_data" / LEFT[2]).write_bytes(b"no picture")
    report = run(copy, tmp_path / "p.txt", **SMALL)
    assert [failure.name for failure in report.failed] == [LEFT[2]]
    assert names_in(tmp_path / "p.txt") == [(LEFT[0], LEFT[1])]
    with_others = run(copy, tmp_path / "c.txt", lowres_candidates=1, **SMALL)
    assert [failure.name for failure in with_others.failed] == [LEFT[2]]


def test_matches_that_agree_with_a_geometry() -> None:
    """A third of the matches are wrong, by 40 pixels or more from their lines."""
    count, wrong = 90, 30
    images = [
        posed_image("1"),
        posed_image("2", rotation_vector=(0, 0.1, 0), translation=(-0.6, 0, 0.1)),
    ]
    points = space_points(count)
    first, second = (seen_by(image, points) for image in images)
    # the second camera is to the right: lines are nearly level
    second[:wrong, 1] += np.where(second[:wrong, 1] > 240, -60, 60)
    rows = torch.from_numpy(unit_rows(count, dim=64))
    features = [
        MatchInput(
            descriptors=rows, keypoints=torch.from_numpy(xy), image_size=(640, 480)
        )
        for xy in (first, second)
    ]
    verified = VerifiedNearest(VerifiedNearestConfig(size=320))
    matches = verified(*features)
    right = np.arange(wrong, count)
    assert set(right) <= set(matches.indices[:, 0])
    assert len(matches) <= len(right) + 3
    assert np.array_equal(matches.indices, verified(*features).indices)


@pytest.mark.parametrize("count", [0, 3])
def test_too_few_matches_for_a_geometry(count: int) -> None:
    features = MatchInput(
        descriptors=torch.from_numpy(unit_rows(count, dim=8)),
        keypoints=torch.rand(count, 2),
        image_size=(64, 48),
    )
    assert len(VerifiedNearest(VerifiedNearestConfig(size=64))(features, features)) == 0


@pytest.mark.parametrize("size, count", [(512, 30), (256, 30), (128, 80)])
def test_matches_at_random_agree_with_no_geometry(size: int, count: int) -> None:
    places = np.random.default_rng(7).uniform(0, (640, 480), (2, count, 2))
    rows = torch.from_numpy(unit_rows(count, dim=64))
    features = [
        MatchInput(
            descriptors=rows, keypoints=torch.from_numpy(xy), image_size=(640, 480)
        )
        for xy in places
    ]
    matched = VerifiedNearest(VerifiedNearestConfig(size=size))(*features)
    assert len(matched) == 0
    # a geometry there is: it is no more than chance
    anything = VerifiedNearestConfig(size=size, deviations=-count)
    assert len(VerifiedNearest(anything)(*features)) >= 7
