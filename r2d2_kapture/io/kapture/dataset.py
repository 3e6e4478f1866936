"""The one place that opens kapture datasets, and checks them before kapture does.

Datasets are untrusted: kapture 1.1.12 evaluates the dtype field of feature files as
Python, and joins image names to folders as they stand.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

import kapture
import kapture.io.csv as kcsv
from kapture.io.records import get_record_fullpath

from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.kapture.tables import (
    KEY_FIELDS,
    CameraRecord,
    check_cameras,
    check_gnss,
    check_record_sensors,
    check_records,
    check_table,
)
from r2d2_kapture.io.lists import read_list_lines
from r2d2_kapture.io.names import broken_by, broken_in_table_by, shown
from r2d2_kapture.io.outputs.pieces import refuse_pieces
from r2d2_kapture.types import Failure

FORMAT_VERSION = "1.1"
PARTIAL_FOLDER = ".partial"
"""Inside a feature type, where rows lie until they are whole; no image's folder."""
BYTE_ORDER_MARK = "\ufeff"
UPGRADE = (
    'python -c "import numpy; numpy.float = float; from '
    "tools.kapture_upgrade_1_0_to_1_1 import upgrade_1_0_to_1_1_command_line as run; "
    'run()" -i OLD -o NEW --image_transfer link_absolute'
)
"""kapture's own command with a name that it misses in NumPy 1.24 and later."""
FEATURE_DTYPES = ("float32", "float64", "int32", "int64", "uint8")
DTYPE_NAMES = {
    **{name: name for name in FEATURE_DTYPES},
    "float": "float64",
    "double": "float64",
    "int": "int64",
}
"""What tools write, such as kapture_import_openmvg, and what they mean."""
DTYPE_SPELLING = re.compile(
    r"(?:<class '|(?:np\.|numpy\.)?dtype\(')?(?:np\.|numpy\.)?(\w+)(?:'\)|'>)?"
)
FEATURE_KINDS = {
    "keypoints": kapture.Keypoints,
    "descriptors": kapture.Descriptors,
    "global_features": kapture.GlobalFeatures,
}
RECONSTRUCTION_PARTS = [
    kapture.Keypoints,
    kapture.Descriptors,
    kapture.GlobalFeatures,
    kapture.Matches,
    kapture.Points3d,
    kapture.Observations,
]


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A kapture dataset that has passed the checks.

    Attributes:
        root: its folder.
        data: sensors, rigs, trajectories and records; no features.
        image_names: of the camera records, in order of time, each once.
        left_out: records whose names no table or list can hold, and why.
    """

    root: Path
    data: kapture.Kapture
    image_names: tuple[str, ...]
    left_out: tuple[Failure, ...] = ()

    @property
    def image_paths(self) -> dict[str, Path]:
        """Where the pixels of each image are, by name."""
        return {name: self.image_path(name) for name in self.image_names}

    @property
    def files(self) -> Iterator[str]:
        """Its tables and image files; the latter may be missing."""
        yield from sorted(map(str, (self.root / "sensors").glob("*.*")))
        prefix = os.path.join(get_record_fullpath(str(self.root)), "")
        yield from (prefix + name for name in self.image_names)

    def image_path(self, name: str) -> Path:
        """Where the pixels of an image are."""
        return Path(get_record_fullpath(str(self.root), name))


DatasetOrPath = Dataset | Path
"""What stages take: a dataset that is open, or the folder of one."""


def open_dataset(root: DatasetOrPath) -> Dataset:
    """Open the sensors and records of a kapture 1.1 dataset.

    Args:
        root: folder that holds ``sensors/``; a dataset that is open stays as it is.

    Raises:
        DatasetError: missing, of another version, malformed, or unsafe to load.
    """
    if isinstance(root, Dataset):
        return root
    refuse_pieces(root)
    records, left_out = check_dataset(root)
    quiet_kapture()
    try:
        # one record that kapture cannot read would stop it at all of them
        parts = [*RECONSTRUCTION_PARTS, kapture.RecordsCamera]
        data = kcsv.kapture_from_dir(str(root), skip_list=parts)
    except (
        OSError,
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        AssertionError,
    ) as error:
        raise DatasetError(f"{root}: kapture cannot read it: {error}") from error
    source = root / "sensors" / "records_camera.txt"
    check_record_sensors(source, records, data.sensors or {}, data.rigs or {})
    data.records_camera = kapture.RecordsCamera()
    for timestamp, sensor, name in records:
        data.records_camera[timestamp, sensor] = name
    names = tuple(name for _, _, name in sorted(records))
    return Dataset(root=root, data=data, image_names=names, left_out=left_out)


def check_dataset(root: Path) -> tuple[list[CameraRecord], tuple[Failure, ...]]:
    """Refuse a dataset that is not kapture 1.1, contradicts itself, or is unsafe.

    Returns:
        The camera records, each image once, and one of a camera at a time; and those
        whose names no table or list can hold.

    Raises:
        DatasetError: naming the file and the way out.
    """
    if not root.is_dir():
        found = "a file" if root.exists() else "nothing there"
        raise DatasetError(
            f"{root}: found {found}, expected the folder of a kapture dataset"
        )
    sensors = root / "sensors" / "sensors.txt"
    if not sensors.is_file():
        raise DatasetError(
            f"{root}: found no sensors/sensors.txt, expected a kapture dataset "
            "(kapture_r2d2_pipeline --images makes one of a folder of photographs)"
        )
    check_feature_dtypes(root)  # first: the upgrade that is named evaluates them
    _check_version(sensors)
    check_cameras(sensors, _table(read_lines(sensors)))
    for name in KEY_FIELDS:
        path = root / "sensors" / f"{name}.txt"
        if path.is_file():
            check_table(path, _table(read_lines(path)))
    path = root / "sensors" / "records_gnss.txt"
    if path.is_file():
        check_gnss(path, _table(read_lines(path)))
    path = root / "sensors" / "records_camera.txt"
    records, left_out = _camera_records(path)
    return check_records(path, records), left_out


def _check_version(sensors: Path) -> None:
    header = read_lines(sensors)[0]
    version = kcsv.get_version_from_header(header)
    if version == "1.0":
        raise DatasetError(
            f"{sensors}: found a dataset of kapture 1.0, expected 1.1; convert it: "
            f"{UPGRADE}"
        )
    if version != FORMAT_VERSION or not header.startswith("#"):
        raise DatasetError(
            f"{sensors}: found '{header[:60]}', expected '# kapture format: "
            f"{FORMAT_VERSION}' in the first line"
        )


def check_feature_dtypes(root: Path) -> None:
    """Refuse feature descriptions whose dtype field kapture must not evaluate.

    Raises:
        DatasetError: a dtype is not in FEATURE_DTYPES, or a line is too short.
    """
    for kind in FEATURE_KINDS:
        folder = root / "reconstruction" / kind
        for config in sorted(folder.glob(f"*/{kind}.txt")) + [folder / f"{kind}.txt"]:
            if config.is_file():
                read_feature_config(config)


def read_feature_config(path: Path) -> list[str]:
    """Fields of keypoints.txt, descriptors.txt or global_features.txt, checked.

    Returns:
        Name, dtype (one of FEATURE_DTYPES), dsize (decimal), and what follows.

    Raises:
        DatasetError: a dtype is not in FEATURE_DTYPES, or a line is too short.
    """
    rows = _table(read_lines(path))
    for row in rows:
        spelled = DTYPE_SPELLING.fullmatch(row[1]) if len(row) > 1 else None
        if spelled and spelled[1] in DTYPE_NAMES:
            row[1] = DTYPE_NAMES[spelled[1]]
        if len(row) > 2 and not (row[2].isdecimal() and int(row[2]) > 0):
            raise DatasetError(f"{path}: dsize '{row[2][:40]}', expected 1 or more")
        if len(row) < 3 or row[1] not in FEATURE_DTYPES:
            found = row[1] if len(row) > 1 else ", ".join(row)
            raise DatasetError(
                f"{path}: dtype '{found[:60]}', expected one of "
                f"{', '.join(FEATURE_DTYPES)}; the dataset is not loaded"
            )
    if not rows:
        raise DatasetError(
            f"{path}: found no description, expected one line; "
            "delete the file to leave this feature type out"
        )
    if any(row != rows[0] for row in rows):
        raise DatasetError(
            f"{path}: found {len(rows)} descriptions that differ, expected one line; "
            "delete the wrong ones"
        )
    return rows[0]


def is_described(path: Path, *fields: str) -> bool:
    """Whether keypoints.txt, descriptors.txt or global_features.txt says these fields.

    A file that is there and right is left as it is, with the time that it has.
    """
    try:
        return path.is_file() and read_feature_config(path) == list(fields)
    except DatasetError:
        return False


def check_relative_name(name: str, source: Path) -> str:
    """Refuse a name that is absolute, climbs out of its folder, or breaks a line.

    Raises:
        DatasetError: naming ``source``, where the name stands.
    """
    if _is_plain(name):
        return name
    parts = PurePosixPath(name).parts
    unsafe = (
        not name.strip()
        or not parts  # the folder itself
        or parts[0] == PARTIAL_FOLDER
        or PurePosixPath(name).is_absolute()
        or bool(PureWindowsPath(name).drive)
        or ".." in parts
        or ".." in PureWindowsPath(name).parts
    )
    if unsafe:
        raise DatasetError(
            f"{source}: name {shown(name)[:80]!r} leaves the dataset's folder or "
            "cannot be a file name, expected a relative path without '..'"
        )
    broken = broken_by(name)
    if broken is not None:
        raise _unholdable(name, broken, source)
    return name


def _is_plain(name: str) -> bool:
    """Whether a name is seen to be harmless at a glance, as there may be millions."""
    return (
        name.isprintable()
        and name[:1] not in ("", " ", ".", "/")
        and not any(mark in name for mark in ("..", "\\", ":"))
    )


def check_table_name(name: str, source: Path) -> str:
    """Refuse a name as ``check_relative_name``, or one that no kapture table can hold.

    Raises:
        DatasetError: naming ``source`` and the character.
    """
    broken = broken_in_table_by(name)
    if name.strip() and broken is not None:
        raise _unholdable(name, broken, source)
    check_relative_name(name, source)
    path = PurePosixPath(name).as_posix()
    if path != name:
        raise DatasetError(
            f"{source}: name '{shown(name)[:80]}' is another than its path "
            f"'{shown(path)[:80]}', by which its features are found; rename the image"
        )
    return name


def _unholdable(name: str, broken: str, source: Path) -> DatasetError:
    return DatasetError(
        f"{source}: name '{shown(name)[:80]}' {broken}, which kapture's tables cannot "
        "hold; rename the image"
    )


def read_lines(path: Path) -> list[str]:
    """Lines of a UTF-8 text file, cut where kapture cuts them: at line ends only.

    Python's splitlines also cuts at rarer separators; a file that holds one could look
    harmless here and not to kapture, so control characters are refused altogether.

    Raises:
        DatasetError: unreadable, not UTF-8, or with control characters.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if text.startswith(BYTE_ORDER_MARK):
            raise DatasetError(
                f"{path}: begins with a byte-order mark, which kapture takes for "
                "text; save it as UTF-8 without"
            )
        if any(len(line.splitlines()) > 1 for line in text.split("\n")):
            raise DatasetError(
                f"{path}: found a control character inside a line; the dataset is not "
                "loaded"
            )
        return text.split("\n")
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: not UTF-8 text; convert it") from error
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror}") from error


def quiet_kapture() -> None:
    """Keep kapture's progress bars and notes out of the output."""
    logging.getLogger("kapture").setLevel(logging.ERROR)


def _table(lines: list[str]) -> list[list[str]]:
    rows = (line for line in lines if line.strip() and not line.startswith("#"))
    return [[field.strip() for field in line.split(",")] for line in rows]


def _camera_records(path: Path) -> tuple[list[CameraRecord], tuple[Failure, ...]]:
    """The records, without those whose names kapture's tables cannot hold.

    Raises:
        DatasetError: missing, malformed, a name that leaves its folder, or no name
            that can be held.
    """
    if not path.is_file():
        raise DatasetError(f"{path}: missing, expected the list of images")
    records, left_out = [], []
    for row in _table(read_list_lines(path, "the records of kapture's cameras")):
        name = ", ".join(row[2:])
        if len(row) < 3:
            raise DatasetError(
                f"{path}: found {len(row)} fields in '{shown(', '.join(row))[:80]}', "
                "expected timestamp, device_id, image_path"
            )
        try:
            timestamp = int(row[0])
        except ValueError as error:
            raise DatasetError(
                f"{path}: timestamp '{shown(row[0])[:40]}', expected an integer"
            ) from error
        broken = broken_in_table_by(name)
        if name and broken is not None:
            reason = str(_unholdable(name, broken, path))
            left_out.append(Failure(name=shown(name), reason=reason))
        else:
            name = check_relative_name(name, path)
            records.append(CameraRecord(timestamp, row[1], name))
    if left_out and not records:
        raise DatasetError(left_out[0].reason)
    return records, tuple(left_out)
