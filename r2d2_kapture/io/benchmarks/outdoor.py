"""Cambridge Landmarks and Extended CMU Seasons: lists of images with their poses.

Cambridge: ``dataset_train.txt`` and ``dataset_test.txt`` (name, camera centre, and the
rotation of the world into the camera as a quaternion), cameras from VisualSFM's
``reconstruction.nvm`` (ccwu.me/vsfm/doc.html). kapture's importer of NVM finds none of
the images, which the file calls .jpg and the archives .png.

Extended CMU: ``intrinsics.txt``, and for each slice lists with poses (rotation and
camera centre) of the database, of half of the queries, and of all queries without; read
by kapture's functions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import kapture
from tools.kapture_import_Extended_CMU_Seasons import (
    import_extended_cmu_seasons_images,
    import_extended_cmu_seasons_intrinsics,
)

from r2d2_kapture.errors import UNREADABLE, DatasetError
from r2d2_kapture.io.benchmarks.splits import Scene, Shot, Split, from_center, required
from r2d2_kapture.io.images.decoding import image_size
from r2d2_kapture.io.kapture.poses import rigid3d_from_kapture
from r2d2_kapture.io.lists import read_list_lines

CAMBRIDGE_LINE = "such as 'seq1/frame00001.png X Y Z W P Q R'"
CAMBRIDGE_HEADER_LINES = 3


def read_cambridge(scene: Path) -> Scene:
    """Read a landmark: dataset_train.txt is the map, dataset_test.txt is localized.

    Raises:
        DatasetError: a file is missing or malformed.
    """
    lenses = _read_nvm(
        required(scene / "reconstruction.nvm", "VisualSFM's model of the images")
    )
    return Scene(
        mapping=_cambridge_split(scene, "dataset_train.txt", lenses),
        queries={"test": _cambridge_split(scene, "dataset_test.txt", lenses)},
    )


def _cambridge_split(
    scene: Path, list_name: str, lenses: dict[str, tuple[float, float]]
) -> Split:
    path = required(scene / list_name, f"a list of images, {CAMBRIDGE_LINE}")
    lines = read_list_lines(path, "a list of images")
    shots: list[Shot] = []
    sensors: dict[str, kapture.Camera] = {}
    for number, line in enumerate(lines[CAMBRIDGE_HEADER_LINES:], 4):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        name, values = _name_and_numbers(line, 7, place, CAMBRIDGE_LINE)
        lens = lenses.get(_stem(name))
        if lens is None:
            raise DatasetError(
                f"{scene / 'reconstruction.nvm'}: found no camera of '{name}', "
                f"expected one of each image of {list_name}"
            )
        image = scene / name
        if image.is_file():
            sensors[name] = _nvm_camera(image, *lens)
        shots.append(
            Shot(
                name=name,
                path=image,
                sensor_id=name,
                timestamp=number,
                cam_from_world=from_center(values[3:], values[:3], place),
            )
        )
    return Split(shots=tuple(shots), sensors=sensors, origin="corner")


def _nvm_camera(image: Path, focal: float, radial: float) -> kapture.Camera:
    """VisualSFM's r undistorts; to first order -r distorts, as COLMAP has it."""
    width, height = image_size(image)
    parameters = [width, height, focal, width / 2, height / 2, -radial]
    return kapture.Camera("SIMPLE_RADIAL", parameters)


def _read_nvm(path: Path) -> dict[str, tuple[float, float]]:
    """Focal length in pixels and r of the images of a model, by name without suffix."""
    lines = [line for line in read_list_lines(path, "NVM_V3") if line.strip()]
    if not lines or not lines[0].startswith("NVM_V3"):
        found = lines[0][:40] if lines else "nothing"
        raise DatasetError(f"{path}: found '{found}', expected NVM_V3 in line 1")
    try:
        count = int(lines[1])
    except (ValueError, IndexError) as error:
        raise DatasetError(
            f"{path}: found no number of cameras, expected it below NVM_V3"
        ) from error
    cameras = lines[2 : 2 + count]
    if len(cameras) < count:
        raise DatasetError(
            f"{path}: found {len(cameras)} of {count} cameras, expected all; the file "
            "is truncated: unpack it again"
        )
    lenses = {}
    for number, line in enumerate(cameras):
        line = line.replace("\t", " ")
        expected = "name, focal length, quaternion, centre, r and 0"
        name, values = _name_and_numbers(
            line, 10, f"{path}, camera {number + 1}", expected
        )
        lenses[_stem(name)] = values[0], values[8]
    return lenses


def _stem(name: str) -> str:
    return str(PurePosixPath(name.replace("\\", "/")).with_suffix(""))


def _name_and_numbers(
    line: str, count: int, place: str, expected: str
) -> tuple[str, list[float]]:
    name, *fields = line.rsplit(maxsplit=count)
    try:
        values = [float(field) for field in fields]
    except ValueError:
        values = []
    if len(values) != count:
        raise DatasetError(f"{place}: found '{line.strip()[:80]}', expected {expected}")
    return name.strip(), values


def read_extended_cmu(scene: Path) -> Scene:
    """Read a slice: database is the map, query is localized; half of it has poses.

    Raises:
        DatasetError: a file is missing or malformed.
    """
    number = scene.name.removeprefix("slice")
    intrinsics = required(scene.parent / "intrinsics.txt", "the two cameras c0 and c1")
    database = f"ground-truth-database-images-slice{number}.txt"
    try:
        sensors = dict(import_extended_cmu_seasons_intrinsics(str(intrinsics)))
    except (AssertionError, *UNREADABLE) as error:
        raise DatasetError(
            f"{intrinsics}: cannot be read ({' '.join(str(error).split())}), expected "
            "'c0 OPENCV 1024 768 fx fy cx cy k1 k2 p1 p2' and c1"
        ) from error
    with_poses = sorted((scene / "camera-poses").glob("*.txt"))
    lists = [scene / f"test-images-slice{number}.txt", *with_poses]
    return Scene(
        mapping=_cmu_split(scene / "database", [scene / database], sensors),
        queries={"query": _cmu_split(scene / "query", lists, sensors)},
    )


def _cmu_split(
    images: Path, lists: Sequence[Path], sensors: dict[str, kapture.Camera]
) -> Split:
    """All images of lists; an image that several list has the pose that one gives."""
    shots: dict[str, Shot] = {}
    for path in lists:
        for shot in _cmu_shots(images, path, sensors):
            known = shots.get(shot.name)
            if known is None or known.cam_from_world is None:
                shots[shot.name] = shot
    return Split(shots=tuple(shots.values()), sensors=sensors)


def _cmu_shots(
    images: Path, path: Path, sensors: dict[str, kapture.Camera]
) -> Iterator[Shot]:
    expected = "such as 'img_00122_c0_1303398475046031us.jpg' and maybe a pose"
    required(path, f"a list of images, {expected}")
    try:
        records, trajectories = import_extended_cmu_seasons_images(str(path))
    except (AssertionError, *UNREADABLE) as error:
        raise DatasetError(
            f"{path}: cannot be read ({' '.join(str(error).split())}), expected lines "
            f"{expected}"
        ) from error
    for timestamp, sensor_id, name in kapture.flatten(records):
        if sensor_id not in sensors:
            raise DatasetError(
                f"{path}: found '{name}' of camera {sensor_id}, expected a camera of "
                "intrinsics.txt"
            )
        pose = (trajectories or {}).get(timestamp, {}).get(sensor_id)
        yield Shot(
            name=name,
            path=images / name,
            sensor_id=sensor_id,
            timestamp=timestamp,
            cam_from_world=pose and rigid3d_from_kapture(pose, f"{path}: {name}"),
        )
