"""Frames of queries, and focal lengths from EXIF."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import kapture.io.csv as kcsv
import pycolmap
import pytest
from PIL import Image

from r2d2_kapture.config.localize import LocalizeConfig
from r2d2_kapture.io.kapture.dataset import open_dataset
from r2d2_kapture.stages.localize.cameras import QueryImage, query_frames, with_exif
from tests.scenes.world import HEIGHT, UNKNOWN, WIDTH, Scene

EXIF, FOCAL_35MM = 0x8769, 0xA405


def frames_of(root: Path, scene: Scene, **settings: str) -> list[tuple[str, ...]]:
    kcsv.kapture_to_dir(str(root), scene.dataset)
    config = LocalizeConfig(**settings)  # type: ignore[arg-type]
    frames = query_frames(open_dataset(root), "center", config)
    for frame in frames:
        assert (frame.rig_id is None) == (len(frame.images) == 1)
    return [tuple(image.name for image in frame.images) for frame in frames]


def test_images_of_a_rig_at_one_time_are_a_frame_unless_left_aside(
    tmp_path: Path,
) -> None:
    frames = frames_of(tmp_path, Scene())
    expected = [
        (f"seq é/left/{time} b.jpg", f"seq é/right/{time} b.jpg") for time in range(4)
    ]
    assert frames == expected + [(f"seq é/walker/{time} b.jpg",) for time in range(4)]
    frames = frames_of(tmp_path, Scene(), rigs="off")
    assert frames == [(name,) for name in sorted(Scene().names)]


@pytest.mark.parametrize("how", ["unknown", "refine", "estimate"])
def test_cameras_whose_focal_length_is_found_stand_alone(
    tmp_path: Path, how: str
) -> None:
    scene = Scene()
    settings = {} if how == "unknown" else {"focal_length": how}
    if how == "unknown":
        scene.dataset.sensors["left"] = UNKNOWN
    frames = frames_of(tmp_path, scene, **settings)
    assert frames == [(name,) for name in sorted(scene.names)]


def test_a_lone_image_of_a_rig_is_posed_by_its_own_camera(tmp_path: Path) -> None:
    scene = Scene()
    for time in range(4):
        del scene.dataset.records_camera[time, "right"]
    kcsv.kapture_to_dir(str(tmp_path), scene.dataset)
    frames = query_frames(open_dataset(tmp_path), "center", LocalizeConfig())
    identity = pycolmap.Rigid3d().matrix().tolist()
    for frame in frames:
        assert frame.rig_id is None
        assert frame.images[0].cam_from_rig.matrix().tolist() == identity


def query_image(path: Path) -> QueryImage:
    return QueryImage(
        name=path.name,
        path=path,
        sensor_id="camera",
        camera=pycolmap.Camera.create_from_model_name(
            1, "SIMPLE_RADIAL", 1.2 * WIDTH, WIDTH, HEIGHT
        ),
        focal_length="estimated",
        refine_distortion=True,
        cam_from_rig=pycolmap.Rigid3d(),
    )


def write_photograph(
    path: Path, focal_35mm: int | None, size: tuple[int, int] = (WIDTH, HEIGHT)
) -> Path:
    image = Image.new("RGB", size)
    exif = Image.Exif()
    if focal_35mm is not None:
        exif.get_ifd(EXIF)[FOCAL_35MM] = focal_35mm
    image.save(path, exif=exif)
    return path


def test_exif_gives_the_focal_length(tmp_path: Path) -> None:
    image = query_image(write_photograph(tmp_path / "a é.jpg", 28))
    found = with_exif(image)
    assert found.focal_length == "refined"
    assert found.refine_distortion
    # COLMAP takes the 35 mm film by its diagonal
    diagonal = (WIDTH**2 + HEIGHT**2) ** 0.5
    expected = 28 / (36**2 + 24**2) ** 0.5 * diagonal
    assert found.camera.mean_focal_length() == pytest.approx(expected, rel=1e-3)
    assert found.camera.principal_point_x == WIDTH / 2
    assert image.camera.mean_focal_length() == pytest.approx(1.2 * WIDTH)


def test_files_that_tell_nothing_leave_it_unknown(tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    for path in (
        tmp_path / "absent.jpg",
        broken,
        write_photograph(tmp_path / "silent.jpg", None),
        write_photograph(tmp_path / "small.jpg", 28, (WIDTH // 2, HEIGHT // 2)),
    ):
        image = query_image(path)
        assert with_exif(image) is image, path
    known = dataclasses.replace(
        query_image(write_photograph(tmp_path / "known.jpg", 28)), focal_length="fixed"
    )
    assert with_exif(known) is known
