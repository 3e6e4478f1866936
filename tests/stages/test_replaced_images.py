"""Extraction into features of other pictures: replaced, moved, or of the same name."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from r2d2_kapture.config.extract import ExtractConfig, R2D2Config
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.config.stores import Store
from r2d2_kapture.errors import DatasetError
from r2d2_kapture.extractors.registry import build_extractor
from r2d2_kapture.io.features import plain_files
from r2d2_kapture.io.features.hdf5 import h5_names, read_h5
from r2d2_kapture.io.kapture.feature_store import FeatureWriter
from r2d2_kapture.io.kapture.local_features import open_local_features
from r2d2_kapture.io.outputs import image_records
from r2d2_kapture.io.outputs.image_records import RECORDS_NAME, RecordWriter
from r2d2_kapture.models.checkpoints import load_checkpoint, serialize_checkpoint
from r2d2_kapture.models.registry import Architecture
from r2d2_kapture.stages.extract import files as extract_files
from r2d2_kapture.stages.extract import stage as extract
from r2d2_kapture.types import Report
from tests.scenes.images import write_noise
from tests.scenes.kapture_files import write_dataset
from tests.scenes.networks import random_network

CONFIG = ExtractConfig(
    extractor=R2D2Config(
        # as many of every picture: sizes of files do not tell pictures apart
        min_size=32,
        top_k=20,
        reliability_thr=0,
        repeatability_thr=0,
    ),
    gpu=-1,
    precision="fp32",
)
NAMES = ("a.png", "b.png", "sub/c.png")
QUIET = RunOptions(progress=False, workers=1)
FORMATS = ("folder", "tar", "shards", "npz", "mat", "h5", "colmap-text")
STORES: dict[str, Store] = {"folder": "files", "tar": "tar", "shards": "shards"}


# pictures are not compressed: any two of one size have one length


def write_pictures(root: Path, first_seed: int = 0) -> Path:
    for number, name in enumerate(NAMES):
        write_noise(
            root / "sensors/records_data" / name, first_seed + number, compress_level=0
        )
    write_dataset(root, list(NAMES))
    return root


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return write_pictures(tmp_path / "dataset")


@pytest.fixture
def data(dataset: Path) -> Path:
    return dataset / "sensors" / "records_data"


@pytest.fixture(scope="session")
def wide_checkpoint_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of 128 dimensions, which colmap-text needs."""
    architecture = Architecture(name="fast_r2d2", width=1, descriptor_dim=128)
    network = random_network("fast_r2d2", width=1, descriptor_dim=128)
    path = tmp_path_factory.mktemp("weights") / "wide.safetensors"
    path.write_bytes(
        serialize_checkpoint(
            network, architecture, training={}, license_name="Apache-2.0"
        )
    )
    return path


Extract = Callable[..., Report]


@pytest.fixture
def extract_into(dataset: Path, wide_checkpoint_path: Path) -> Extract:
    extractor = build_extractor(CONFIG, load_checkpoint(wide_checkpoint_path))

    def run(
        output: Path, file_format: str, root: Path = dataset, **changes: Any
    ) -> Report:
        settings = {"options": QUIET} | changes
        if file_format in STORES:
            return extract.run(
                extractor,
                kapture_root=root,
                output=output,
                store=STORES[file_format],
                **settings,
            )
        images = root / "sensors" / "records_data"
        return extract_files.run(
            extractor,
            images=[images / name for name in NAMES],
            output_dir=output,
            file_format=file_format,  # type: ignore[arg-type]
            **settings,
        )

    return run


def content(output: Path, file_format: str) -> dict[str, str]:
    """Digests of the features of each image, and of their records."""
    if file_format in ("tar", "shards"):
        tables = open_local_features([output])
        found = {
            name: tables.keypoints.read(name).tobytes()
            + tables.read_descriptors(name).tobytes()
            for name in NAMES
        }
    elif file_format == "h5":
        path = output / plain_files.H5_NAME
        found = {}
        for name in h5_names(path):
            item = read_h5(path, name)
            found[name] = item.keypoints.tobytes() + item.descriptors.tobytes()
            found[name] += item.scores.tobytes() + str(item.image_size).encode()
    else:
        suffixes = (".kpt", ".desc", ".r2d2", ".mat", ".txt")
        paths = [path for path in output.rglob("*") if path.suffix in suffixes]
        found = {str(path.relative_to(output)): path.read_bytes() for path in paths}
        # scipy begins a MATLAB file with the time of day
        found |= {n: data[128:] for n, data in found.items() if n.endswith(".mat")}
    for path in output.rglob(RECORDS_NAME):
        found[str(path.relative_to(output))] = path.read_bytes()
    assert len(found) >= len(NAMES)
    return {name: hashlib.sha256(data).hexdigest() for name, data in found.items()}


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_replaced_picture_is_extracted_again(
    extract_into: Extract, data: Path, tmp_path: Path, file_format: str
) -> None:
    extract_into(tmp_path / "out", file_format)
    write_noise(data / "b.png", 9, compress_level=0)
    report = extract_into(tmp_path / "out", file_format)
    assert (report.done, report.skipped, report.failed) == (1, 2, ())
    assert report.details["replaced"] == 1
    assert "extracted again: 1 ('b.png')" in report.warnings[0]
    extract_into(tmp_path / "fresh", file_format)
    expected = content(tmp_path / "fresh", file_format)
    assert content(tmp_path / "out", file_format) == expected
    again = extract_into(tmp_path / "out", file_format)
    assert (again.done, again.skipped, again.warnings) == (0, 3, ())


@pytest.mark.parametrize("file_format", ["folder", "npz", "h5"])
def test_a_picture_of_another_size_is_extracted_again(
    extract_into: Extract, data: Path, tmp_path: Path, file_format: str
) -> None:
    extract_into(tmp_path / "out", file_format)
    write_noise(data / "b.png", 1, (48, 64), compress_level=0)
    assert extract_into(tmp_path / "out", file_format).done == 1
    extract_into(tmp_path / "fresh", file_format)
    expected = content(tmp_path / "fresh", file_format)
    assert content(tmp_path / "out", file_format) == expected


@pytest.mark.parametrize("file_format", FORMATS)
def test_touched_and_copied_pictures_keep_their_features(
    extract_into: Extract, dataset: Path, tmp_path: Path, file_format: str
) -> None:
    extract_into(tmp_path / "out", file_format)
    for path in (dataset / "sensors" / "records_data").rglob("*.png"):
        os.utime(path)
    report = extract_into(tmp_path / "out", file_format)
    assert (report.done, report.skipped, report.warnings) == (0, 3, ())
    if file_format in STORES:
        shutil.copytree(dataset, tmp_path / "copy")
        report = extract_into(tmp_path / "out", file_format, root=tmp_path / "copy")
        assert (report.done, report.skipped) == (0, 3)


@pytest.mark.parametrize(
    "file_format", ["folder", "tar", "shards", "h5", "colmap-text"]
)
def test_finished_pictures_are_not_read(
    extract_into: Extract,
    data: Path,
    tmp_path: Path,
    file_format: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    extract_into(tmp_path / "out", file_format)
    os.utime(data / "a.png")
    extract_into(tmp_path / "out", file_format)  # which notes the new time
    monkeypatch.setattr(image_records, "sha256_of", None)
    assert extract_into(tmp_path / "out", file_format).skipped == 3


@pytest.mark.parametrize("file_format", ["folder", "tar", "shards"])
def test_two_datasets_of_the_same_names_are_refused(
    extract_into: Extract, dataset: Path, tmp_path: Path, file_format: str
) -> None:
    extract_into(tmp_path / "out", file_format)
    before = content(tmp_path / "out", file_format)
    query = write_pictures(tmp_path / "query", first_seed=20)
    message = r"dataset/.*/a\.png and .*query/.*/a\.png: .* 'a\.png', and of 2 more"
    message += ".* or give datasets that are never used together two outputs$"
    with pytest.raises(DatasetError, match=message):
        extract_into(tmp_path / "out", file_format, root=query)
    assert content(tmp_path / "out", file_format) == before
    # of a dataset that was moved and changed there is one picture of the name only
    shutil.rmtree(dataset)
    assert extract_into(tmp_path / "out", file_format, root=query).done == 3


def test_datasets_that_share_pictures_share_features(
    extract_into: Extract, tmp_path: Path
) -> None:
    extract_into(tmp_path / "out", "folder")
    same = write_pictures(tmp_path / "same")
    assert extract_into(tmp_path / "out", "folder", root=same).skipped == 3


@pytest.mark.parametrize("file_format", FORMATS)
def test_features_of_older_versions_are_kept_unless_the_picture_is_newer(
    extract_into: Extract, data: Path, tmp_path: Path, file_format: str
) -> None:
    output = tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plain_files, "IMAGE_KEY", "unknown")
        extract_into(output, file_format)
    for path in output.rglob(RECORDS_NAME):
        path.unlink()
    for path in data.rglob("*.png"):
        os.utime(path, ns=(10**18, 10**18))
    assert extract_into(output, file_format).skipped == 3
    later = 2 * 10**18
    write_noise(data / "b.png", 9, compress_level=0)
    os.utime(data / "b.png", ns=(later, later))
    report = extract_into(output, file_format)
    assert (report.done, report.details["replaced"]) == (1, 1)


RECORDS = [(RecordWriter, "begin", count) for count in (1, 2, 3, 4)]
ENDS = [(RecordWriter, "finish", count) for count in (1, 2)]
STEPS: dict[str, list[tuple[Any, str, int]]] = {
    "folder": [*RECORDS, (FeatureWriter, "renew", 1), *ENDS],
    "h5": [RECORDS[0], (plain_files, "write_h5", 1), ENDS[0]],
    "colmap-text": [RECORDS[0], (plain_files, "write_colmap_text", 1), ENDS[0]],
}
STEPS["tar"] = STEPS["shards"] = STEPS["folder"]


def interrupt(patch: pytest.MonkeyPatch, owner: Any, name: str, call: int) -> None:
    """Stop the run right before a call of a method."""
    original, calls = getattr(owner, name), []

    def stop(*arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) == call:
            raise KeyboardInterrupt
        original(*arguments)

    patch.setattr(owner, name, stop)


@pytest.mark.parametrize("put_back", [False, True])
@pytest.mark.parametrize(
    ("file_format", "step"),
    [(file_format, step) for file_format in STEPS for step in STEPS[file_format]],
)
def test_a_run_stopped_anywhere_leaves_no_features_of_another_picture(
    extract_into: Extract,
    data: Path,
    tmp_path: Path,
    file_format: str,
    step: tuple[Any, str, int],
    put_back: bool,
) -> None:
    extract_into(tmp_path / "out", file_format)
    write_noise(data / "b.png", 9, compress_level=0)
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, *step)
        with pytest.raises(KeyboardInterrupt):
            extract_into(tmp_path / "out", file_format)
    if put_back:
        write_noise(data / "b.png", 1, compress_level=0)
    extract_into(tmp_path / "out", file_format)
    extract_into(tmp_path / "fresh", file_format)
    expected = content(tmp_path / "fresh", file_format)
    assert content(tmp_path / "out", file_format) == expected


def test_two_types_of_descriptors_of_one_type_of_keypoints(
    extract_into: Extract, data: Path, tmp_path: Path
) -> None:
    for descriptors in ("one", "two"):
        extract_into(tmp_path / "out", "folder", descriptors_type=descriptors)
    write_noise(data / "b.png", 9, compress_level=0)
    for descriptors in ("one", "two"):
        report = extract_into(tmp_path / "out", "folder", descriptors_type=descriptors)
        assert report.done == 1
    rows = [
        next((tmp_path / "out").rglob(f"{descriptors}/b.png.desc")).read_bytes()
        for descriptors in ("one", "two")
    ]
    assert rows[0] == rows[1]


def test_the_record_says_what_was_read(
    extract_into: Extract, data: Path, tmp_path: Path
) -> None:
    extract_into(tmp_path / "out", "folder")
    (path,) = (tmp_path / "out" / "reconstruction" / "keypoints").rglob(RECORDS_NAME)
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert [line["name"] for line in lines] == sorted(NAMES)
    picture = data / "a.png"
    assert lines[0]["sha256"] == hashlib.sha256(picture.read_bytes()).hexdigest()
    assert (lines[0]["path"], lines[0]["size"]) == (str(picture.resolve()), [64, 48])
