"""The extraction stage on a small dataset: outputs, failures, resume, repeatability."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from r2d2_kapture.config.extract import ExtractConfig, R2D2Config
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.errors import DatasetError, OutputError
from r2d2_kapture.extractors.registry import build_extractor
from r2d2_kapture.io.kapture.dataset import open_dataset
from r2d2_kapture.io.kapture.local_features import open_local_features
from r2d2_kapture.models.checkpoints import load_checkpoint
from r2d2_kapture.stages.extract import stage as extract
from r2d2_kapture.types import Report
from tests.scenes.contents import files_below
from tests.scenes.kapture_files import write_dataset, write_noise_dataset

CONFIG = ExtractConfig(
    extractor=R2D2Config(min_size=32, top_k=50, reliability_thr=0, repeatability_thr=0),
    gpu=-1,
    precision="fp32",
)
FEATURES = (".kpt", ".desc", ".tar")


def run(root: Path, checkpoint_path: Path, **kwargs: Any) -> Report:
    config = kwargs.pop("config", CONFIG)
    return extract.run(
        build_extractor(config, load_checkpoint(checkpoint_path)),
        kapture_root=root,
        **kwargs,
    )


def test_every_image_gets_features_that_fit_it_and_a_manifest(
    kapture_root: Path, checkpoint_path: Path
) -> None:
    report = run(kapture_root, checkpoint_path)
    assert (report.done, report.skipped, report.failed) == (5, 0, ())
    tables = open_local_features([kapture_root], "tiny")
    assert set(tables.keypoints.image_names) == set(
        open_dataset(kapture_root).image_names
    )
    for name in tables.keypoints.image_names:
        found = tables.read(name, (64, 48))
        assert len(found) == 50
        assert found.descriptors.shape == (50, 16)
        np.testing.assert_allclose(
            np.linalg.norm(found.descriptors, axis=1), 1, atol=1e-5
        )
        assert (found.keypoints >= -0.5).all()
        assert (found.keypoints <= np.array([63.5, 47.5])).all()
    folder = kapture_root / "reconstruction" / "keypoints" / "tiny"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (
        manifest["model"]["sha256"]
        == hashlib.sha256(checkpoint_path.read_bytes()).hexdigest()
    )
    assert manifest["settings"]["top_k"] == 50
    assert "torch" in manifest["versions"]
    written = json.loads((folder / "extract_report.json").read_text())
    assert written["done"] == 5
    assert written["keypoints"] == report.details["keypoints"] == 250
    beside = kapture_root / "reconstruction/descriptors/tiny/manifest.json"
    descriptors = json.loads(beside.read_text())
    assert descriptors["model"] == manifest["model"]
    assert descriptors["settings"].pop("keypoints_type") == "tiny"
    assert descriptors["settings"] == manifest["settings"]


@pytest.mark.parametrize("tar", [False, True])
def test_bytes_do_not_depend_on_workers_or_batches(
    tmp_path: Path, checkpoint_path: Path, tar: bool
) -> None:
    written = []
    for workers, batch_size in ((1, 1), (4, 1), (2, 3)):
        root = write_noise_dataset(tmp_path / f"{workers}-{batch_size}")
        config = dataclasses.replace(CONFIG, batch_size=batch_size)
        run(
            root,
            checkpoint_path,
            config=config,
            tar=tar,
            options=RunOptions(workers=workers),
        )
        written.append(files_below(root, suffixes=FEATURES))
    assert written[0]
    assert written[0] == written[1] == written[2]


def test_a_second_run_does_nothing(kapture_root: Path, checkpoint_path: Path) -> None:
    run(kapture_root, checkpoint_path)
    before = {
        p: p.stat().st_mtime_ns for p in kapture_root.rglob("*") if p.suffix == ".kpt"
    }
    report = run(kapture_root, checkpoint_path)
    assert (report.done, report.skipped) == (0, 5)
    assert before == {p: p.stat().st_mtime_ns for p in before}


def test_bad_images_are_reported_and_the_rest_continues(
    kapture_root: Path, checkpoint_path: Path
) -> None:
    data = kapture_root / "sensors" / "records_data"
    (data / "a.png").write_bytes(b"")
    (data / "b c.png").unlink()
    whole = (data / "sub-deeper.png").read_bytes()
    (data / "sub-deeper.png").write_bytes(whole[: len(whole) // 2])
    report = run(kapture_root, checkpoint_path)
    assert report.done == 2
    assert {f.name for f in report.failed} == {"a.png", "b c.png", "sub-deeper.png"}
    (data / "sub-deeper.png").write_bytes(whole)
    report = run(kapture_root, checkpoint_path)
    assert (report.done, report.skipped, len(report.failed)) == (1, 2, 2)


def test_strict_stops_at_the_first_bad_image(
    kapture_root: Path, checkpoint_path: Path
) -> None:
    (kapture_root / "sensors/records_data/b c.png").write_bytes(b"")
    report = run(kapture_root, checkpoint_path, options=RunOptions(strict=True))
    assert [f.name for f in report.failed] == ["b c.png"]
    assert report.done == 1


def test_an_image_listed_twice_is_refused(
    kapture_root: Path, checkpoint_path: Path
) -> None:
    write_dataset(kapture_root, ["a.png", "a.png", "b c.png"])
    with pytest.raises(DatasetError, match="'a.png' recorded at 0, 'cam' and at 1"):
        run(kapture_root, checkpoint_path)
    assert not (kapture_root / "reconstruction").exists()


def test_odd_images_yield_features_or_zero_rows(
    kapture_root: Path, checkpoint_path: Path
) -> None:
    data = kapture_root / "sensors" / "records_data"
    shapes = {"one.png": (1, 1), "strip.png": (50, 400), "flat.png": (40, 40)}
    for name, (height, width) in shapes.items():
        Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(data / name)
    write_dataset(kapture_root, list(shapes))
    settings = R2D2Config(reliability_thr=1, repeatability_thr=1)
    config = dataclasses.replace(CONFIG, extractor=settings)
    report = run(kapture_root, checkpoint_path, config=config)
    assert (report.done, report.failed) == (3, ())
    assert "images without keypoints: 3 " in report.warnings[0]
    assert "the images are uniform or too small, their masks" in report.warnings[0]
    tables = open_local_features([kapture_root])
    for name in shapes:
        assert tables.keypoints.read(name).shape == (0, 3)
        assert tables.read_descriptors(name).shape == (0, 16)


def test_a_full_disk_stops_the_run_with_one_line(
    kapture_root: Path, checkpoint_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("r2d2_kapture.io.outputs.ledger.os.replace", full)
        with pytest.raises(OutputError, match="No space left.*free space"):
            run(kapture_root, checkpoint_path)
    assert run(kapture_root, checkpoint_path).done == 5


def test_a_dataset_is_only_read_where_the_output_is_elsewhere(
    kapture_root: Path, checkpoint_path: Path, tmp_path: Path
) -> None:
    before = sorted(kapture_root.rglob("*"))
    run(kapture_root, checkpoint_path, output=tmp_path / "features")
    assert sorted(kapture_root.rglob("*")) == before
    tables = open_local_features([tmp_path / "features"])
    assert len(tables.keypoints.image_names) == 5


def test_a_name_that_no_table_holds_fails_that_image_only(
    kapture_root: Path, checkpoint_path: Path
) -> None:
    with open(kapture_root / "sensors" / "records_camera.txt", "a") as records:
        records.write("99, cam, bell\x07.png\n")
    report = run(kapture_root, checkpoint_path)
    assert report.done == 5
    (failure,) = report.failed
    assert failure.name == r"bell\x07.png"
    assert "holds the character U+0007" in failure.reason
