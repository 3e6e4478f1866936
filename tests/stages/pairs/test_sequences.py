"""Sequential pairs: gaps in time, rigs, and loops that close."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from r2d2_kapture.config.pairs import PairsConfig
from r2d2_kapture.errors import DatasetError, OutputError
from r2d2_kapture.io.kapture.pairs import read_pairs
from r2d2_kapture.stages import extract
from r2d2_kapture.stages.pairs.lowres import low_resolution
from r2d2_kapture.synthetic.rendering import PinholeCamera, look_at
from tests.scenes.features import unit_rows
from tests.scenes.kapture_files import (
    table,
    write_dataset,
    write_features,
    write_files,
    write_global_features,
)
from tests.scenes.rendered import write_photographs
from tests.stages.pair_runs import names_in, run

LEFT_AND_RIGHT = "l, , camera, UNKNOWN_CAMERA, 6, 4\nr, , camera, UNKNOWN_CAMERA, 6, 4"


def test_sequences_of_each_camera_in_order_of_time(tmp_path: Path) -> None:
    write_files(
        tmp_path,
        sensors=LEFT_AND_RIGHT,
        records_camera="30, l, a\n10, l, c\n20, l, b\n10, r, e\n20, r, d",
    )
    report = run(tmp_path, tmp_path / "p.txt", method="sequential", overlap=1)
    assert report.details["sequences"] == 2
    assert names_in(tmp_path / "p.txt") == [("a", "b"), ("b", "c"), ("d", "e")]
    run(tmp_path, tmp_path / "two.txt", method="sequential", overlap=2)
    scores = {pair.names: pair.score for pair in read_pairs(tmp_path / "two.txt")}
    assert scores[("a", "c")] == 0.5 and scores[("a", "b")] == 1
    run(tmp_path, tmp_path / "l.txt", method="sequential", overlap=1, loop=True)
    assert ("a", "c") in names_in(tmp_path / "l.txt")


def test_images_that_a_rig_takes_together(tmp_path: Path) -> None:
    write_files(
        tmp_path,
        sensors=LEFT_AND_RIGHT,
        records_camera="1, l, l1\n2, l, l2\n1, r, r1\n2, r, r2",
        rigs="rig, l, 1, 0, 0, 0, 0, 0, 0\nrig, r, 1, 0, 0, 0, 1, 0, 0",
    )
    run(tmp_path, tmp_path / "p.txt", method="sequential", overlap=1)
    found = set(names_in(tmp_path / "p.txt"))
    assert found == {("l1", "l2"), ("r1", "r2"), ("l1", "r1"), ("l2", "r2")}


def test_images_with_a_camera_each_are_one_sequence(tmp_path: Path) -> None:
    sensors = "\n".join(f"c{i}, , camera, UNKNOWN_CAMERA, 6, 4" for i in range(4))
    records = "\n".join(f"{i}, c{i}, {i}.jpg" for i in range(4))
    write_files(tmp_path, sensors=sensors, records_camera=records)
    run(tmp_path, tmp_path / "p.txt", method="sequential", overlap=1)
    assert len(names_in(tmp_path / "p.txt")) == 3


def test_a_gap_in_time_ends_a_sequence(tmp_path: Path) -> None:
    write_files(
        tmp_path,
        sensors=LEFT_AND_RIGHT,
        records_camera="0, l, a\n10, l, b\n30, l, c\n40, l, d\n0, r, e\n21, r, f",
    )
    settings = {"method": "sequential", "overlap": 2}
    report = run(tmp_path, tmp_path / "p.txt", max_interval=20.0, **settings)
    assert report.details["sequences"] == 3
    every = [("a", "b"), ("a", "c"), ("b", "c"), ("b", "d"), ("c", "d")]
    assert names_in(tmp_path / "p.txt") == every
    assert "'e', 'f'; single photographs" in report.warnings[0]
    run(tmp_path, tmp_path / "q.txt", max_interval=10.0, **settings)
    assert names_in(tmp_path / "q.txt") == [("a", "b"), ("c", "d")]
    report = run(tmp_path, tmp_path / "none.txt", max_interval=0.5, **settings)
    assert report.done == 0
    assert "--max-interval 0.5: no image has a neighbour in time" in report.warnings[0]
    assert "the shortest interval is 10;" in report.warnings[0]


@pytest.mark.parametrize("overlap, quadratic", [(1, False), (2, False), (3, True)])
def test_images_of_neighbouring_frames_of_a_rig(
    tmp_path: Path, overlap: int, quadratic: bool
) -> None:
    """All images of two frames of which the right camera lacks some."""
    shots = [(t, c) for t in range(9) for c in "lr" if (t, c) != (4, "r")]
    write_files(
        tmp_path,
        sensors=LEFT_AND_RIGHT,
        records_camera=table((t, c, f"{c}{t}") for t, c in shots),
        rigs="rig, l, 1, 0, 0, 0, 0, 0, 0\nrig, r, 1, 0, 0, 0, 1, 0, 0",
    )
    run(
        tmp_path,
        tmp_path / "p.txt",
        method="sequential",
        overlap=overlap,
        quadratic_overlap=quadratic,
        expand_rig_images=True,
    )
    steps = {*range(overlap + 1), *(2**k for k in range(overlap) if quadratic)}
    frames = {
        tuple(sorted((f"{c1}{t1}", f"{c2}{t2}")))
        for (t1, c1), (t2, c2) in itertools.combinations(shots, 2)
        if abs(t1 - t2) in steps
    }
    # the right camera's own steps pass over the frame that it lacks
    right = [f"r{t}" for t, c in shots if c == "r"]
    own = {
        pair
        for pair in itertools.combinations(right, 2)
        if right.index(pair[1]) - right.index(pair[0]) in steps
    }
    assert set(names_in(tmp_path / "p.txt")) == frames | own


# loops
ROUND = 24


def write_walk(root: Path, count: int = 2 * ROUND) -> Path:
    """Two rounds of a walk; the similarity of images falls with the angle between."""
    names = [f"{i:03d}.jpg" for i in range(count)]
    angles = 2 * np.pi * np.arange(count) / ROUND
    rows = np.column_stack([np.cos(angles), np.sin(angles)]).astype(np.float32)
    write_dataset(root, names)
    write_global_features(root, {n: row[None] for n, row in zip(names, rows)})
    return root


def steps_of(path: Path) -> dict[tuple[int, int], float]:
    return {
        (int(pair.image1[:3]), int(pair.image2[:3])): pair.score
        for pair in read_pairs(path)
    }


@pytest.mark.parametrize("top_k, every", [(1, 1), (3, 1), (1, 5), (2, 10)])
def test_loops_by_enumeration(tmp_path: Path, top_k: int, every: int) -> None:
    mapping = write_walk(tmp_path / "m")
    settings = {"method": "sequential", "overlap": 4, "loop_by": "global"}
    report = run(
        mapping, tmp_path / "p.txt", loop_top_k=top_k, loop_every=every, **settings
    )
    count = 2 * ROUND
    near = {(i, j) for i in range(count) for j in range(i + 1, min(i + 5, count))}
    loops = set()
    for i in range(0, count, every):
        # by the angle between; of equal ones the earlier image
        others = [j for j in range(count) if abs(i - j) > 4]
        angle = {j: min((i - j) % ROUND, (j - i) % ROUND) for j in others}
        best = sorted(others, key=lambda j: (angle[j], j))[:top_k]
        worst = angle[best[-1]]
        tied = [j for j in others if angle[j] == worst]
        loops |= {
            tuple(sorted((i, j))) for j in best if angle[j] < worst or tied == [j]
        }
    found = steps_of(tmp_path / "p.txt")
    assert near | loops <= found.keys()
    assert report.details["loop_pairs"] == len(found.keys() - near)
    assert len(found.keys() - near) <= top_k * -(-count // every)
    for (i, j), score in found.items():
        expected = np.cos(2 * np.pi * (i - j) / ROUND)
        assert score == pytest.approx(1 / (j - i) if j - i <= 4 else expected, abs=1e-5)


def test_each_image_of_the_second_round_meets_the_first(tmp_path: Path) -> None:
    mapping = write_walk(tmp_path / "m")
    settings = {"method": "sequential", "overlap": 2, "loop_by": "global"}
    run(mapping, tmp_path / "p.txt", loop_top_k=1, loop_every=1, **settings)
    loops = {pair for pair in steps_of(tmp_path / "p.txt") if pair[1] - pair[0] > 2}
    assert loops == {(i, i + ROUND) for i in range(ROUND)}


def test_a_gap_keeps_loops_from_mere_neighbours(tmp_path: Path) -> None:
    """In one round without a second, all that is similar is near in time."""
    mapping = write_walk(tmp_path / "m", ROUND)
    settings = {
        "method": "sequential",
        "overlap": 2,
        "loop_by": "global",
        "loop_top_k": 1,
        "loop_every": 1,
    }
    run(mapping, tmp_path / "p.txt", **settings)
    assert 3 in {j - i for i, j in steps_of(tmp_path / "p.txt")}
    run(mapping, tmp_path / "gap.txt", loop_gap=12, **settings)
    far = {pair for pair in steps_of(tmp_path / "gap.txt") if pair[1] - pair[0] > 2}
    assert far and all(pair[1] - pair[0] > 12 for pair in far)
    run(mapping, tmp_path / "loop.txt", loop_gap=11, loop=True, **settings)
    found = steps_of(tmp_path / "loop.txt")
    steps = {min(j - i, ROUND - (j - i)) for i, j in found}
    assert steps == {1, 2, 12}


def test_loops_join_two_sequences(tmp_path: Path) -> None:
    """Images of another camera at the same place are no neighbours in time."""
    write_files(
        tmp_path,
        sensors=LEFT_AND_RIGHT,
        records_camera="0, l, a\n1, l, b\n0, r, c\n1, r, d",
    )
    rows = dict(zip("abcd", np.eye(4, dtype=np.float32)[[0, 1, 1, 0]][:, None]))
    write_global_features(tmp_path, rows)
    settings = {"method": "sequential", "loop_top_k": 1, "loop_every": 1}
    run(tmp_path, tmp_path / "p.txt", loop_by="global", **settings)
    assert set(names_in(tmp_path / "p.txt")) == {
        ("a", "b"),
        ("c", "d"),
        ("a", "d"),
        ("b", "c"),
    }


@pytest.mark.parametrize(
    ("gap", "loop", "possible"),
    [(ROUND - 2, False, True), (ROUND - 1, False, False), (ROUND // 2, True, False)],
)
def test_a_gap_longer_than_the_sequence_is_warned_of(
    gap: int, loop: bool, possible: bool, tmp_path: Path
) -> None:
    mapping = write_walk(tmp_path / "m", ROUND)
    report = run(
        mapping,
        tmp_path / "p.txt",
        method="sequential",
        overlap=1,
        loop=loop,
        loop_by="global",
        loop_top_k=1,
        loop_every=ROUND,
        loop_gap=gap,
    )
    assert bool(report.details["loop_pairs"]) == possible
    warned = [text for text in report.warnings if text.startswith("--loop-gap")]
    assert len(warned) == (not possible)


def test_images_of_one_frame_are_no_loop(tmp_path: Path) -> None:
    """Nor those of the other camera a step later; all four look alike."""
    write_files(
        tmp_path,
        sensors=LEFT_AND_RIGHT,
        records_camera="1, l, l1\n2, l, l2\n1, r, r1\n2, r, r2",
        rigs="rig, l, 1, 0, 0, 0, 0, 0, 0\nrig, r, 1, 0, 0, 0, 1, 0, 0",
    )
    write_global_features(
        tmp_path, {n: np.ones((1, 2), np.float32) for n in ("l1", "l2", "r1", "r2")}
    )
    settings = {"method": "sequential", "overlap": 1, "loop_by": "global"}
    report = run(tmp_path, tmp_path / "p.txt", loop_top_k=2, loop_every=1, **settings)
    assert report.details["loop_pairs"] == 0
    assert len(names_in(tmp_path / "p.txt")) == 4


def test_loops_by_local_features_resume(tmp_path: Path) -> None:
    names = [f"{i}.jpg" for i in range(12)]
    rows = {name: unit_rows(40, seed=i % 6) for i, name in enumerate(names)}
    mapping = write_dataset(tmp_path / "m", names)
    write_features(mapping, rows)
    settings = {
        "method": "sequential",
        "overlap": 1,
        "loop_top_k": 1,
        "loop_every": 1,
        "vlad_clusters": 4,
    }
    report = run(mapping, tmp_path / "p.txt", **settings)
    assert report.details["images_described"] == 12
    loops = {(f"{i}.jpg", f"{i + 6}.jpg") for i in range(6)}
    assert loops <= {
        tuple(sorted(p, key=names.index)) for p in names_in(tmp_path / "p.txt")
    }
    data = (tmp_path / "p.txt").read_bytes()
    again = run(mapping, tmp_path / "p.txt", **settings)
    assert (again.done, again.skipped) == (0, report.done)
    assert (tmp_path / "p.txt").read_bytes() == data


def test_loops_need_features_and_name_images_without(tmp_path: Path) -> None:
    names = [f"{i}.jpg" for i in range(4)]
    mapping = write_dataset(tmp_path / "m", names)
    settings = {"method": "sequential", "overlap": 1, "loop_top_k": 1, "loop_every": 1}
    with pytest.raises(DatasetError, match="found no keypoints, .*--features"):
        run(mapping, tmp_path / "p.txt", **settings)
    rows = {name: np.ones((1, 2), np.float32) for name in names[:3]}
    write_global_features(mapping, rows)
    report = run(mapping, tmp_path / "p.txt", loop_by="global", **settings)
    assert [failure.name for failure in report.failed] == ["3.jpg"]
    found = set(names_in(tmp_path / "p.txt"))
    assert found == {*itertools.pairwise(names), ("0.jpg", "2.jpg")}


def test_lists_of_an_earlier_version_are_known(tmp_path: Path) -> None:
    """Settings that came later are not noted at their default."""
    mapping = write_dataset(tmp_path / "m", ["a", "b"])
    run(mapping, tmp_path / "p.txt", method="sequential")
    text = (tmp_path / "p.report.json").read_text("utf-8")
    assert "loop_top_k" not in text and "max_interval" not in text
    with pytest.raises(OutputError, match="made with loop_every: 10, not 3"):
        run(mapping, tmp_path / "p.txt", method="sequential", loop_every=3)


# a rendered walk
TURN = 7
"""Frames of the way out; as many lead back."""


def test_a_walk_there_and_back_along_a_wall(tmp_path: Path) -> None:
    """The way back is higher up; its images meet those of the way out near by."""
    there = np.linspace(-4.5, 4.5, TURN)
    walk = [(x, 1.2) for x in there] + [(x, 1.35) for x in there[::-1] + 0.2]
    poses = {
        f"{i:03d}.jpg": look_at(np.array([x, 1.0, z]), np.array([x, 4.0, z]))
        for i, (x, z) in enumerate(walk)
    }
    camera = PinholeCamera(image_size=(160, 120), focal_length=120.0)
    mapping = write_photographs(tmp_path / "walk", poses, camera)
    small = PairsConfig(lowres_size=160, lowres_keypoints=200)
    extract.run(low_resolution(small), kapture_root=mapping)
    report = run(
        mapping,
        tmp_path / "p.txt",
        method="sequential",
        overlap=1,
        loop_top_k=1,
        loop_every=1,
        loop_gap=2,
        vlad_clusters=16,
    )
    loops = {(i, j) for i, j in steps_of(tmp_path / "p.txt") if j - i > 2}
    assert report.details["loop_pairs"] == len(loops)
    # the other images of a place are nearer in time than the gap
    same = {(i, 2 * TURN - 1 - i) for i in range(TURN - 1)}
    assert len(loops & same) >= 4
