"""MegaDepth is prepared scene by scene: reports, resume, broken scenes, workers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pycolmap
import pytest

from r2d2_kapture.config.megadepth import MegadepthConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.errors import ConfigError, DatasetError
from r2d2_kapture.stages.megadepth import stage as megadepth
from r2d2_kapture.stages.megadepth.layout import (
    SFM_FOLDER,
    SceneModel,
    find_models,
    find_root,
)
from r2d2_kapture.stages.megadepth.scene_info import read_scene_list
from r2d2_kapture.types import Report
from tests.scenes.megadepth import WrittenScene
from tests.stages.megadepth_copies import content, copied

CONFIG = MegadepthConfig()

pytestmark = pytest.mark.usefixtures("quick_processes")


@pytest.fixture
def root(scene: WrittenScene) -> Path:
    """Of its downloads."""
    return scene.model.output.parent


def run(root: Path, config: MegadepthConfig = CONFIG, **changes) -> Report:
    force = changes.pop("force", False)
    workers = changes.pop("workers", 1)
    options = RunOptions(workers=workers, force=force, progress=False)
    settings = {"depth_root": root, "sfm_root": root, "output": root / "out"}
    return megadepth.run(config, options=options, **(settings | changes))


def test_a_run_reports_resumes_and_redoes_nothing(
    scene: WrittenScene, root: Path
) -> None:
    report = run(root)
    assert (report.done, report.skipped, report.failed) == (1, 0, ())
    assert report.details["images"] == 4 and report.details["images_left_out"] == 0
    written = json.loads((root / "out" / megadepth.REPORT_NAME).read_text())
    assert (written["stage"], written["done"]) == ("megadepth", 1)
    times = {path: path.stat().st_mtime_ns for path in (root / "out").rglob("*.*g")}
    again = run(root)
    assert (again.done, again.skipped, again.failed) == (0, 1, ())
    assert again.details["images"] == 4
    assert times == {path: path.stat().st_mtime_ns for path in times}
    scene.model.scene_info.unlink()
    assert run(root).done == 1  # of what was left undone only
    assert times == {path: path.stat().st_mtime_ns for path in times}


def test_any_number_of_workers_gives_the_same(scene: WrittenScene, root: Path) -> None:
    copied(scene, "0001")
    one = run(root, workers=1, output=root / "one")
    five = run(root, workers=5, output=root / "five")
    assert (one.done, five.done) == (2, 2)
    assert content(root / "one") == content(root / "five")
    assert len(content(root / "one")) > 20


def test_broken_scenes_are_reported_and_the_others_continue(
    scene: WrittenScene, root: Path
) -> None:
    truncated, empty = copied(scene, "0001"), copied(scene, "0002")
    points = truncated.reconstruction / "points3D.bin"
    points.write_bytes(points.read_bytes()[:100])
    pycolmap.Reconstruction().write(str(empty.reconstruction))
    without_model, without_sfm = copied(scene, "0003"), copied(scene, "0004")
    shutil.rmtree(without_model.reconstruction)
    shutil.rmtree(without_sfm.sfm)
    (truncated.depths.parents[2] / "0005").mkdir()
    report = run(root, workers=2)
    reasons = {failure.name: failure.reason for failure in report.failed}
    assert report.done == 1 and scene.model.scene_info.is_file()
    assert set(reasons) == {"0001.0", "0002.0", "0003.0", "0004", "0005"}
    assert "points3D.bin: truncated" in reasons["0001.0"]
    assert "0 points" in reasons["0002.0"]
    assert "manhattan/0 not found, expected the SfM model" in reasons["0003.0"]
    assert "0004 not found, expected its SfM models; download" in reasons["0004"]
    assert "found no dense<k>/depths" in reasons["0005"]
    assert all("\n" not in reason for reason in reasons.values())


def test_only_the_scenes_asked_for(scene: WrittenScene, root: Path) -> None:
    copied(scene, "0001")
    (root / "scenes.txt").write_text("0001\n0777\n")
    report = run(root, scenes=root / "scenes.txt")
    assert (report.done, [item.name for item in report.failed]) == (1, ["0777"])
    assert not scene.model.scene_info.exists()


def test_outputs_of_any_two_models_are_apart(tmp_path: Path) -> None:
    models = [
        SceneModel(
            scene=scene, number=number, sfm=tmp_path, depths=tmp_path, output=tmp_path
        )
        for scene in ("0022", "0022.0", "0022.1", "0022.1.0", "0022.x", "a b.1")
        for number in range(3)
    ]
    assert models[0].undistorted.name == "0022"  # where D2-Net has it
    assert len({model.undistorted for model in models}) == len(models)
    assert len({model.scene_info for model in models}) == len(models)


@pytest.mark.parametrize(
    "name, allowed",
    [
        ("São Paulo", True),
        ("0022.1", True),
        ("[x]*?", True),
        (".0022.partial", False),
        ("a#b", False),
        ("a\\b", False),
        (" a", False),
        ("a\tb", False),
    ],
)
def test_the_same_names_are_taken_from_folders_and_lists(
    tmp_path: Path, name: str, allowed: bool
) -> None:
    depths, sfm, listed = (tmp_path / part for part in ("depths", "sfm", "list.txt"))
    (depths / name / "dense0" / "depths").mkdir(parents=True)
    (sfm / name).mkdir(parents=True)
    models, missing = find_models(depths, sfm, tmp_path / "out", None)
    assert [model.scene for model in models] == [name] * allowed
    listed.write_text(name, encoding="utf-8")
    if allowed:
        assert (missing, read_scene_list(listed)) == ([], (name,))
        return
    (failure,) = missing
    assert failure.name == repr(name) and "rename" in failure.reason
    if name.partition("#")[0].strip() == name:
        with pytest.raises(DatasetError, match="expected a name of a scene"):
            read_scene_list(listed)


def test_roots_may_be_the_inner_folders_and_say_what_to_download(root: Path) -> None:
    for given in (root, root / SFM_FOLDER):
        assert find_root(given, SFM_FOLDER, "--sfm-root", "models") == root / SFM_FOLDER
    (root / "nothing").mkdir()
    for flag, name, what in (
        ("depth_root", "--depth-root", "MegaDepth_v1"),
        ("sfm_root", "--sfm-root", "MegaDepth_v1_SfM"),
    ):
        for folder, found in (("gone", "not found"), ("nothing", "found no scene")):
            reason = f"{name} .*{folder}: {found}.*{what}.*cs.cornell.edu"
            with pytest.raises(DatasetError, match=reason):
                run(root, **{flag: root / folder})


@pytest.mark.parametrize(
    "changes, flag",
    [({"max_image_size": 0}, "--max-image-size"), ({"depth_tolerance": 0}, "--depth-")],
)
def test_settings_out_of_range(changes, flag: str) -> None:
    with pytest.raises(ConfigError, match=flag):
        MegadepthConfig(**changes)
