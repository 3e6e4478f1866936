"""What is written is complete or absent, resumes, and is what kapture reads."""

from __future__ import annotations

import os
import tarfile
from io import BytesIO
from pathlib import Path

import kapture.io.csv as kcsv
import numpy as np
import pytest

from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.config.stores import Store
from r2d2_kapture.errors import DatasetError, OutputError
from r2d2_kapture.io.kapture.feature_store import FeatureType, open_feature_writer
from r2d2_kapture.io.kapture.local_features import open_local_features
from r2d2_kapture.io.outputs.growing_archive import repair_tar
from r2d2_kapture.io.outputs.manifest import Manifest
from r2d2_kapture.types import LocalFeatures

DIM = 16


def manifest(**settings: object) -> Manifest:
    return Manifest(
        model={"sha256": "abc"}, settings={"top_k": 5, **settings}, versions={}
    )


FORCE = RunOptions(force=True)


def features(count: int, seed: int = 0) -> LocalFeatures:
    rng = np.random.default_rng(seed)
    descriptors = rng.standard_normal((count, DIM)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    return LocalFeatures(
        keypoints=rng.uniform(0, 60, (count, 2)).astype(np.float32),
        scales=np.full(count, 32, np.float32),
        scores=np.linspace(1, 0, count, dtype=np.float32),
        descriptors=descriptors,
        image_size=(64, 48),
    )


STORES: tuple[Store, ...] = ("files", "tar", "shards")


def feature_type(
    root: Path, *, store: Store = "files", name: str = "r2d2"
) -> FeatureType:
    return FeatureType(
        root=root,
        keypoints_type=name,
        descriptors_type=name,
        descriptor_dim=DIM,
        store=store,
    )


@pytest.mark.parametrize("store", STORES)
def test_what_was_written_is_read_back_by_kapture_too(
    kapture_root: Path, store: Store
) -> None:
    written = {"a.png": features(7), "sub/é à.png": features(0)}
    kind = feature_type(kapture_root, store=store)
    with open_feature_writer(kind, manifest()) as writer:
        for name, item in written.items():
            assert not writer.is_complete(name)
            writer.write(name, item)
            assert writer.is_complete(name)
    if store != "shards":
        with kcsv.get_all_tar_handlers(str(kapture_root)) as tars:
            data = kcsv.kapture_from_dir(str(kapture_root), tar_handlers=tars)
            assert data.keypoints["r2d2"] == set(written)
            assert data.descriptors["r2d2"] == set(written)
    tables = open_local_features([kapture_root])
    for name, item in written.items():
        found = tables.read(name, (64, 48))
        np.testing.assert_array_equal(found.keypoints, item.keypoints)
        np.testing.assert_array_equal(found.descriptors, item.descriptors)
        np.testing.assert_array_equal(found.scales, item.scales)


def test_types_lie_side_by_side(kapture_root: Path) -> None:
    for store in STORES:
        kind = feature_type(kapture_root, store=store, name=store)
        with open_feature_writer(kind, manifest()) as writer:
            writer.write("a.png", features(3))
    for store in STORES:
        tables = open_local_features([kapture_root], store)
        assert len(tables.keypoints.read("a.png")) == 3
    with pytest.raises(DatasetError, match="files, shards, tar; choose one"):
        open_local_features([kapture_root])


def test_features_of_another_tool_are_left_alone(kapture_root: Path) -> None:
    folder = kapture_root / "reconstruction" / "keypoints" / "r2d2"
    folder.mkdir(parents=True)
    (folder / "keypoints.txt").write_text("# kapture format: 1.1\nr2d2, float32, 3\n")
    (folder / "a.png.kpt").write_bytes(bytes(12))
    with (
        pytest.raises(OutputError, match="another tool"),
        open_feature_writer(feature_type(kapture_root), manifest()),
    ):
        pass
    assert (folder / "a.png.kpt").read_bytes() == bytes(12)


@pytest.mark.parametrize("found", STORES)
def test_layouts_are_not_mixed(kapture_root: Path, found: Store) -> None:
    for wanted in STORES:
        name = f"{found} {wanted}"
        first = feature_type(kapture_root, store=found, name=name)
        with open_feature_writer(first, manifest()) as writer:
            writer.write("a.png", features(3))
        second = feature_type(kapture_root, store=wanted, name=name)
        if found != wanted:
            form = f", which --store {found} adds to; choose another .*, or --force"
            with (
                pytest.raises(OutputError, match=form),
                open_feature_writer(second, manifest()),
            ):
                pass
            with open_feature_writer(second, manifest(), FORCE) as writer:
                assert not writer.is_complete("a.png")
                writer.write("b.png", features(3))
        with open_feature_writer(second, manifest()) as writer:
            assert writer.is_complete("a.png") == (found == wanted)
            assert writer.is_complete("b.png") != (found == wanted)


@pytest.mark.parametrize("suffix", [".kpt", ".desc"])
@pytest.mark.parametrize("damage", ["cut", "remove"])
def test_a_damaged_file_is_not_complete(
    kapture_root: Path, suffix: str, damage: str
) -> None:
    kind = feature_type(kapture_root)
    with open_feature_writer(kind, manifest()) as writer:
        writer.write("sub/é à.png", features(4))
    [path] = kapture_root.glob(f"reconstruction/**/*{suffix}")
    if damage == "cut":
        os.truncate(path, path.stat().st_size - 4)
    else:
        path.unlink()
    with open_feature_writer(kind, manifest()) as writer:
        assert not writer.is_complete("sub/é à.png")


@pytest.mark.parametrize("missing", ["keypoints", "descriptors"])
def test_a_run_stopped_before_its_archives_resumes(
    kapture_root: Path, missing: str
) -> None:
    kind = feature_type(kapture_root, store="tar")
    with open_feature_writer(kind, manifest()) as writer:
        assert not writer.is_complete("a.png")
    (kind.folder(missing) / f"{missing}.tar").unlink()
    with open_feature_writer(kind, manifest()) as writer:
        assert not writer.is_complete("a.png")
        writer.write("a.png", features(3))
        assert writer.is_complete("a.png")


def test_an_archive_cut_anywhere_resumes(kapture_root: Path) -> None:
    kind = feature_type(kapture_root, store="tar")
    names = ["a.png", "b c.png", "sub/é à.png"]
    with open_feature_writer(kind, manifest()) as writer:
        for i, name in enumerate(names):
            writer.write(name, features(3 + i, seed=i))
    archive = kind.folder("descriptors") / "descriptors.tar"
    whole = archive.read_bytes()
    for length in range(0, len(whole), 300):
        archive.write_bytes(whole[:length])
        with open_feature_writer(kind, manifest()) as writer:
            missing = [name for name in names if not writer.is_complete(name)]
            for name in missing:
                i = names.index(name)
                writer.write(name, features(3 + i, seed=i))
        tables = open_local_features([kapture_root])
        for i, name in enumerate(names):
            np.testing.assert_array_equal(
                tables.read(name, (64, 48)).descriptors,
                features(3 + i, seed=i).descriptors,
            )


def test_an_archive_with_a_climbing_member_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "keypoints.tar"
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("../../evil.kpt")
        member.size = 12
        archive.addfile(member, BytesIO(bytes(12)))
    with pytest.raises(DatasetError, match="leaves the dataset"):
        repair_tar(path)


def test_a_file_that_is_no_archive_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "keypoints.tar"
    path.write_bytes(b"precious" * 200)
    with pytest.raises(OutputError, match="not a tar archive"):
        repair_tar(path)
    assert path.read_bytes() == b"precious" * 200


def test_links_that_lead_out_are_not_followed(
    kapture_root: Path, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "rows.tmp").write_text("secret")
    kind = feature_type(kapture_root)
    folder = kind.folder("keypoints")
    folder.parent.mkdir(parents=True)
    folder.symlink_to(victim)
    (victim / "a.png.kpt").write_text("secret")
    (victim / "rows.tmp").rename(tmp_path / "rows.tmp")
    with (
        pytest.raises(OutputError, match="a link to"),
        open_feature_writer(kind, manifest(), FORCE),
    ):
        pass
    assert (victim / "a.png.kpt").read_text() == "secret"
    (victim / "a.png.kpt").unlink()
    (tmp_path / "rows.tmp").rename(victim / "rows.tmp")
    folder.unlink()
    with open_feature_writer(kind, manifest()):
        pass
    (folder / "sub").symlink_to(victim)
    (folder / ".partial").symlink_to(victim)
    with open_feature_writer(kind, manifest()) as writer:
        with pytest.raises(OutputError, match="a link that leaves"):
            writer.write("sub/x.png", features(3))
        writer.write("a.png", features(3))
    assert (victim / "rows.tmp").read_text() == "secret"
    assert not list(victim.glob("*.kpt"))


def test_descriptors_belong_to_one_type_of_keypoints(kapture_root: Path) -> None:
    shared_type = {"root": kapture_root, "descriptors_type": "d"}
    for name, refused in (("one", False), ("two", True)):
        kind = FeatureType(keypoints_type=name, descriptor_dim=DIM, **shared_type)
        if refused:
            with (
                pytest.raises(OutputError, match="keypoints_type: one, not two"),
                open_feature_writer(kind, manifest()),
            ):
                pass
        else:
            with open_feature_writer(kind, manifest()) as writer:
                writer.write("a.png", features(2))


def test_a_feature_type_must_be_a_folder_name(tmp_path: Path) -> None:
    for name in ("../x", "a/b", "", "a,b", "#a", " a", "a\x85", ".a"):
        with pytest.raises(DatasetError, match="feature type"):
            feature_type(tmp_path, name=name)
