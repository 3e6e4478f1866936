"""7-Scenes and RIO10 in miniature: exact poses, depth maps, one line for what lacks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import kapture
import kapture.io.csv as kcsv
import numpy as np
import pytest
from kapture.io.records import TransferAction
from tools.kapture_import_7scenes import import_7scenes
from tools.kapture_import_RIO10 import INTRINSICS, import_rio10

from pipelines import rio10, seven_scenes
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.errors import OutputError
from r2d2_kapture.io.benchmarks.rgbd import (
    DEPTH_FOCAL,
    colour_from_depth,
    read_registered_depth,
    read_seven_scenes,
)
from r2d2_kapture.io.kapture.dataset import open_dataset
from r2d2_kapture.io.kapture.pose_files import read_pose_file, read_submission
from r2d2_kapture.io.kapture.trajectories import read_camera_poses
from r2d2_kapture.stages.imports.benchmarks import import_scene
from tests.commands import one_error_line
from tests.scenes.benchmarks import (
    Miniature,
    far,
    pinhole,
    save_millimetres,
    square,
    typed,
    view,
    write_lines,
)
from tests.scenes.contents import files_below

MAPPING, QUERIES = (0, 1, 2, 3, 4), (0.5, 2.5)


def write_seven_scenes(root: Path) -> Miniature:
    """A scene ``chess`` of two sequences."""
    mini = Miniature(root / "chess", walls=True)
    write_lines(mini.root / "TrainSplit.txt", ["sequence1"])
    write_lines(mini.root / "TestSplit.txt", ["sequence2"])
    colour, depth = pinhole((640, 480), 525), pinhole((640, 480), DEPTH_FOCAL)
    for sequence, numbers in (("seq-01", MAPPING), ("seq-02", QUERIES)):
        for index, number in enumerate(numbers):
            frame = f"{sequence}/frame-{index:06}"
            name = f"{frame}.color.png"
            mini.take(name, name, colour, view(number))
            depth_from_world = colour_from_depth().inverse() * view(number)
            np.savetxt(
                mini.root / f"{frame}.pose.txt", square(depth_from_world.inverse())
            )
            metres = mini.depth(depth, depth_from_world)
            save_millimetres(mini.root / f"{frame}.depth.png", metres)
    mini.write_features(root / "features")
    return mini


@pytest.fixture(scope="module")
def chess(tmp_path_factory: pytest.TempPathFactory) -> Miniature:
    return write_seven_scenes(tmp_path_factory.mktemp("seven scénes"))


def command(root: Path, output: Path, *more: str) -> list[str]:
    return typed(root, root / "features", output, *more)


def stamps(folder: Path) -> dict[Path, int]:
    """Times of change of files, but for locks."""
    paths = [path for path in folder.rglob("*") if path.name != ".lock"]
    return {path: path.lstat().st_mtime_ns for path in paths if path.is_file()}


def test_seven_scenes(
    chess: Miniature, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, output = chess.root.parent, tmp_path / "work"
    assert seven_scenes.main(command(root, output)) == 0
    printed = capsys.readouterr().out
    assert "0.05 m 5 deg" in printed and "100.0 %" in printed
    (result,) = json.loads((output / "benchmark_report.json").read_text())["results"]
    assert (result["scene"], result["images"], result["localized"]) == ("chess", 2, 2)
    poses = read_pose_file(output / "chess/submission.txt")
    assert set(poses) == {
        "seq-02/frame-000000.color.png",
        "seq-02/frame-000001.color.png",
    }
    assert max(far(poses, chess.truth)) < 0.01  # depth is whole millimetres
    before = stamps(output)
    assert seven_scenes.main(command(root, output)) == 0
    assert "import mapping: 5 images, already done" in capsys.readouterr().out
    assert stamps(output) == before


def test_a_scene_without_a_map_does_not_hold_up_the_others(
    chess: Miniature, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, output = tmp_path / "data", tmp_path / "work"
    shutil.copytree(chess.root.parent / "features", root / "features")
    for name in ("chess", "fire", "heads"):
        shutil.copytree(chess.root, root / name)
    for path in (root / "chess").rglob("*.depth.png"):
        save_millimetres(path, np.zeros((480, 640), np.float32))
    assert seven_scenes.main(command(root, output)) == 1
    printed = capsys.readouterr().out
    assert "  failed: chess: no 3D points were found from 10 verified pairs" in printed
    rows = [line.split()[:3] for line in (output / "results.txt").open()]
    assert rows[1:] == [
        ["fire", "test", "2"],
        ["heads", "test", "2"],
        ["all", "scenes", "4"],
    ]
    assert not (output / "submission.txt").exists()  # scenes have images of one name
    line = command(root, output, "--scenes", "chess")
    assert seven_scenes.main(line) == 2
    assert "no 3D points were found" in one_error_line(capsys)


def test_a_killed_import_goes_on(chess: Miniature, tmp_path: Path) -> None:
    """Depth maps of a killed run are kept where they are whole, tables are last."""
    import_scene(read_seven_scenes, chess.root, tmp_path / "whole", depth=True)
    partial = tmp_path / "partial"
    shutil.copytree(tmp_path / "whole", partial, symlinks=True)
    mapping = partial / "mapping" / "sensors"
    (mapping / "records_camera.txt").unlink()
    links = sorted((mapping / "records_data/seq-01").iterdir())
    kept = links[1].lstat().st_mtime_ns
    for path in links[-2:]:
        path.unlink()
    import_scene(read_seven_scenes, chess.root, partial, depth=True)
    assert files_below(partial) == files_below(tmp_path / "whole")
    assert links[1].lstat().st_mtime_ns == kept


def test_datasets_of_another_folder_are_refused(
    chess: Miniature, tmp_path: Path
) -> None:
    output = tmp_path / "datasets"
    import_scene(read_seven_scenes, chess.root, output, depth=False)
    other = shutil.copytree(chess.root, tmp_path / "fire")
    with pytest.raises(OutputError, match="found the dataset of .*chess; choose"):
        import_scene(read_seven_scenes, other, output, depth=False)
    force = RunOptions(force=True)
    import_scene(read_seven_scenes, other, output, depth=False, options=force)
    link = output / "test/sensors/records_data/seq-02/frame-000000.color.png"
    assert link.resolve() == (other / "seq-02/frame-000000.color.png").resolve()
    (output / "mapping" / "benchmark.json").unlink()
    with pytest.raises(OutputError, match="a dataset of others"):
        import_scene(read_seven_scenes, other, output, depth=False, options=force)


def test_seven_scenes_without_depth(chess: Miniature, tmp_path: Path) -> None:
    more = ("--map.points-from", "triangulation")
    assert seven_scenes.main(command(chess.root.parent, tmp_path / "work", *more)) == 0
    assert (
        max(far(read_pose_file(tmp_path / "work/chess/submission.txt"), chess.truth))
        < 1e-3
    )
    assert not list((tmp_path / "work").rglob("*.depth"))


def test_seven_scenes_as_kapture_imports_it(chess: Miniature, tmp_path: Path) -> None:
    import_scene(read_seven_scenes, chess.root, tmp_path / "ours", depth=True)
    import_7scenes(
        str(chess.root), str(tmp_path / "k"), True, TransferAction.skip, "query"
    )
    theirs = read_camera_poses(open_dataset(tmp_path / "k")).cam_from_world
    ours = open_dataset(tmp_path / "ours/test")
    found = read_camera_poses(ours).cam_from_world
    assert found.keys() == theirs.keys() and len(found) == 2
    assert max(far(found, theirs)) < 1e-6


def test_depth_is_that_of_the_colour_camera(chess: Miniature) -> None:
    """But for the borders, to a pixel's width on a wall that falls away."""
    found = read_registered_depth(chess.root / "seq-02/frame-000000.depth.png")
    truth = chess.depth(pinhole((640, 480), 525), view(QUERIES[0]))
    errors = np.abs(found - truth)[found > 0]
    assert (found > 0).mean() > 0.75
    assert np.median(errors) < 0.005 and errors.max() < 0.05


Damage = Callable[[Path], object]


@pytest.mark.parametrize(
    "damage, words",
    [
        (
            lambda d: (d / "TrainSplit.txt").unlink(),
            "found no TrainSplit.txt, expected",
        ),
        (lambda d: (d / "TestSplit.txt").unlink(), "TestSplit.txt: found no such file"),
        (
            lambda d: (d / "TestSplit.txt").write_text("two"),
            "found 'two', expected such",
        ),
        (lambda d: shutil.rmtree(d / "seq-02"), "seq-02: found no such file or folder"),
        (
            lambda d: (d / "seq-01/frame-000001.pose.txt").unlink(),
            "frame-000001.pose.txt: found no such file or folder, expected a 4 x 4",
        ),
        (
            lambda d: (d / "seq-01/frame-000001.pose.txt").write_text("1 2\n3 4\n"),
            "frame-000001.pose.txt: found (2, 2) numbers, expected a 4 x 4",
        ),
        (
            lambda d: (d / "seq-01/frame-000001.depth.png").write_bytes(b"\x89PNG"),
            "frame-000001.depth.png: cannot be read",
        ),
    ],
)
def test_what_seven_scenes_lacks(
    chess: Miniature,
    damage: Damage,
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(chess.root, tmp_path / "data" / "chess")
    damage(tmp_path / "data" / "chess")
    features = chess.root.parent / "features"
    line = typed(tmp_path / "data", features, tmp_path / "work")
    assert seven_scenes.main(line) == 2
    assert words in one_error_line(capsys)


def test_without_depth_maps_nothing_is_matched(
    chess: Miniature, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(chess.root, tmp_path / "data" / "chess")
    for path in (tmp_path / "data").rglob("*.depth.png"):
        path.unlink()
    line = typed(tmp_path / "data", chess.root.parent / "features", tmp_path / "work")
    assert seven_scenes.main(line) == 2
    error = one_error_line(capsys)
    assert "chess/datasets/mapping: found no depth map, expected some" in error
    assert "give --map.points-from triangulation" in error
    assert not (tmp_path / "work/chess/matches").exists()
    more = ("--map.points-from", "triangulation")
    assert seven_scenes.main([*line, *more]) == 0


def test_scenes_are_chosen(
    chess: Miniature, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = command(chess.root.parent, tmp_path / "work", "--scenes", "fire")
    assert seven_scenes.main(line) == 2
    assert "--scenes fire: found 'chess'" in one_error_line(capsys)


def write_rio10(root: Path) -> Miniature:
    """A scene ``seq01`` of a map, a validation scan and a hidden one."""
    mini = Miniature(root / "scene01" / "seq01", walls=True)
    scans = {"seq01_01": MAPPING, "seq01_02": QUERIES, "seq01_03": (1.5, 3.5)}
    for scan, numbers in scans.items():
        fx, fy, x, y = INTRINSICS[scan]
        camera = pinhole((540, 960), fx, (x + 0.5, y + 0.5))
        camera.params = [fx, fy, x + 0.5, y + 0.5]
        for index, number in enumerate(numbers):
            frame = f"{scan}/frame-{index:06}"
            mini.take(f"{frame}.color.jpg", f"{frame}.color.jpg", camera, view(number))
            depth = mini.depth(camera, view(number))
            save_millimetres(mini.root / f"{frame}.rendered.depth.png", depth)
            if scan != "seq01_03":
                pose = square(view(number).inverse())
                np.savetxt(mini.root / f"{frame}.pose.txt", pose)
    lost = ["INF INF INF INF"] * 4
    write_lines(mini.root / "seq01_02/frame-000002.pose.txt", lost)
    camera = pinhole((540, 960), 756)
    mini.take(
        "seq01_02/frame-000002.color.jpg",
        "seq01_02/frame-000002.color.jpg",
        camera,
        view(9),
    )
    save_millimetres(
        mini.root / "seq01_02/frame-000002.rendered.depth.png",
        np.zeros((960, 540), np.float32),
    )
    mini.write_features(root / "features")
    return mini


@pytest.fixture(scope="module")
def rio(tmp_path_factory: pytest.TempPathFactory) -> Miniature:
    return write_rio10(tmp_path_factory.mktemp("rio10"))


def test_rio10(
    rio: Miniature, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, output = rio.root.parents[1], tmp_path / "work"
    assert rio10.main(command(root, output, "--localize.min-inliers", "20")) == 0
    lines = (output / "submission.txt").read_text().splitlines()
    fields = {line.split()[0]: np.array(line.split()[1:], float) for line in lines}
    assert {"seq01_02/frame-000000", "seq01_03/frame-000001"} <= fields.keys()
    for name, numbers in fields.items():
        if name == "seq01_02/frame-000002":
            continue
        truth = rio.truth[f"{name}.color.jpg"].inverse()  # camera to world
        w, x, y, z = numbers[:4]
        assert abs(np.dot([x, y, z, w], truth.rotation.quat)) > 1 - 1e-6
        assert np.linalg.norm(numbers[4:] - truth.translation) < 5e-3
    report = json.loads((output / "benchmark_report.json").read_text())
    assert report["results"][0]["queries"] == "validation"
    assert report["results"][0]["recall"][0]["share"] == 1
    hidden = open_dataset(output / "seq01/datasets/test")
    back = read_submission(output / "seq01/localized/test/poses.txt", hidden)
    assert back.pose_format == "rio10"
    assert far(back.cam_from_world, rio.truth)[0] < 5e-3


def test_rio10_as_kapture_imports_it(rio: Miniature, tmp_path: Path) -> None:
    import_rio10(
        str(rio.root.parents[1]), str(tmp_path / "k"), True, TransferAction.skip
    )
    theirs = kcsv.kapture_from_dir(str(tmp_path / "k/scene01/mapping"))
    poses = kapture.rigs_remove(theirs.trajectories, theirs.rigs)
    for timestamp, sensor_id, name in kapture.flatten(theirs.records_camera):
        pose = poses[timestamp, sensor_id]
        np.testing.assert_allclose(pose.t_raw, rio.truth[name].translation, atol=1e-9)
    assert len(list(kapture.flatten(theirs.records_camera))) == len(MAPPING)


def test_what_rio10_lacks(
    rio: Miniature, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(rio.root / "seq01_01", tmp_path / "seq01" / "seq01_01")
    assert rio10.main(typed(tmp_path, rio.root, tmp_path / "work")) == 2
    assert "found seq01_01, expected seqXX_01 (the map) and" in one_error_line(capsys)
