"""Plain kapture from archives and shards: the same bytes as if they were never used."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path

import kapture.io.csv as kcsv
import numpy as np
import pytest

from r2d2_kapture.cli.export import main
from r2d2_kapture.config.stores import Store
from r2d2_kapture.io.kapture.feature_store import FeatureType, open_feature_writer
from r2d2_kapture.io.kapture.match_store import open_match_writer
from r2d2_kapture.io.outputs.finished import FINISHED_NAME
from r2d2_kapture.io.outputs.manifest import Manifest
from r2d2_kapture.io.stores.shard_index import shard_paths
from r2d2_kapture.types import LocalFeatures, PairMatches
from tests.commands import one_error_line
from tests.scenes.kapture_files import write_noise_dataset

MANIFEST = Manifest(model={"name": "m"}, settings={"a": 1}, versions={})
NAMES = ("a.png", "un été/b c.png", "x" * 120 + ".png")
STORES: tuple[Store, ...] = ("files", "tar", "shards")


def write(root: Path, store: Store, names: tuple[str, ...] = NAMES) -> None:
    """Features of images, and matches of all their pairs."""
    rng = np.random.default_rng(0)
    kind = FeatureType(
        root=root,
        keypoints_type="t",
        descriptors_type="t",
        descriptor_dim=8,
        store=store,
    )
    with open_feature_writer(kind, MANIFEST) as features:
        for count, name in enumerate(names):
            rows = rng.normal(size=(count, 8)).astype(np.float32)
            xy = rng.uniform(0, 40, (count, 2)).astype(np.float32)
            flat = np.ones(count, np.float32)
            features.write(
                name,
                LocalFeatures(
                    keypoints=xy,
                    scales=flat,
                    scores=flat,
                    descriptors=rows,
                    image_size=(48, 48),
                ),
            )
    with open_match_writer(root, "t", MANIFEST, store=store) as matches:
        for count, pair in enumerate(itertools.combinations(names, 2)):
            indices = rng.integers(0, 9, (count, 2))
            scores = rng.uniform(size=count).astype(np.float32)
            matches.write(*pair, PairMatches(indices=indices, scores=scores))


def content(root: Path) -> Mapping[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name not in (".lock", FINISHED_NAME)
    }


def export(*arguments: object) -> int:
    return main([*map(str, arguments), "--to", "kapture", "--quiet"])


@pytest.mark.parametrize("store", STORES)
def test_files_are_those_of_a_run_without_archives(
    tmp_path: Path, store: Store
) -> None:
    write(tmp_path / "packed", store)
    write(tmp_path / "plain", "files")
    out = tmp_path / "out"
    assert export("--kapture-root", tmp_path / "packed", "--output", out) == 0
    expected = content(tmp_path / "plain" / "reconstruction")
    assert content(out / "reconstruction") == expected
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert export("--kapture-root", tmp_path / "packed", "--output", out) == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_kapture_reads_the_dataset(tmp_path: Path) -> None:
    root = tmp_path / "dataset é"
    write_noise_dataset(root)
    write(root, "shards", ("a.png", "b c.png"))
    assert export("--kapture-root", root) == 0
    data = kcsv.kapture_from_dir(str(root / "kapture"))
    assert data.keypoints["t"] == data.descriptors["t"] == {"a.png", "b c.png"}
    assert list(data.matches["t"]) == [("a.png", "b c.png")]
    images = root / "kapture" / "sensors" / "records_data"
    assert images.is_symlink() and (images / "a.png").is_file()


@pytest.mark.parametrize("lost", ["sensors.txt", "keypoints.txt"])
def test_tables_that_were_lost_are_exported_again(tmp_path: Path, lost: str) -> None:
    root = tmp_path / "dataset é"
    write_noise_dataset(root)
    write(root, "shards", ("a.png", "b c.png"))
    assert export("--kapture-root", root) == 0
    (table,) = (root / "kapture").rglob(lost)
    content = table.read_bytes()
    table.unlink()
    assert export("--kapture-root", root) == 0
    assert table.read_bytes() == content


def test_a_change_of_the_source_is_exported(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(tmp_path / "root", "shards", NAMES[:2])
    assert export("--kapture-root", tmp_path / "root", "--output", out) == 0
    write(tmp_path / "root", "shards")
    (out / "by hand.txt").write_text("precious")
    assert export("--kapture-root", tmp_path / "root", "--output", out) == 0
    write(tmp_path / "plain", "files")
    names = content(tmp_path / "plain" / "reconstruction").keys()
    assert content(out / "reconstruction").keys() == names
    assert (out / "by hand.txt").read_text() == "precious"


def test_a_damaged_shard_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "root", "shards")
    folder = tmp_path / "root" / "reconstruction" / "descriptors" / "t" / "shards"
    (shard,) = shard_paths(folder)
    data = bytearray(shard.read_bytes())
    data[-1600] ^= 1
    shard.write_bytes(data)
    code = export("--kapture-root", tmp_path / "root", "--output", tmp_path / "out")
    assert code == 2
    line = one_error_line(capsys)
    assert f"{shard}: found other content than was written" in line
    assert "remove it and its .idx, and run the command that made it again" in line
    assert not (tmp_path / "out").exists()


def test_a_folder_without_features_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "root").mkdir()
    assert export("--kapture-root", tmp_path / "root") == 2
    assert "found neither features nor matches" in one_error_line(capsys)


@pytest.mark.parametrize("inside", [".", "datasets", "datasets/mapping"])
def test_a_dataset_inside_a_pipeline_names_its_flag(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], inside: str
) -> None:
    work = tmp_path / "work é"
    root = work / inside
    root.mkdir(parents=True)
    (work / "pipeline_report.json").write_text("{}")
    assert export("--kapture-root", root) == 2
    line = one_error_line(capsys)
    assert f"{root}: found" in line
    assert line.rstrip().endswith(f"give --pipeline {work} instead of --kapture-root")


def test_another_source_is_refused_by_its_flag(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "two"):
        write(tmp_path / name, "files")
    out = tmp_path / "out"
    assert export("--kapture-root", tmp_path / "one", "--output", out) == 0
    assert export("--kapture-root", tmp_path / "two", "--output", out) == 2
    one, two = ((tmp_path / name).resolve() for name in ("one", "two"))
    assert f"made with --kapture-root: {one}, not {two};" in one_error_line(capsys)


def test_a_type_alone(tmp_path: Path) -> None:
    write(tmp_path / "root", "shards")
    out = tmp_path / "out"
    code = export(
        *("--kapture-root", tmp_path / "root", "--output", out),
        *("--keypoints-type", "other", "--descriptors-type", "t"),
    )
    assert code == 0
    assert {name.split("/")[1] for name in content(out) if "/" in name} == {
        "descriptors"
    }
