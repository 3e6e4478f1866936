"""Images whose file is not of the size of their camera are left out by name."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pycolmap
import pytest

from r2d2_kapture.config.pair_poses import PairPosesConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.errors import DatasetError
from r2d2_kapture.evaluation.posed_images import read_posed_dataset
from r2d2_kapture.extractors.registry import build_extractor
from r2d2_kapture.io.kapture.dataset import open_dataset
from r2d2_kapture.models.checkpoints import load_checkpoint
from r2d2_kapture.stages import export, pipeline
from r2d2_kapture.stages.benchmark.chosen_pairs import choose_pairs
from r2d2_kapture.stages.extract import stage as extract
from r2d2_kapture.types import Report
from tests.scenes.images import write_image_files
from tests.scenes.localization import LocalizationScene
from tests.scenes.pipeline import PipelineScene
from tests.scenes.world import HEIGHT, WIDTH, Scene
from tests.stages import map_runs, verify_runs
from tests.stages.extract.test_extract import CONFIG as EXTRACT

HALF = (WIDTH // 2, HEIGHT // 2)
WALKER = "seq é/walker/1 b.jpg"
LEFT = "seq é/left/3 b.jpg"


def resized(root: Path, *names: str) -> Path:
    """Write the image files of a dataset, of which some are resized by a half."""
    write_image_files(root, dict.fromkeys(names, HALF))
    return root


def all_resized(root: Path) -> Path:
    return resized(root, *open_dataset(root).image_names)


def failed_names(report: Report) -> list[str]:
    assert all("resized by 0.5" in failure.reason for failure in report.failed)
    return [failure.name for failure in report.failed]


def keypoint_counts(database: Path) -> dict[str, int]:
    with closing(pycolmap.Database.open(str(database))) as opened:
        return {
            image.name: opened.num_keypoints_for_image(image.image_id)
            for image in opened.read_all_images()
        }


def test_verification_leaves_them_out(tmp_path: Path) -> None:
    scene = Scene()
    mapping = resized(scene.write_kapture(tmp_path / "mapping"), WALKER)
    report = verify_runs.run(mapping)
    assert failed_names(report) == [WALKER]
    assert report.done == 11 * 10 // 2
    counts = keypoint_counts(tmp_path / "map.db")
    assert [name for name, count in counts.items() if not count] == [WALKER]
    with pytest.raises(DatasetError, match="resized by 0.5"):
        verify_runs.run(mapping, options=RunOptions(strict=True, progress=False))
    # once the picture is right, its pairs are verified and the database is made again
    resized(mapping)
    assert verify_runs.run(mapping).done == 11
    assert keypoint_counts(tmp_path / "map.db")[WALKER] == 120


def test_a_map_of_a_sound_database_leaves_them_out(tmp_path: Path) -> None:
    scene = Scene()
    map_runs.prepare(tmp_path, scene)
    whole = map_runs.run(tmp_path)
    resized(tmp_path / "mapping", WALKER)
    report = map_runs.run(tmp_path)
    assert failed_names(report) == [WALKER]
    assert report.details["observations"] < whole.details["observations"]
    names = {
        i.name for i in map_runs.model_of(tmp_path).images.values() if i.num_points3D
    }
    assert names == set(scene.names) - {WALKER}
    again = map_runs.run(tmp_path)
    assert (again.done, failed_names(again)) == (0, [WALKER])


@pytest.mark.parametrize("name", [WALKER.replace("1", "3"), LEFT])
def test_queries_alone_and_in_rigs_fail_by_name(tmp_path: Path, name: str) -> None:
    scene = LocalizationScene(tmp_path)
    resized(scene.query, name)
    report = scene.run()
    assert failed_names(report) == [name]
    assert (report.done, report.details["localized"]) == (2, 2)
    resized(scene.query)
    assert scene.run().details["localized"] == 3


def test_export_gives_them_no_features(tmp_path: Path) -> None:
    root = resized(Scene().write_kapture(tmp_path / "mapping"), WALKER)
    output = tmp_path / "a.db"
    report = export.run(kapture_root=root, to="colmap-db", output=output)
    assert failed_names(report) == [WALKER]
    assert (report.done, report.details["pairs"]) == (11, 55)
    counts = keypoint_counts(output)
    assert [name for name, count in counts.items() if not count] == [WALKER]


def test_where_no_picture_fits_nothing_is_made(tmp_path: Path) -> None:
    scene = Scene()
    root = map_runs.prepare(tmp_path, scene)
    mapping = all_resized(root / "mapping")
    database = tmp_path / "other.db"
    localization = LocalizationScene(tmp_path / "queries")
    all_resized(localization.query)
    for refused in (
        lambda: verify_runs.run(mapping, database=database),
        lambda: map_runs.run(root),
        lambda: export.run(kapture_root=mapping, to="colmap-db", output=database),
        localization.run,
    ):
        with pytest.raises(DatasetError, match="none of .* resized by 0.5") as caught:
            refused()
        assert "\n" not in str(caught.value)
    assert not database.exists() and not (root / "map").exists()


def test_extraction_only_warns(kapture_root: Path, checkpoint_path: Path) -> None:
    write_image_files(kapture_root, {"a.png": (48, 64), "b c.png": (32, 24)})
    report = extract.run(
        build_extractor(EXTRACT, load_checkpoint(checkpoint_path)),
        kapture_root=kapture_root,
    )
    assert (report.done, report.failed) == (5, ())
    (warning,) = report.warnings
    assert "2 of 5 image files" in warning and "'a.png', 'b c.png'" in warning
    write_image_files(kapture_root)
    again = extract.run(
        build_extractor(EXTRACT, load_checkpoint(checkpoint_path)),
        kapture_root=kapture_root,
    )
    assert not any("size" in warning for warning in again.warnings)


def test_pairs_of_known_pose_leave_them_out(tmp_path: Path) -> None:
    scene = PipelineScene(tmp_path)
    name = open_dataset(scene.mapping).image_names[0]
    resized(scene.mapping, name)
    images = read_posed_dataset(scene.mapping).images
    chosen = choose_pairs(images, PairPosesConfig())
    assert [failure.name for failure in chosen.failed] == [name]
    assert name not in {image.name for pair in chosen.pairs for image in pair}
    wanted = [(name, images[3].name), (images[2].name, images[3].name)]
    chosen = choose_pairs(images, PairPosesConfig(), wanted)
    assert [tuple(i.name for i in pair) for pair in chosen.pairs] == wanted[1:]
    all_resized(scene.mapping)
    with pytest.raises(DatasetError, match="known cameras: none of 9 image files"):
        choose_pairs(images, PairPosesConfig())


def test_the_pipeline_refuses_before_any_work(tmp_path: Path) -> None:
    scene = PipelineScene(tmp_path)
    all_resized(scene.query)
    with pytest.raises(DatasetError, match="query é: none of 3 image files"):
        pipeline.run(
            pipeline.PipelineConfig(),
            mapping=scene.mapping,
            queries={"queries": scene.query},
            features=[scene.features],
            output=tmp_path / "output",
        )
    assert not (tmp_path / "output").exists()
