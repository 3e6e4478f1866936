"""VisualSFM, Bundler, OpenMVG and OpenSfM: points are seen where they project to."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pycolmap
import pytest
from PIL import Image

from r2d2_kapture.cli.imports import main
from r2d2_kapture.config.imports import ImportSource
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.colmap.sparse_map import SparseMap, read_sparse_map
from r2d2_kapture.io.kapture.dataset import open_dataset
from r2d2_kapture.io.kapture.feature_table import open_feature_table
from r2d2_kapture.io.kapture.gnss import GnssPosition, read_gnss
from r2d2_kapture.io.kapture.pixel_origins import find_camera_origin, read_origin
from r2d2_kapture.io.kapture.trajectories import read_camera_poses
from r2d2_kapture.stages.export import run as export
from r2d2_kapture.stages.imports import run
from tests.commands import one_error_line
from tests.scenes.reconstruction import Made, synthesize

QUIET = RunOptions(progress=False)
WIDTH, HEIGHT, FOCAL = 64, 48, 80.0


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    made = synthesize(
        tmp_path_factory.mktemp("others"),
        num_cameras_per_rig=1,
        camera_width=WIDTH,
        camera_height=HEIGHT,
        camera_params=[FOCAL, WIDTH / 2, HEIGHT / 2, 0.0],
    )
    for image in made.model.images.values():
        Image.new("L", (WIDTH, HEIGHT)).save(made.images / image.name)
    return made


def images_of(made: Made) -> list[pycolmap.Image]:
    return sorted(made.model.images.values(), key=lambda image: str(image.name))


def write_nvm(made: Made) -> Path:
    """As ccwu.me/vsfm/doc.html#nvm has it: pixels from the middle of the image."""
    images = images_of(made)
    lines = ["NVM_V3", "", str(len(images))]
    for image in images:
        pose = image.cam_from_world()
        x, y, z, w = pose.rotation.quat.tolist()
        centre = pose.inverse().translation.tolist()
        numbers = " ".join(map(repr, [FOCAL, w, x, y, z, *centre, 0, 0]))
        lines.append(f"{image.name}\t{numbers}")
    lines += ["", str(made.model.num_points3D())]
    rows = {image.image_id: row for row, image in enumerate(images)}
    for point in made.model.points3D.values():
        fields = [*point.xyz.tolist(), 10, 20, 30, point.track.length()]
        for element in point.track.elements:
            image = made.model.image(element.image_id)
            x, y = image.points2D[element.point2D_idx].xy - [WIDTH / 2, HEIGHT / 2]
            fields += [rows[image.image_id], element.point2D_idx, x, y]
        lines.append(" ".join(map(str, fields)))
    path = made.root / "model.nvm"
    path.write_text("\n".join([*lines, "", "0", ""]), encoding="utf-8")
    return path


def write_bundler(made: Made) -> Path:
    """By our export, which a test of its own holds to the format."""
    dataset, out = made.root / "dataset", made.root / "bundler"
    run(model=made.sparse, images=made.images, output=dataset, options=QUIET)
    export(kapture_root=dataset, to="bundler", output=out, options=QUIET)
    return out / "bundle.out"


def write_openmvg(made: Made) -> Path:
    """Views, intrinsics and extrinsics as openMVG's sfm_data.json has them."""
    images = images_of(made)
    camera = {
        "width": WIDTH,
        "height": HEIGHT,
        "focal_length": FOCAL,
        "principal_point": [WIDTH / 2, HEIGHT / 2],
    }
    value = {"polymorphic_id": 2147483649, "polymorphic_name": "pinhole"}
    content = {
        "root_path": str(made.images),
        "views": [
            {
                "key": row,
                "value": {
                    "ptr_wrapper": {
                        "data": {
                            "local_path": "",
                            "filename": image.name,
                            "id_view": row,
                            "id_intrinsic": 0,
                            "id_pose": row,
                        }
                    }
                },
            }
            for row, image in enumerate(images)
        ],
        "intrinsics": [{"key": 0, "value": {**value, "ptr_wrapper": {"data": camera}}}],
        "extrinsics": [
            {
                "key": row,
                "value": {
                    "rotation": image.cam_from_world().rotation.matrix().tolist(),
                    "center": image.cam_from_world().inverse().translation.tolist(),
                },
            }
            for row, image in enumerate(images)
        ],
    }
    path = made.root / "sfm_data.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def write_opensfm(made: Made) -> Path:
    """reconstruction.json and exif/ as opensfm.org/docs/dataset.html has them."""
    project = made.root / "opensfm"
    (project / "exif").mkdir(parents=True)
    (project / "matches").mkdir()
    (project / "matches" / "a_matches.pkl.gz").write_bytes(b"no pickle is opened")
    shots = {}
    for image in images_of(made):
        pose = image.cam_from_world()
        axis_angle = pose.rotation.angle() * rotation_axis(pose.rotation)
        shots[image.name] = {
            "camera": "one",
            "rotation": axis_angle.tolist(),
            "translation": pose.translation.tolist(),
        }
        gps = {"gps": {"latitude": 46.5, "longitude": 6.5, "altitude": 400.0}}
        path = project / "exif" / f"{image.name}.exif"
        path.write_text(json.dumps(gps), encoding="utf-8")
    camera = {"projection_type": "perspective", "width": WIDTH, "height": HEIGHT}
    points = {
        str(i): {"coordinates": point.xyz.tolist(), "color": [1, 2, 3]}
        for i, point in made.model.points3D.items()
    }
    content = {
        "cameras": {"one": {**camera, "focal": FOCAL / WIDTH, "k1": 0.0, "k2": 0.0}},
        "shots": shots,
        "points": points,
    }
    path = project / "reconstruction.json"
    path.write_text(json.dumps([content]), encoding="utf-8")
    return project


def rotation_axis(rotation: pycolmap.Rotation3d) -> npt.NDArray[np.float64]:
    xyz = rotation.quat[:3] * np.sign(rotation.quat[3] or 1)
    unit: npt.NDArray[np.float64] = xyz / max(np.linalg.norm(xyz), 1e-12)
    return unit


def errors(found: SparseMap, root: Path) -> npt.NDArray[np.float64]:
    """Pixels between keypoints and what they see, both in COLMAP's origin."""
    table = open_feature_table([root], "keypoints")
    distances = []
    for name, image in found.images.items():
        xyz = found.points[image.point_rows]
        rays = xyz @ image.cam_from_world[:, :3].T + image.cam_from_world[:, 3]
        seen = table.read(name)[image.keypoints, :2] + 0.5
        projected = found.cameras[name].img_from_cam(rays)
        distances.append(np.abs(seen - projected).max(axis=1))
    return np.concatenate(distances)


@pytest.mark.parametrize(
    ("source", "write"), [("nvm", write_nvm), ("bundler", write_bundler)]
)
def test_points_are_where_images_see_them(
    source: ImportSource, write: Callable[[Made], Path], made: Made, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    report = run(
        source=source, model=write(made), images=made.images, output=out, options=QUIET
    )
    assert (report.done, report.details["observations"]) == (
        made.model.num_images(),
        made.model.compute_num_observations(),
    )
    found = read_sparse_map(out)
    assert errors(found, out).max() < 1e-4
    true = sorted(point.xyz.tolist() for point in made.model.points3D.values())
    np.testing.assert_allclose(np.array(sorted(found.points.tolist())), true, atol=1e-6)
    dataset = open_dataset(out)
    assert find_camera_origin(dataset, "auto").basis == "file"
    (folder,) = open_feature_table([out], "keypoints").folders
    assert read_origin(folder.path) == "center"
    again = run(
        source=source, model=write(made), images=made.images, output=out, options=QUIET
    )
    assert again.failed == ()


@pytest.mark.parametrize(
    ("source", "write", "prefix"),
    [("openmvg", write_openmvg, "images/"), ("opensfm", write_opensfm, "")],
)
def test_poses_and_cameras_are_the_tools(
    source: ImportSource,
    write: Callable[[Made], Path],
    prefix: str,
    made: Made,
    tmp_path: Path,
) -> None:
    images = made.images.parent if prefix else made.images
    report = run(
        source=source,
        model=write(made),
        images=images,
        output=tmp_path / "out",
        options=QUIET,
    )
    assert any("extract features" in text for text in report.warnings)
    dataset = open_dataset(tmp_path / "out")
    poses = read_camera_poses(dataset).cam_from_world
    assert len(poses) == made.model.num_images()
    for image in made.model.images.values():
        found = poses[prefix + image.name].matrix()
        np.testing.assert_allclose(found, image.cam_from_world().matrix(), atol=1e-9)
    for sensor in dataset.data.sensors.values():
        if sensor.sensor_type == "camera":
            width, height, focal, cx, cy = sensor.camera_params[:5]
            assert (width, height, focal) == (WIDTH, HEIGHT, FOCAL)
            assert (cx, cy) == (WIDTH / 2 - 0.5, HEIGHT / 2 - 0.5)
    if source == "opensfm":
        assert set(read_gnss(dataset).values()) == {
            GnssPosition(latitude=46.5, longitude=6.5, altitude=400)
        }


def test_names_that_leave_their_folder_are_refused_before_kapture_writes(
    made: Made, tmp_path: Path
) -> None:
    model = write_nvm(made)
    text = model.read_text("utf-8")
    name = images_of(made)[0].name
    evil = tmp_path / "evil.nvm"
    for other in (f"../../../../../../..{tmp_path}/x.png", f"{tmp_path}/x.png"):
        (tmp_path / "x.png").write_bytes((made.images / name).read_bytes())
        evil.write_text(text.replace(name, other), encoding="utf-8")
        with pytest.raises(DatasetError, match="leaves the dataset's folder"):
            run(
                source="nvm",
                model=evil,
                images=made.images,
                output=tmp_path / "out",
                options=QUIET,
            )
        assert not list(tmp_path.glob("*.kpt"))


def test_images_without_file_are_left_out_by_name(made: Made, tmp_path: Path) -> None:
    model = write_nvm(made)
    name = images_of(made)[1].name
    moved = tmp_path / "lost.nvm"
    moved.write_text(model.read_text("utf-8").replace(name, "lost.png"), "utf-8")
    report = run(
        source="nvm",
        model=moved,
        images=made.images,
        output=tmp_path / "out",
        options=QUIET,
    )
    assert report.done == made.model.num_images() - 1
    assert any("'lost.png'" in text for text in report.warnings)
    assert errors(read_sparse_map(tmp_path / "out"), tmp_path / "out").max() < 1e-4


def test_a_changed_list_of_names_is_imported_again(made: Made, tmp_path: Path) -> None:
    model, listed = tmp_path / "bundle.out", tmp_path / "list.txt"
    theirs = write_bundler(made)
    model.write_bytes(theirs.read_bytes())
    names = theirs.with_name("bundle.out.list.txt").read_text("utf-8").split()

    def poses(order: list[str]) -> dict[str, pycolmap.Rigid3d]:
        listed.write_text("\n".join(order) + "\n", "utf-8")
        run(
            source="bundler",
            model=model,
            images=made.images,
            output=tmp_path / "out",
            options=QUIET,
        )
        return read_camera_poses(open_dataset(tmp_path / "out")).cam_from_world

    first, second = poses(names)[names[0]], poses(names[::-1])[names[-1]]
    assert first.matrix().tolist() == second.matrix().tolist()


def test_what_is_no_reconstruction_is_one_line(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken"
    broken.write_text("NVM_V2\n", encoding="utf-8")
    images, out = str(made.images), str(tmp_path / "out")
    for source, model in (
        ("nvm", broken),
        ("bundler", broken),
        ("openmvg", broken),
        ("opensfm", tmp_path),
    ):
        typed = ["--from", source, "--model", str(model), "--images", images]
        assert main([*typed, "--output", out]) == 2
        assert f"{model}: kapture's import cannot read it" in one_error_line(capsys)
    typed = ["--from", "nvm", "--model", str(broken), "--output", out]
    assert main(typed) == 2
    assert "--from nvm: found no --images" in one_error_line(capsys)
    assert main(["--from", "nvm", "--output", out]) == 2
    assert "--from nvm: found no --model" in one_error_line(capsys)
    assert not Path(out).exists()
