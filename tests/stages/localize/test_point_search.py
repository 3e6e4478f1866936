"""The second pass of localization, from files: what it adds, and what it must not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from r2d2_kapture.config.localize import LocalizeConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.types import unit_rows
from tests.scenes.localization import JUNK, LocalizationScene, position_error
from tests.scenes.world import write_array
from tests.stages.localize.test_localize import poses_of, record

OFF = LocalizeConfig(second_pass="off")
ON = LocalizeConfig(second_pass="on")
SEPARATE = LocalizeConfig(rigs="off", second_pass="on")


def write_descriptors(scene: LocalizationScene, *, alike: bool = False) -> Path:
    """Descriptors of the points, with noise; or the same for all keypoints."""
    folder = scene.features / "reconstruction/descriptors/r2d2"
    rng = np.random.default_rng(0)
    of_points = rng.normal(size=(len(scene.scene.points), 64))
    for name in scene.scene.names:
        rows = rng.normal(size=(len(of_points) + JUNK, 64))
        rows[scene.rows[name]] = of_points + 0.2 * rng.normal(size=of_points.shape)
        if alike:
            rows[:] = 1
        write_array(folder / f"{name}.desc", unit_rows(rows.astype(np.float32)))
    (folder / "descriptors.txt").write_text(
        "# kapture format: 1.1\nr2d2, float32, 64, r2d2, L2\n", encoding="utf-8"
    )
    return folder


@pytest.fixture
def scarce(tmp_path: Path) -> LocalizationScene:
    """Queries matched with one image, by every sixth point."""
    scene = LocalizationScene(tmp_path, noise=0.7)
    image = scene.mapped[0]
    for query in scene.queries:
        every = np.column_stack([scene.rows[query], scene.rows[image]])
        scene.replace_matches(query, image, every[::6])
    scene.write_pairs([(query, image) for query in scene.queries])
    write_descriptors(scene)
    return scene


def errors(scene: LocalizationScene, output: str) -> list[float]:
    found = poses_of(scene, output)
    return [position_error(found[name], scene.truth(name)) for name in scene.queries]


@pytest.mark.parametrize("rigs", ["auto", "off"])
def test_points_of_images_that_were_not_retrieved_are_added(
    scarce: LocalizationScene, rigs: str
) -> None:
    for use in ("off", "on"):
        config = LocalizeConfig(second_pass=use, rigs=rigs)  # type: ignore[arg-type]
        scarce.run(config, output=use)
    assert sum(errors(scarce, "on")) < 0.8 * sum(errors(scarce, "off"))
    for name in scarce.queries:
        plain, more = (record(scarce, name, output) for output in ("off", "on"))
        assert "added" not in plain and 60 < more["added"] <= 100
        # the search finds what agrees with the pose, which says nothing about it
        for count in ("matches", "correspondences", "inliers", "verdict"):
            assert more[count] == plain[count]


def test_the_same_whatever_the_workers_and_nothing_is_redone(
    scarce: LocalizationScene,
) -> None:
    scarce.run(SEPARATE, output="one")
    scarce.run(SEPARATE, RunOptions(progress=False, workers=1), output="another")
    for name in scarce.queries:
        assert record(scarce, name, "one") == record(scarce, name, "another")
    report = scarce.run(SEPARATE, output="one")
    assert (report.done, report.skipped) == (0, len(scarce.queries))


def test_changed_descriptors_are_searched_again(scarce: LocalizationScene) -> None:
    scarce.run(SEPARATE)
    write_array(
        scarce.features / f"reconstruction/descriptors/r2d2/{scarce.queries[0]}.desc",
        np.zeros((len(scarce.scene.points) + JUNK, 64), np.float32),
    )
    report = scarce.run(SEPARATE)
    assert (report.done, report.skipped) == (1, 2)
    assert record(scarce, scarce.queries[0])["added"] == 0


def test_without_descriptors_it_is_left_out_and_the_report_says_so(
    tmp_path: Path,
) -> None:
    scene = LocalizationScene(tmp_path)
    report = scene.run(ON)
    assert report.details["second_pass"] == "left out, found no descriptors"
    assert scene.run(OFF, output="off").details.get("second_pass") is None
    for name in scene.queries:
        assert "added" not in record(scene, name)


def test_a_pose_by_chance_stays_doubtful_whatever_is_found_near_it(
    tmp_path: Path,
) -> None:
    """Points that all look alike are found around any pose."""
    scene = LocalizationScene(tmp_path, outliers=1.0)
    write_descriptors(scene, alike=True)
    config = LocalizeConfig(min_inliers=4, rigs="off", second_pass="on")
    report = scene.run(config)
    assert report.done == report.details["doubtful"] == len(scene.queries)
    found = [record(scene, name) for name in scene.queries]
    assert {item["verdict"] for item in found} == {"doubtful"}
