"""Localization that is interrupted, repeated, or run beside itself."""

from __future__ import annotations

import dataclasses
import json
import time
from threading import Lock
from typing import Any

import numpy as np
import pycolmap
import pytest

from r2d2_kapture.config.localize import LocalizeConfig
from r2d2_kapture.errors import ConfigError, OutputError
from r2d2_kapture.io.kapture.dataset import open_dataset
from r2d2_kapture.io.kapture.trajectories import read_camera_poses
from r2d2_kapture.io.outputs.finished import FINISHED_NAME
from r2d2_kapture.stages.localize import frames as frame_poses
from r2d2_kapture.stages.localize import stage as localize
from tests.scenes.contents import files_below
from tests.scenes.localization import QUIET, LocalizationScene
from tests.scenes.world import pinhole
from tests.stages.localize.test_localize import reasons

SINGLE = LocalizeConfig(rigs="off")
LOCK = ".lock"
VOLATILE = ("report.json", FINISHED_NAME, LOCK)
FORCE = dataclasses.replace(QUIET, force=True)


def poses_of(scene: LocalizationScene) -> dict[str, pycolmap.Rigid3d]:
    return read_camera_poses(open_dataset(scene.root / "output")).cam_from_world


def test_only_what_depends_on_a_change_is_done_again(noisy: LocalizationScene) -> None:
    noisy.run(SINGLE)
    changed = noisy.queries[1]
    noisy.replace_matches(changed, noisy.mapped[0], np.zeros((0, 2)))
    report = noisy.run(SINGLE)
    assert (report.done, report.skipped) == (1, 2)
    noisy.write_query({"walker": pinhole([319.5, 240.5])})
    assert noisy.run(SINGLE).done == 1


def test_a_broken_outcome_is_found_again(noisy: LocalizationScene) -> None:
    noisy.run(SINGLE)
    first = files_below(noisy.root / "output", VOLATILE)
    queries = noisy.root / "output/queries"
    (queries / f"{noisy.queries[0]}.json").write_text('{"status": "localized"}')
    (queries / f"{noisy.queries[1]}.json").write_bytes(b"\xff{")
    report = noisy.run(SINGLE)
    assert (report.done, report.skipped) == (2, 1)
    assert files_below(noisy.root / "output", VOLATILE) == first


def test_a_folder_of_something_else_is_refused_even_if_forced(
    noisy: LocalizationScene,
) -> None:
    poses = noisy.query / "sensors/trajectories.txt"
    poses.write_text("# kapture format: 1.1\n")
    foreign = noisy.root / "foreign"
    foreign.mkdir()
    (foreign / "manifest.json").write_text(
        json.dumps({"model": {}, "settings": {"max_error": 12.0}, "versions": {}})
    )
    for output in ("query", "map", "matches", "features", "foreign"):
        before = files_below(noisy.root / output)
        for options in (QUIET, FORCE):
            with pytest.raises(OutputError, match="choose another --output"):
                noisy.run(SINGLE, options, output=output)
        assert files_below(noisy.root / output) == before


def test_poses_are_not_written_over_their_queries(noisy: LocalizationScene) -> None:
    noisy.run(SINGLE)
    # a dataset, and a folder of this stage
    localized = noisy.root / "output"
    before = files_below(localized)
    with pytest.raises(OutputError, match="found an input"):
        localize.run(
            SINGLE,
            map_path=noisy.map_path,
            query=localized,
            pairs=noisy.pairs,
            features=[noisy.features],
            matches=[noisy.matches],
            output=localized.parent / "map/../output",
            options=FORCE,
        )
    assert files_below(localized) == before


def test_poses_of_another_dataset_are_refused_unless_forced(
    noisy: LocalizationScene,
) -> None:
    noisy.run(SINGLE)
    output = noisy.root / "output"
    first = files_below(output, [LOCK])
    gone = noisy.queries.pop()
    noisy.write_query()
    with pytest.raises(OutputError, match="query records SHA-256: .*, not "):
        noisy.run(SINGLE)
    assert files_below(output, [LOCK]) == first
    assert noisy.run(SINGLE, FORCE).done == 2
    assert f"queries/{gone}.json" not in files_below(output)
    assert sorted(poses_of(noisy)) == noisy.queries
    assert noisy.run(SINGLE).skipped == 2


def test_a_strict_run_keeps_poses_that_it_does_not_reach(
    noisy: LocalizationScene,
) -> None:
    noisy.run(SINGLE)
    first, second, third = noisy.queries
    poses = poses_of(noisy)
    noisy.keypoint_file(first).unlink()
    # what no longer holds is not kept
    noisy.replace_matches(third, noisy.mapped[0], np.zeros((0, 2)))
    strict = dataclasses.replace(QUIET, strict=True, workers=1)
    report = noisy.run(SINGLE, strict)
    assert [failure.name for failure in report.failed] == [first]
    assert (report.done, report.skipped) == (0, 1)
    assert list(poses_of(noisy)) == [second]
    assert poses_of(noisy)[second].matrix().tolist() == (
        poses[second].matrix().tolist()
    )


@pytest.mark.parametrize("rigs, at_once", [("auto", 1), ("off", 2)])
def test_frames_are_localized_in_turn_where_there_are_rigs(
    noisy: LocalizationScene, monkeypatch: pytest.MonkeyPatch, rigs: Any, at_once: int
) -> None:
    """Or the poses of rigs would differ in their last digits from run to run."""
    real, running, most = frame_poses.estimate_pose, 0, 0
    changing = Lock()

    def counted(*arguments: Any) -> Any:
        nonlocal running, most
        with changing:
            running += 1
            most = max(most, running)
        time.sleep(0.2)
        with changing:
            running -= 1
        return real(*arguments)

    monkeypatch.setattr(frame_poses, "estimate_pose", counted)
    noisy.run(LocalizeConfig(rigs=rigs))
    assert most == at_once


def test_the_number_of_workers_changes_no_byte(noisy: LocalizationScene) -> None:
    for workers in (1, 3):
        options = dataclasses.replace(QUIET, workers=workers)
        noisy.run(SINGLE, options, output=str(workers))
    one, three = (
        files_below(noisy.root / str(workers), VOLATILE) for workers in (1, 3)
    )
    assert one == three
    assert len(one) == 4 + 6


def test_slices_are_put_together_without_trying_failures_again(
    exact: LocalizationScene,
) -> None:
    failing = LocalizeConfig(min_inliers=10_000)
    for part in ("2/2", "1/2"):
        exact.run(failing, slice=part)
    name = exact.queries[2]
    (written,) = exact.root.rglob(f".output.slices/*/output/queries/{name}.json")
    result = json.loads(written.read_text("utf-8"))
    written.write_text(json.dumps(result | {"reason": "found so by a slice"}), "utf-8")
    report = exact.run(failing, slice="all")
    assert len(report.failed) == len(exact.queries)
    assert reasons(report)[name] == "found so by a slice"
    # an ordinary run tries them again
    assert reasons(exact.run(failing))[name] != "found so by a slice"


def test_slices_need_pairs_and_matches(exact: LocalizationScene) -> None:
    with pytest.raises(ConfigError, match="--slice 1/2: found no --matches, expected"):
        exact.run(matches=[], slice="1/2")
    with pytest.raises(ConfigError, match="found no --pairs and --matches, expected"):
        exact.run(pairs=None, matches=[], slice="1/2")
