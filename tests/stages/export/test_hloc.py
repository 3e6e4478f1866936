"""hloc's files: what its rules make of ours, and ours of what its rules write.

hloc is not on PyPI, so its rules are restated here, of hloc 1.5: names of groups,
half a pixel added on the way into COLMAP, lists that are split at spaces.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import h5py
import numpy as np
import pycolmap
import pytest

from r2d2_kapture.cli.export import main as export_main
from r2d2_kapture.cli.imports import main as import_main
from r2d2_kapture.config.origins import OriginConfig
from r2d2_kapture.io.features.hloc import first_matches
from r2d2_kapture.io.kapture.feature_table import open_feature_table
from r2d2_kapture.io.kapture.local_features import open_local_features
from r2d2_kapture.io.kapture.match_store import find_matches
from r2d2_kapture.stages import export
from r2d2_kapture.types import PairMatches
from tests.commands import one_error_line
from tests.scenes.features import unit_rows
from tests.scenes.kapture_files import write_global_features, write_rows
from tests.scenes.world import FOCAL, HEIGHT, WIDTH, Scene, pair_matches

DIM = 16
CENTER = OriginConfig(camera_origin="center")
QUERY = "seq/walker/2_b.jpg"


class PlainScene(Scene):
    """The scene with names that hloc's lists can hold; its matches are of true points.

    Each image shows its points in an order of its own.
    """

    def __init__(self) -> None:
        super().__init__(times=4, noise=0.1)
        plain = {name: name.replace(" é", "").replace(" ", "_") for name in self.names}
        for _, devices in self.dataset.records_camera.items():
            for device, name in devices.items():
                devices[device] = plain[name]
        self.poses = {plain[name]: pose for name, pose in self.poses.items()}
        self.names = list(plain.values())

    def order(self, name: str) -> np.ndarray:
        return np.random.default_rng(list(name.encode())).permutation(len(self.points))

    def keypoints(self, name: str) -> np.ndarray:
        return super().keypoints(name)[self.order(name)]

    def matches(self, first: str, second: str) -> PairMatches:
        places = [np.argsort(self.order(name)) for name in (first, second)]
        return pair_matches(np.column_stack(places), score=0.5)


@pytest.fixture(scope="module")
def scene() -> PlainScene:
    return PlainScene()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, scene: PlainScene) -> Path:
    root = scene.write_kapture(tmp_path_factory.mktemp("hloc") / "k")
    points = unit_rows(len(scene.points), DIM)
    write_rows(
        root / "reconstruction/descriptors/r2d2",
        "descriptors",
        {name: points[scene.order(name)] for name in scene.names},
        fields=f"r2d2, float32, {DIM}, r2d2, L2",
    )
    rows = {name: unit_rows(1, 8, seed) for seed, name in enumerate(scene.names)}
    write_global_features(root, rows)
    scene.write_pictures(root / "sensors/records_data")
    return root


@pytest.fixture(scope="module")
def exported(root: Path) -> Path:
    output = root.parent / "hloc"
    report = export.run(CENTER, kapture_root=root, to="hloc", output=output)
    assert (report.done, report.failed) == (12, ())
    assert report.details["pairs"] == 66
    assert report.details["global_features"] == 12
    assert report.warnings == ()
    return output


def group_of(name0: str, name1: str) -> str:
    return name0.replace("/", "-") + "/" + name1.replace("/", "-")


def hloc_matches(file: h5py.File, name0: str, name1: str) -> np.ndarray:
    """(K, 2) rows of both images, found in either order."""
    swapped = group_of(name0, name1) not in file
    group = file[group_of(*((name1, name0) if swapped else (name0, name1)))]
    second = group["matches0"][()]
    assert group["matching_scores0"].shape == second.shape
    first = np.flatnonzero(second != -1)
    rows = np.column_stack([first, second[first]])
    return rows[:, ::-1] if swapped else rows


def hloc_pairs(path: Path) -> Iterator[tuple[str, str]]:
    for line in path.read_text("utf-8").splitlines():
        name0, name1 = line.split()
        yield name0, name1


def test_hloc_triangulates_and_localizes_with_our_files(
    root: Path, exported: Path, scene: PlainScene, tmp_path: Path
) -> None:
    """Reference poses in, points out, then the pose of an image that was left out."""
    mapping = Path(shutil.copytree(root, tmp_path / "mapping"))
    poses = mapping / "sensors/trajectories.txt"
    lines = poses.read_text("utf-8").splitlines(keepends=True)
    poses.write_text("".join(line for line in lines if "2, walker" not in line))
    export.run(
        CENTER,
        kapture_root=mapping,
        to="colmap",
        output=tmp_path / "colmap",
    )
    reference = pycolmap.Reconstruction(str(tmp_path / "colmap/sparse"))
    camera = reference.find_image_with_name("seq/walker/1_b.jpg").camera
    images = [reference.image(i) for i in sorted(reference.reg_image_ids())]
    ids = {image.name: image.image_id for image in images}
    database = tmp_path / "database.db"
    listed = [p for p in hloc_pairs(exported / "pairs.txt") if QUERY not in p]
    (tmp_path / "pairs.txt").write_text("".join(f"{a} {b}\n" for a, b in listed))
    pycolmap.logging.minloglevel = 2
    with (
        h5py.File(exported / "features.h5") as features,
        h5py.File(exported / "matches.h5") as matches,
        closing(pycolmap.Database.open(str(database))) as opened,
    ):
        for one in reference.cameras.values():
            opened.write_camera(one, use_camera_id=True)
        for rig in reference.rigs.values():
            opened.write_rig(rig, use_rig_id=True)
        for image in images:
            plain = pycolmap.Image(
                name=image.name, camera_id=image.camera_id, image_id=image.image_id
            )
            opened.write_image(plain, use_image_id=True)
        for frame_id in reference.reg_frame_ids():
            opened.write_frame(reference.frame(frame_id), use_frame_id=True)
        for image in images:
            xy = features[image.name]["keypoints"][()]
            opened.write_keypoints(image.image_id, (xy + 0.5).astype(np.float32))
        for name0, name1 in listed:
            rows = hloc_matches(matches, name0, name1).astype(np.uint32)
            opened.write_matches(ids[name0], ids[name1], rows)
    pycolmap.verify_matches(str(database), str(tmp_path / "pairs.txt"))
    (tmp_path / "sfm").mkdir()
    options = pycolmap.IncrementalPipelineOptions(
        num_threads=1, random_seed=0, ba_refine_sensor_from_rig=False
    )
    model = pycolmap.triangulate_points(
        reference,
        str(database),
        str(root / "sensors/records_data"),
        str(tmp_path / "sfm"),
        options=options,
    )
    assert model.num_points3D() == len(scene.points)
    assert model.compute_mean_reprojection_error() < 0.3
    seen: list[tuple[np.ndarray, np.ndarray]] = []
    with (
        h5py.File(exported / "features.h5") as features,
        h5py.File(exported / "matches.h5") as matches,
    ):
        xy = features[QUERY]["keypoints"][()] + 0.5
        for name, image_id in ids.items():
            for own, other in hloc_matches(matches, QUERY, name):
                point = model.image(image_id).point2D(other)
                if point.has_point3D():
                    seen.append((xy[own], model.point3D(point.point3D_id).xyz))
    found = pycolmap.estimate_and_refine_absolute_pose(
        np.array([one for one, _ in seen], np.float64),
        np.array([xyz for _, xyz in seen]),
        camera,
        pycolmap.AbsolutePoseEstimationOptions(
            ransac=dict(max_error=12, random_seed=0)
        ),
    )
    true = scene.poses[QUERY].transform_points(scene.points)
    error = np.abs(found["cam_from_world"] * scene.points - true)
    assert error.max() < 5e-3
    assert found["num_inliers"] > 100


def test_files_have_the_names_shapes_and_types_of_hloc(
    exported: Path, scene: PlainScene
) -> None:
    with h5py.File(exported / "features.h5") as file:
        group = file[scene.names[0]]
        count = len(scene.points)
        assert group["keypoints"].shape == (count, 2)
        assert group["keypoints"].attrs["uncertainty"] == 1.0
        assert group["descriptors"].shape == (DIM, count)
        assert group["scores"].shape == (count,)
        assert group["image_size"][()].tolist() == [WIDTH, HEIGHT]
        np.testing.assert_allclose(
            group["keypoints"][()], scene.keypoints(scene.names[0])[:, :2], atol=1e-4
        )
    with h5py.File(exported / "global-feats.h5") as file:
        assert file[scene.names[0]]["global_descriptor"].shape == (8,)
    with h5py.File(exported / "matches.h5") as file:
        assert sum(len(file[name]) for name in file) == 66


def test_a_keypoint_of_the_first_image_keeps_its_best_match() -> None:
    matches = PairMatches(
        indices=np.array([[0, 3], [2, 1], [0, 2], [2, 0]]),
        scores=np.array([0.9, 0.2, 0.4, 0.7], np.float32),
    )
    second, scores = first_matches(matches, 4)
    assert second.tolist() == [3, -1, 0, -1]
    np.testing.assert_allclose(scores, [0.9, 0, 0.7, 0])


def test_files_without_matches_say_so(root: Path, tmp_path: Path) -> None:
    bare = shutil.copytree(root, tmp_path / "k")
    shutil.rmtree(bare / "reconstruction" / "matches")
    report = export.run(CENTER, kapture_root=bare, to="hloc", output=tmp_path / "out")
    assert any("there are no matches of type r2d2" in one for one in report.warnings)


def test_a_pipeline_gives_lists_of_its_queries(work: Path, tmp_path: Path) -> None:
    report = export.run(pipeline=work, to="hloc", output=tmp_path / "out")
    (spaces,) = (text for text in report.warnings if "spaces in their" in text)
    assert spaces.endswith("pairs.txt, pairs-queries.txt, queries-queries.txt")
    names = {path.name for path in (tmp_path / "out").glob("*.txt")}
    assert names == {"pairs.txt", "pairs-queries.txt", "queries-queries.txt"}
    lines = (tmp_path / "out/queries-queries.txt").read_text("utf-8").splitlines()
    assert len(lines) == 3
    assert lines[0].endswith(f"PINHOLE {WIDTH} {HEIGHT} {FOCAL} {FOCAL} 320.0 240.0")
    with h5py.File(tmp_path / "out/matches.h5") as file:
        for line in (
            (tmp_path / "out/pairs-queries.txt").read_text("utf-8").splitlines()
        ):
            query, other = line.split(".jpg ")
            assert query.endswith("2 b")  # the query comes first, as hloc finds it
            assert group_of(f"{query}.jpg", other) in file


def test_queries_have_the_camera_that_was_found_else_a_guess_which_is_counted(
    work: Path, tmp_path: Path
) -> None:
    """Of three queries one was refined, one is as it was, one failed."""
    copy = Path(shutil.copytree(work, tmp_path / "work"))
    query = Path(shutil.copytree(work.parent / "query é", tmp_path / "query"))
    sensors = query / "sensors/sensors.txt"
    sensors.write_text(
        re.sub(
            r"PINHOLE, 640, 480, .*", "UNKNOWN_CAMERA, 640, 480", sensors.read_text()
        )
    )
    report = copy / "pipeline_report.json"
    content = json.loads(report.read_text("utf-8"))
    content["inputs"]["queries"]["queries"]["path"] = str(query)
    report.write_text(json.dumps(content))
    refined, _, failed = sorted((copy / "localized/queries/queries").rglob("*.json"))
    found = json.loads(refined.read_text("utf-8"))
    camera = ["SIMPLE_RADIAL", "640", "480", "511.5", "319.5", "239.5", "-0.02"]
    refined.write_text(
        json.dumps(found | {"focal_length": "refined", "camera": camera})
    )
    lost = json.loads(failed.read_text("utf-8"))
    failed.write_text(json.dumps(lost | {"status": "failed", "cam_from_world": None}))
    done = export.run(pipeline=copy, to="hloc", output=tmp_path / "out")
    lines = (tmp_path / "out/queries-queries.txt").read_text("utf-8").splitlines()
    cameras = {line.split(".jpg ")[0]: line.split(".jpg ")[1] for line in lines}
    names = [json.loads(p.read_text("utf-8"))["image"][:-4] for p in (refined, failed)]
    assert cameras.pop(names[0]) == "SIMPLE_RADIAL 640 480 511.5 320.0 240.0 -0.02"
    assert cameras.pop(names[1]) == "SIMPLE_RADIAL 640 480 768.0 320.0 240.0 0.0"
    known = f"PINHOLE {WIDTH} {HEIGHT} {FOCAL} {FOCAL} 320.0 240.0"
    assert list(cameras.values()) == [known]
    (guess,) = (text for text in done.warnings if "guess" in text)
    assert guess.startswith("1 of 3 queries") and f"'{names[1]}.jpg'" in guess


def test_names_that_hloc_takes_for_one_are_refused(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(root, tmp_path / "k"))
    records = copy / "sensors/records_camera.txt"
    records.write_text(records.read_text("utf-8") + "9, walker, seq-walker/2_b.jpg\n")
    for suffix in ("keypoints/r2d2", "descriptors/r2d2"):
        folder = copy / "reconstruction" / suffix
        (folder / "seq-walker").mkdir()
        for path in (folder / "seq/walker").glob("2_b.jpg*"):
            shutil.copy(path, folder / "seq-walker")
    command = ["--kapture-root", str(copy), "--to", "hloc"]
    assert export_main([*command, "--output", str(tmp_path / "out")]) == 2
    assert "'seq-walker-2_b.jpg'" in one_error_line(capsys)
    assert not (tmp_path / "out").exists()


def test_our_stages_take_what_was_exported_back_as_it_was(
    root: Path, exported: Path, scene: PlainScene, tmp_path: Path
) -> None:
    files = [
        exported / f"{name}.h5" for name in ("features", "matches", "global-feats")
    ]
    output = tmp_path / "back"
    command = ["--hloc", *map(str, files), "--output", str(output), "--quiet"]
    assert import_main(command) == 0
    tables = open_local_features([output])
    before = open_local_features([root])
    assert tables.keypoints.type_name == "features"
    for name in scene.names:
        np.testing.assert_array_equal(
            tables.keypoints.read(name), before.keypoints.read(name)
        )
        np.testing.assert_array_equal(
            tables.read_descriptors(name), before.read_descriptors(name)
        )
    matches, given = find_matches([output], "features"), find_matches([root], "r2d2")
    assert matches.pairs == given.pairs
    for pair in given.pairs:
        one, other = matches.read(*pair), given.read(*pair)
        assert one is not None and other is not None
        order = np.argsort(other.indices[:, 0])
        np.testing.assert_array_equal(one.indices, other.indices[order])
        np.testing.assert_array_equal(one.scores, other.scores[order])
    rows = open_feature_table([output], "global_features")
    assert rows.type_name == "global-feats"
    np.testing.assert_array_equal(
        rows.read(scene.names[3]), unit_rows(1, 8, 3).astype(np.float32)
    )


def test_files_of_hloc_are_verified_and_mapped(
    root: Path, scene: PlainScene, tmp_path: Path
) -> None:
    """float16 features without scales, int16 matches, one pair in an older name."""
    features, matches = tmp_path / "feats-x.h5", tmp_path / "feats-x_matches.h5"
    points = unit_rows(len(scene.points), DIM)
    pairs = [(a, b) for a in scene.names for b in scene.names if a < b]
    with h5py.File(features, "w") as file:
        for name in scene.names:
            group = file.create_group(name)
            xy = scene.keypoints(name)[:, :2].astype(np.float32)
            group.create_dataset("keypoints", data=xy).attrs["uncertainty"] = 2.0
            rows = points[scene.order(name)].T.astype(np.float16)
            group.create_dataset("descriptors", data=rows)
            group.create_dataset("scores", data=np.linspace(0, 1, len(xy)))
            group.create_dataset("image_size", data=np.array([WIDTH, HEIGHT]))
    with h5py.File(matches, "w") as file:
        for number, (first, second) in enumerate(pairs):
            name = group_of(second, first)
            if number == 5:
                name = name.replace("/", "_")
            found = first_matches(scene.matches(second, first), len(scene.points))
            group = file.create_group(name)
            group.create_dataset("matches0", data=found[0].astype(np.int16))
            group.create_dataset("matching_scores0", data=found[1].astype(np.float16))
        file.create_group("stranger.jpg/other.jpg")["matches0"] = np.zeros(3, np.int16)
    from r2d2_kapture.config.map import MapConfig
    from r2d2_kapture.config.verify import VerifyConfig
    from r2d2_kapture.stages import imports
    from r2d2_kapture.stages import map as map_stage
    from r2d2_kapture.stages import verify

    taken = imports.run(hloc=[features, matches], output=tmp_path / "k")
    assert (taken.done, taken.details["pairs"]) == (12, 66)
    assert [text.partition(" of ")[0] for text in taken.warnings] == ["1 pairs"]
    verify.run(
        VerifyConfig(camera_origin="center"),
        mapping=root,
        features=[tmp_path / "k"],
        matches=[tmp_path / "k"],
        database=tmp_path / "map.db",
        output=tmp_path / "verified",
        keypoints_type="feats-x",
    )
    report = map_stage.run(
        MapConfig(),
        mapping=root,
        database=tmp_path / "map.db",
        output=tmp_path / "map",
        features=[tmp_path / "k"],
        keypoints_type="feats-x",
    )
    assert report.details["registered_images"] == 12
    assert report.details["points"] == len(scene.points)
    assert report.details["mean_reprojection_error"] < 0.3


def test_wrong_files_are_named_in_one_line(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = ["--output", str(tmp_path / "out")]
    features, matches = exported / "features.h5", exported / "matches.h5"
    broken = tmp_path / "broken é.h5"
    broken.write_bytes(features.read_bytes()[:5000])
    empty = tmp_path / "empty.h5"
    h5py.File(empty, "w").close()
    copy = Path(shutil.copy(features, tmp_path / "again.h5"))
    for flags, expected in (
        ([matches], "--hloc: found no features"),
        ([features, copy], "found features in"),
        ([broken], "broken é.h5: cannot read as an HDF5 file"),
        ([empty], "found no features, matches or global features"),
        ([tmp_path / "none.h5"], "none.h5"),
        ([features, "--model", exported], "--hloc: found --model too"),
        ([features, "--keypoints-type", "a/b"], "feature type 'a/b'"),
    ):
        assert import_main(["--hloc", *map(str, flags), *output]) == 2
        assert expected in one_error_line(capsys)
        assert not (tmp_path / "out").exists()
