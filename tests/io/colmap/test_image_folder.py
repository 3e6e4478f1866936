"""Folders of images as kapture datasets."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import kapture
import numpy as np
import pycolmap
import pytest
from PIL import Image

from r2d2_kapture.config.cameras import MODEL_PARAMETERS, CameraMode
from r2d2_kapture.config.photographs import FolderConfig
from r2d2_kapture.errors import ConfigError, DatasetError, OutputError
from r2d2_kapture.io.colmap import shots
from r2d2_kapture.io.colmap.cameras import (
    UNKNOWN_CAMERA,
    colmap_camera,
    photograph_camera,
)
from r2d2_kapture.io.colmap.image_folder import (
    approximate_sensors,
    write_image_folder_dataset,
)
from r2d2_kapture.io.images.decoding import read_rgb
from r2d2_kapture.io.images.formats import reads_avif
from r2d2_kapture.io.kapture.dataset import open_dataset
from r2d2_kapture.io.kapture.gnss import GnssPosition, read_gnss
from r2d2_kapture.io.names import shown
from tests.scenes.kapture_files import write_noise_dataset

SIZE = (64, 48)
FOCAL_35MM = 50
FOCAL = FOCAL_35MM / np.hypot(36, 24) * np.hypot(*SIZE)


def save(
    path: Path,
    focal: int | None = None,
    size: tuple[int, int] = SIZE,
    model: str = "M1",
    orientation: int = 1,
    gps: Mapping[int, object] | None = None,
) -> None:
    """An image of noise, with EXIF of maker, model, 35 mm focal length and place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)
    exif = Image.Exif()
    if focal is not None:
        exif[0x010F], exif[0x0110], exif[0x0112] = "Maker", model, orientation
        exif.get_ifd(0x8769)[0xA405] = focal
    exif.get_ifd(0x8825).update(gps or {})
    Image.fromarray(pixels).save(path, exif=exif)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for name in ("b c.jpg", "a.jpg", "été/é à.jpg"):
        save(folder / name, FOCAL_35MM)
    save(folder / "été" / "longer.jpg", 2 * FOCAL_35MM)
    save(folder / "other.jpg", FOCAL_35MM, model="M2")
    save(folder / "wide.jpg", FOCAL_35MM, size=(80, 48))
    save(folder / "plain.png")
    save(folder / "été" / "plain.png")
    return folder


def cameras(photos: Path, mode: CameraMode) -> dict[str, tuple[str, ...]]:
    """The images of each camera."""
    root = photos.parent / mode
    write_image_folder_dataset(photos, root, FolderConfig(camera_mode=mode))
    found: dict[str, list[str]] = {}
    records = open_dataset(root).data.records_camera
    for timestamp in sorted(records):
        for sensor_id, name in records[timestamp].items():
            found.setdefault(sensor_id, []).append(name)
    return {sensor_id: tuple(names) for sensor_id, names in found.items()}


def test_dataset_of_a_folder(photos: Path, tmp_path: Path) -> None:
    made = write_image_folder_dataset(photos, tmp_path / "dataset")
    dataset = open_dataset(tmp_path / "dataset")
    assert dataset.image_names == made.names == tuple(sorted(made.names))
    assert len(made.names) == 8
    assert (made.cameras, made.with_focal_length, made.failed) == (7, 5, ())
    for name in made.names:
        np.testing.assert_array_equal(
            read_rgb(dataset.image_path(name)), read_rgb(photos / name)
        )
    assert dataset.data.trajectories is None
    data = dataset.data
    unknown = {
        name
        for timestamp in data.records_camera
        for sensor_id, name in data.records_camera[timestamp].items()
        if data.sensors[sensor_id].camera_type.name == "UNKNOWN_CAMERA"
    }
    assert unknown == {"plain.png", "été/plain.png"}
    assert approximate_sensors(tmp_path / "dataset") == set(data.sensors)
    sensor = data.sensors[next(iter(data.records_camera[0]))]  # of a.jpg
    assert sensor.camera_type.name == "SIMPLE_RADIAL"
    width, height, focal, cx, cy, distortion = sensor.camera_params
    assert (width, height, cx, cy, distortion) == (*SIZE, 31.5, 23.5, 0)
    assert focal == pytest.approx(FOCAL, rel=1e-3)
    assert not approximate_sensors(write_noise_dataset(tmp_path / "noise"))


def test_which_images_share_a_camera(photos: Path) -> None:
    assert set(cameras(photos, "auto").values()) == {
        ("a.jpg", "b c.jpg"),
        ("other.jpg",),
        ("wide.jpg",),
        ("plain.png",),
        ("été/longer.jpg",),
        ("été/plain.png",),
        ("été/é à.jpg",),
    }
    assert set(cameras(photos, "per-folder").values()) == {
        ("a.jpg", "b c.jpg", "other.jpg", "plain.png"),
        ("wide.jpg",),
        ("été/longer.jpg", "été/plain.png", "été/é à.jpg"),
    }
    assert sorted(map(len, cameras(photos, "single").values())) == [1, 7]
    assert len(cameras(photos, "per-image")) == 8
    data = open_dataset(photos.parent / "single").data
    sensor = data.sensors["camera_00001"]
    assert sensor.camera_params[2] == pytest.approx(FOCAL, rel=1e-3)


def test_orientation_tags_do_not_turn_the_camera(tmp_path: Path) -> None:
    save(tmp_path / "photos" / "a.jpg", FOCAL_35MM, orientation=6)
    write_image_folder_dataset(tmp_path / "photos", tmp_path / "dataset")
    sensor = open_dataset(tmp_path / "dataset").data.sensors["camera_00001"]
    assert tuple(sensor.camera_params[:2]) == SIZE
    assert sensor.camera_params[2] == pytest.approx(FOCAL, rel=1e-3)


def test_photographs_that_match_badly_together_are_reported(tmp_path: Path) -> None:
    def warnings(mode: CameraMode = "auto", query: str | None = None) -> str:
        root = tmp_path / f"{mode} {query}"
        config = FolderConfig(camera_mode=mode)
        write = write_image_folder_dataset
        return " ".join(write(photos, root, config, query=query).warnings)

    photos = tmp_path / "photos"
    save(photos / "b.jpg", FOCAL_35MM, orientation=6)
    assert warnings() == "", "all are turned alike"
    assert "1 of 1 photographs are stored turned" in warnings(query="q")
    save(photos / "a.jpg", FOCAL_35MM)
    assert "1 of 2 photographs" in warnings() and "ones: 'b.jpg'" in warnings()
    assert "sizes" not in warnings("single")
    Image.new("L", (40, 30)).save(photos / "small.png")
    assert "single: found photographs of 2 sizes" in warnings("single")
    assert "sizes" not in warnings("single", query="q")


def test_formats_that_colmap_cannot_read_are_unknown_cameras(tmp_path: Path) -> None:
    save(tmp_path / "photos" / "a.webp")
    made = write_image_folder_dataset(tmp_path / "photos", tmp_path / "dataset")
    assert (made.names, made.with_focal_length) == (("a.webp",), 0)


def test_what_cannot_be_used_is_listed(photos: Path, tmp_path: Path) -> None:
    (photos / "empty.jpg").touch()
    (photos / "text.jpg").write_text("no image", encoding="utf-8")
    save(photos / "one, two.jpg")
    (photos / "notes.md").write_text("passed over", encoding="utf-8")
    made = write_image_folder_dataset(photos, tmp_path / "dataset")
    assert len(made.names) == 8
    reasons = {failure.name: failure.reason for failure in made.failed}
    assert sorted(reasons) == ["empty.jpg", "one, two.jpg", "text.jpg"]
    assert "comma" in reasons["one, two.jpg"]
    assert "empty" in reasons["empty.jpg"]


def test_nothing_usable_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    with pytest.raises(DatasetError, match="no such folder"):
        write_image_folder_dataset(folder, tmp_path / "dataset")
    folder.mkdir()
    with pytest.raises(DatasetError, match="no image"):
        write_image_folder_dataset(folder, tmp_path / "dataset")
    (folder / "a.jpg").touch()
    with pytest.raises(DatasetError, match="none of 1 images.*a.jpg"):
        write_image_folder_dataset(folder, tmp_path / "dataset")
    assert os.listdir(tmp_path) == ["photos"]


def test_dataset_inside_its_images_is_refused(photos: Path) -> None:
    with pytest.raises(DatasetError, match="inside the folder of images"):
        write_image_folder_dataset(photos, photos / "work")
    assert not (photos / "work").exists()


def test_made_again_it_is_the_same_and_follows_the_folder(
    photos: Path, tmp_path: Path
) -> None:
    def texts() -> dict[str, str]:
        paths = [*root.glob("sensors/*.txt"), *root.glob("*.json")]
        return {path.name: path.read_text(encoding="utf-8") for path in paths}

    root = tmp_path / "dataset"
    write_image_folder_dataset(photos, root)
    before = texts()
    write_image_folder_dataset(photos, root)
    assert texts() == before
    moved = Path(shutil.move(photos, tmp_path / "moved"))
    write_image_folder_dataset(moved, root)
    assert open_dataset(root).image_path("a.jpg").is_file()


def test_a_file_that_changed_is_read_again(photos: Path, tmp_path: Path) -> None:
    alone = FolderConfig(camera_mode="per-image")

    def size() -> list[float]:
        write_image_folder_dataset(photos, tmp_path / "dataset", alone)
        data = open_dataset(tmp_path / "dataset").data
        (sensor_id,) = data.records_camera[0]
        return list(data.sensors[sensor_id].camera_params[:2])

    assert size() == [64, 48]
    save(photos / "a.jpg", FOCAL_35MM, size=(48, 64))
    assert size() == [48, 64]


def test_a_file_that_did_not_change_is_not_decoded_again(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = write_image_folder_dataset(photos, tmp_path / "dataset")

    def decode(*arguments: object) -> None:
        raise AssertionError("decoded")

    with monkeypatch.context() as patched:
        patched.setattr(shots, "read_exif", decode)
        again = write_image_folder_dataset(photos, tmp_path / "dataset")
        assert again == dataclasses.replace(first, unchanged=8)
        with pytest.raises(AssertionError):
            write_image_folder_dataset(photos, tmp_path / "other")


def test_foreign_datasets_are_not_touched(photos: Path, tmp_path: Path) -> None:
    root = write_noise_dataset(tmp_path / "dataset")
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    with pytest.raises(OutputError, match="not made from a folder"):
        write_image_folder_dataset(photos, root)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_names_are_taken_or_fail_alone(tmp_path: Path) -> None:
    taken = ["4.42\u202fPM.jpg", "Cafe\u0301.jpg", "a\u00a0/\u3000b.jpg"]
    refused = {
        "comma, 1.jpg": "comma, 1.jpg' holds a comma",
        "#1.jpg": "'#1.jpg' starts with #",
        " 1.jpg": "' 1.jpg' holds the character U+0020 at its start",
        "bell\x07.jpg": r"'bell\x07.jpg' holds the character U+0007",
    }
    for name in (*taken, *refused):
        save(tmp_path / "photos" / name)
    folder = write_image_folder_dataset(tmp_path / "photos", tmp_path / "k")
    assert folder.names == tuple(sorted(taken))
    assert set(open_dataset(tmp_path / "k").image_names) == set(taken)
    found = {failure.name: failure.reason for failure in folder.failed}
    for name, words in refused.items():
        assert words in found[shown(name)]
    assert len(found) == len(refused)


@pytest.mark.parametrize("suffix", ["heic", "avif"])
def test_the_focal_length_of_what_colmap_does_not_read(
    tmp_path: Path, suffix: str
) -> None:
    photos = tmp_path / "photos"
    save(photos / "a.jpg", FOCAL_35MM)
    jpeg = Image.open(photos / "a.jpg")
    if suffix == "heic":
        heif = pytest.importorskip("pillow_heif")
        heif.from_pillow(jpeg).save(photos / "b.heic", exif=jpeg.info["exif"])
    elif reads_avif():
        jpeg.save(photos / "b.avif", exif=jpeg.info["exif"])
    else:
        pytest.skip("this Pillow has no AVIF")
    folder = write_image_folder_dataset(photos, tmp_path / "dataset")
    assert (folder.cameras, folder.with_focal_length) == (2, 2)
    sensors = open_dataset(tmp_path / "dataset").data.sensors
    focals = [float(sensor.camera_params[2]) for sensor in sensors.values()]
    np.testing.assert_allclose(focals, FOCAL, rtol=1e-3)
    query = photograph_camera(photos / f"b.{suffix}", SIZE)
    assert query is not None and query.has_prior_focal_length
    assert query.focal_length == pytest.approx(FOCAL, rel=1e-3)


def test_links_are_images_and_what_is_left_out_is_reported(tmp_path: Path) -> None:
    save(tmp_path / "real.jpg")
    (tmp_path / "photos").mkdir()
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / "photos" / name).symlink_to("../real.jpg")
    (tmp_path / "photos" / "c.CR2").touch()
    folder = write_image_folder_dataset(tmp_path / "photos", tmp_path / "dataset")
    assert folder.names == ("a.jpg", "b.jpg")
    assert folder.warnings == (
        "1 left out, raw camera files, which are not supported: 'c.CR2'",
    )


def test_known_parameters_hold_for_all_and_are_not_approximate(tmp_path: Path) -> None:
    for name in ("a.jpg", "sub/b.jpg"):
        save(tmp_path / "photos" / name, FOCAL_35MM)
    given = FolderConfig(camera_model="PINHOLE", camera_params="60,61,32.5,24")
    root = tmp_path / "dataset"
    assert write_image_folder_dataset(tmp_path / "photos", root, given).cameras == 1
    (sensor,) = open_dataset(root).data.sensors.values()
    # kapture counts from the centre of the first pixel, COLMAP from its corner
    assert sensor.sensor_params == ["PINHOLE", *"64 48 60 61 32 23.5".split()]
    assert approximate_sensors(root) == set()
    camera = colmap_camera(sensor, 1, "center")
    np.testing.assert_allclose(camera.params, [60, 61, 32.5, 24])
    save(tmp_path / "photos" / "turned.jpg", size=(48, 64))
    with pytest.raises(ConfigError, match="2 sizes.*48 x 64, 64 x 48.*--exclude"):
        write_image_folder_dataset(tmp_path / "photos", root, given)
    wrong = FolderConfig(camera_model="PINHOLE", camera_params="32,24,60,61")
    with pytest.raises(ConfigError, match=r"\(60, 61\) outside.*fx,fy,cx,cy"):
        write_image_folder_dataset(
            tmp_path / "photos", root, wrong, exclude=["turned.jpg"]
        )


def test_a_model_is_that_of_cameras_with_and_without_exif(tmp_path: Path) -> None:
    save(tmp_path / "photos" / "a.jpg", FOCAL_35MM)
    save(tmp_path / "photos" / "b.jpg")
    root = tmp_path / "dataset"
    opencv = FolderConfig(camera_model="OPENCV")
    write_image_folder_dataset(tmp_path / "photos", root, opencv)
    sensors = open_dataset(root).data.sensors
    cameras = [colmap_camera(sensors[s], 1, "center") for s in sorted(sensors)]
    assert [camera.model_name for camera in cameras] == ["OPENCV", "OPENCV"]
    assert [camera.has_prior_focal_length for camera in cameras] == [True, False]
    np.testing.assert_allclose(cameras[0].params[:2], FOCAL, rtol=1e-3)
    np.testing.assert_allclose(cameras[1].params[:4], [1.2 * 64, 1.2 * 64, 32, 24])
    assert approximate_sensors(root) == set(sensors)


def test_photographs_to_localize_have_names_and_unknown_cameras_of_their_own(
    tmp_path: Path,
) -> None:
    photos = tmp_path / "nuit é"
    for name in ("a.jpg", "sub/b c.jpg"):
        save(photos / name, FOCAL_35MM)
    given = FolderConfig(camera_mode="single", camera_model="PINHOLE")
    root = tmp_path / "dataset"
    made = write_image_folder_dataset(photos, root, given, query="nuit é")
    assert made.names == ("nuit é/a.jpg", "nuit é/sub/b c.jpg")
    dataset = open_dataset(root)
    assert dataset.image_path("nuit é/a.jpg").read_bytes() == (
        (photos / "a.jpg").read_bytes()
    )
    kinds = [sensor.camera_type.name for sensor in dataset.data.sensors.values()]
    assert kinds == ["UNKNOWN_CAMERA", "UNKNOWN_CAMERA"]
    again = write_image_folder_dataset(photos, root, given, query="nuit é")
    assert again == dataclasses.replace(made, unchanged=2)


def test_the_known_camera_of_photographs_to_localize_is_kept(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        save(tmp_path / "photos" / name, FOCAL_35MM)
    given = FolderConfig(camera_model="PINHOLE", camera_params="60,61,32.5,24")
    write_image_folder_dataset(
        tmp_path / "photos", tmp_path / "dataset", given, query="night"
    )
    (sensor,) = open_dataset(tmp_path / "dataset").data.sensors.values()
    assert sensor.camera_type.name == "PINHOLE"
    # kapture counts pixels from their centres
    assert sensor.camera_params[2:] == [60, 61, 32, 23.5]


def test_models_are_those_of_kapture_with_the_parameters_of_colmap() -> None:
    assert {*MODEL_PARAMETERS, UNKNOWN_CAMERA} == set(kapture.CameraType.__members__)
    for model, names in MODEL_PARAMETERS.items():
        camera = pycolmap.Camera.create_from_model_name(0, model, 1.0, 4, 3)
        assert camera.params_info.replace(" ", "") == names
        assert len(camera.params) == len(names.split(","))


def test_positions_of_exif_become_records_and_go_with_them(tmp_path: Path) -> None:
    photos, root = tmp_path / "photos", tmp_path / "dataset"
    save(photos / "none.jpg", FOCAL_35MM)
    there = {1: "S", 2: (33.0, 51.0, 24.48), 3: "E", 4: (151.0, 12.0, 55.08)}
    for name, more in {"a b.jpg": {5: b"\1", 6: 12.5}, "é.jpg": {6: 0.5}}.items():
        save(photos / name, FOCAL_35MM, gps=there | more)
    save(photos / "odd.jpg", FOCAL_35MM, gps=there | {1: "X"})
    folder = write_image_folder_dataset(photos, root)
    found = read_gnss(open_dataset(root))
    assert list(found) == ["a b.jpg", "é.jpg"] and folder.with_position == 2
    for name, altitude in (("a b.jpg", -12.5), ("é.jpg", 0.5)):
        position = found[name]
        assert isinstance(position, GnssPosition)
        assert position.latitude == pytest.approx(-33.8568, abs=1e-9)
        assert position.longitude == pytest.approx(151.2153, abs=1e-9)
        assert position.altitude == altitude
    (said,) = folder.warnings
    assert said == (
        "1 of 4 photographs have a broken GPS position in EXIF, which is not used: "
        "'odd.jpg' ('odd.jpg': GPSLatitudeRef 'X', not N or S)"
    )
    again = write_image_folder_dataset(photos, root)
    assert again == dataclasses.replace(folder, unchanged=4)
    assert read_gnss(open_dataset(root)) == found
    for name in ("a b.jpg", "é.jpg"):
        save(photos / name, FOCAL_35MM, size=(80, 48))
    write_image_folder_dataset(photos, root)
    assert read_gnss(open_dataset(root)) == {}
    assert not (root / "sensors" / "records_gnss.txt").exists()


def test_queries_have_positions_too(tmp_path: Path) -> None:
    save(tmp_path / "new" / "a.jpg", gps={1: "N", 2: (1.0,), 3: "W", 4: (2.5,)})
    write_image_folder_dataset(tmp_path / "new", tmp_path / "query", query="new")
    found = read_gnss(open_dataset(tmp_path / "query"))
    assert found == {"new/a.jpg": GnssPosition(latitude=1.0, longitude=-2.5)}
