"""Refinement of datasets in which some images or keypoints cannot be refined."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from r2d2_kapture.config.refine import RefineConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.errors import ImageError
from r2d2_kapture.stages.refine import stage as refine
from r2d2_kapture.types import Report
from tests.scenes.contents import files_below
from tests.scenes.plane import TYPE, PlaneScene
from tests.scenes.surfaces import SIDE, moved_by

Array = npt.NDArray[np.float64]
QUIET = RunOptions(progress=False, workers=1)
REFINED = f"{TYPE}_refined"


@pytest.fixture
def scene(tmp_path: Path) -> PlaneScene:
    return PlaneScene(tmp_path / "plane é", images=3)


def refined(
    scene: PlaneScene, options: RunOptions = QUIET, output: str = "refined"
) -> Report:
    return refine.run(
        RefineConfig(),
        mapping=scene.mapping,
        features=[scene.features],
        database=scene.database,
        output=scene.root / output,
        options=options,
    )


def rows_of(folder: Path, name: str, type_name: str = REFINED) -> Array:
    path = folder / "reconstruction" / "keypoints" / type_name / f"{name}.kpt"
    described = (path.parents[len(Path(name).parts) - 1] / "keypoints.txt").read_text()
    columns = int(described.split(",")[-1])
    return np.fromfile(path, np.float32).reshape(-1, columns).astype(np.float64)


def before(scene: PlaneScene, name: str) -> Array:
    return rows_of(scene.features, name, TYPE)


def after(scene: PlaneScene, name: str) -> Array:
    return rows_of(scene.root / "refined", name)


def disagreements(scene: PlaneScene, names: list[str]) -> tuple[Array, Array]:
    """Pixels between matched keypoints, mapped by the true homography, before and
    after."""
    found: tuple[list[Array], list[Array]] = ([], [])
    for first, second in zip(names, names[1:]):
        _, one, other = np.intersect1d(
            scene.seen[first], scene.seen[second], return_indices=True
        )
        there_from_here = scene.homographies[second] @ np.linalg.inv(
            scene.homographies[first]
        )
        for rows, errors in zip((before, after), found, strict=True):
            here = moved_by(there_from_here, rows(scene, first)[one, :2])
            errors.append(np.linalg.norm(here - rows(scene, second)[other, :2], axis=1))
    return np.concatenate(found[0]), np.concatenate(found[1])


def inner(scene: PlaneScene, names: list[str]) -> Array:
    """Whether each match of consecutive images has its patches inside both."""
    found = []
    for first, second in zip(names, names[1:]):
        _, one, other = np.intersect1d(
            scene.seen[first], scene.seen[second], return_indices=True
        )
        places = np.stack([scene.truth(first)[one], scene.truth(second)[other]])
        found.append(((places > 14) & (places < SIDE - 15)).all(axis=(0, 2)))
    return np.concatenate(found)


def test_matches_agree_to_a_fraction_of_a_pixel(scene: PlaneScene) -> None:
    scene.verify()
    report = refined(scene)
    assert not report.failed
    earlier, later = disagreements(scene, scene.names)
    shown = inner(scene, scene.names)
    assert np.median(later) <= np.median(earlier)
    assert np.median(later[shown]) <= np.median(earlier[shown]) / 3


@pytest.mark.parametrize("defect", ["truncated", "text", "gone", "other size"])
def test_an_image_that_cannot_be_read_keeps_its_keypoints(
    scene: PlaneScene, defect: str
) -> None:
    scene.verify()
    *others, broken = scene.names
    path = scene.picture(broken)
    content = path.read_bytes()
    path.unlink()
    if defect == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif defect == "text":
        path.write_text("no image")
    elif defect == "other size":
        Image.new("L", (1, 1)).save(path)
    report = refined(scene)
    assert [failure.name for failure in report.failed] == [broken]
    assert str(path) in report.failed[0].reason and "\n" not in report.failed[0].reason
    np.testing.assert_array_equal(after(scene, broken), before(scene, broken))
    earlier, later = disagreements(scene, others)
    shown = inner(scene, others)
    assert np.median(later) <= np.median(earlier)
    assert np.mean(later[shown] < earlier[shown]) > 0.5
    with pytest.raises(ImageError, match="a b.png"):
        refined(scene, RunOptions(progress=False, workers=1, strict=True), "strict")

    path.write_bytes(content)  # mended, it is refined as if it had never been broken
    assert not refined(scene).failed
    whole = refined(scene, output="whole")
    assert not whole.failed
    for name in scene.names:
        np.testing.assert_array_equal(
            after(scene, name), rows_of(scene.root / "whole", name)
        )


def test_identical_images_end_at_identical_places(tmp_path: Path) -> None:
    scene = PlaneScene(tmp_path, images=3, still=True)
    scene.verify()
    assert not refined(scene).failed
    earlier, later = disagreements(scene, scene.names)
    shown = inner(scene, scene.names)
    assert np.median(later[shown]) <= 0.02 < np.median(earlier[shown])


@pytest.mark.parametrize("size", [(1, 1), (1, SIDE), (SIDE, 1)])
def test_an_image_one_pixel_wide_or_high_keeps_its_keypoints(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    scene = PlaneScene(tmp_path, images=3, first_size=size)
    scene.verify()
    tiny, *others = scene.names
    report = refined(scene)
    assert not report.failed and report.details["kept"]["border"] >= 20
    np.testing.assert_array_equal(after(scene, tiny), before(scene, tiny))
    earlier, later = disagreements(scene, others)
    assert np.median(later) <= np.median(earlier)


@pytest.mark.parametrize(("columns", "side"), [(2, 32.0), (3, 0.0)])
def test_keypoints_without_a_scale_are_those_of_the_full_image(
    scene: PlaneScene, columns: int, side: float
) -> None:
    """As third-party features have them."""
    scene.write_features(columns, side)
    scene.verify()
    assert not refined(scene).failed
    earlier, later = disagreements(scene, scene.names)
    shown = inner(scene, scene.names)
    assert np.median(later[shown]) <= np.median(earlier[shown]) / 3


def test_any_number_of_workers_writes_the_same_bytes(scene: PlaneScene) -> None:
    scene.verify()
    written = []
    for workers in (1, 2, 4):
        output = f"by {workers}"
        refined(scene, RunOptions(progress=False, workers=workers), output)
        written.append(
            files_below(scene.root / output, suffixes={".kpt", ".db", ".jsonl"})
        )
    assert written[0] == written[1] == written[2]
