"""Matches on disk: orientation, both tools' readers, broken files, claims."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Literal

import kapture.io.csv as kcsv
import kapture.io.features as kf
import numpy as np
import pytest

from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.config.stores import Store
from r2d2_kapture.errors import DatasetError, FeatureFormatError, OutputError
from r2d2_kapture.io.kapture.match_store import (
    find_matches,
    matches_folder,
    open_match_writer,
    open_matches,
)
from r2d2_kapture.io.outputs.manifest import Manifest
from r2d2_kapture.types import PairMatches

TYPE = "r2d2"
FORCE = RunOptions(force=True)
MANIFEST = Manifest(model={"name": "nn"}, settings={"ratio": 1.0}, versions={"a": "1"})
OTHER = Manifest(model={"name": "nn"}, settings={"ratio": 0.9}, versions={"a": "1"})
MATCHES = PairMatches(
    indices=np.array([[0, 7], [2, 3], [5, 1]]),
    scores=np.array([0.5, 0.25, 0.125], np.float32),
)
NONE = PairMatches(indices=np.zeros((0, 2), np.int64), scores=np.zeros(0, np.float32))


STORES: tuple[Store, ...] = ("files", "tar", "shards")


def write(
    root: Path,
    *pairs: tuple[str, str],
    manifest: Manifest = MANIFEST,
    store: Store = "files",
) -> None:
    with open_match_writer(root, TYPE, manifest, store=store) as writer:
        for pair in pairs:
            writer.write(*pair, MATCHES)


def read(root: Path, image1: str, image2: str) -> PairMatches:
    matches = open_matches([root], TYPE).read(image1, image2)
    assert matches is not None
    return matches


def same(one: PairMatches, other: PairMatches) -> bool:
    return np.array_equal(one.indices, other.indices) and np.array_equal(
        one.scores, other.scores
    )


def pack(root: Path) -> None:
    """Move the files of a type into matches.tar, as kapture's tools do."""
    folder = matches_folder(root, TYPE)
    paths = sorted(folder.rglob("*.matches"))
    with tarfile.open(folder / "matches.tar", "w") as archive:
        for path in paths:
            archive.add(path, path.relative_to(folder).as_posix())
            path.unlink()


@pytest.mark.parametrize("store", [*STORES, "packed"])
@pytest.mark.parametrize(
    "pair",
    [
        ("a.jpg", "b.jpg"),
        ("b.jpg", "a.jpg"),
        ("sub/é à.jpg", "b c.jpg"),
        ("a/b.jpg", "a-b.jpg"),
        ("Z.jpg", "a.jpg"),
    ],
)
def test_each_order_reads_as_it_was_written(
    tmp_path: Path, pair: tuple[str, str], store: Store | Literal["packed"]
) -> None:
    write(tmp_path, pair, store="files" if store == "packed" else store)
    if store == "packed":
        pack(tmp_path)
    assert same(read(tmp_path, *pair), MATCHES)
    assert same(read(tmp_path, *pair[::-1]), MATCHES.swapped())
    table = open_matches([tmp_path], TYPE)
    assert table.pairs == [tuple(sorted(pair))]
    assert table.count(*pair) == table.count(*pair[::-1]) == len(MATCHES)


@pytest.mark.parametrize("pair", [("a b.jpg", "sub/é.jpg"), ("sub/é.jpg", "a b.jpg")])
def test_kapture_reads_our_matches(tmp_path: Path, pair: tuple[str, str]) -> None:
    write(tmp_path, pair)
    found = kcsv.matches_from_dir(TYPE, str(tmp_path), {"a b.jpg", "sub/é.jpg"})
    assert list(found) == [("a b.jpg", "sub/é.jpg")]
    path = kf.get_matches_fullpath(("a b.jpg", "sub/é.jpg"), TYPE, str(tmp_path))
    rows = kf.image_matches_from_file(path)
    expected = MATCHES if pair[0] == "a b.jpg" else MATCHES.swapped()
    np.testing.assert_array_equal(rows[:, :2], expected.indices)
    np.testing.assert_array_equal(rows[:, 2], expected.scores)


def test_kapture_reads_our_archive(tmp_path: Path) -> None:
    write(tmp_path, ("a b.jpg", "sub/é.jpg"), store="tar")
    write(tmp_path, ("c.jpg", "sub/é.jpg"), store="tar")
    with kcsv.get_all_tar_handlers(str(tmp_path)) as tars:
        pair = ("c.jpg", "sub/é.jpg")
        place = kf.get_matches_fullpath(pair, TYPE, str(tmp_path), tars)
        rows = kf.image_matches_from_file(place)
    np.testing.assert_array_equal(rows[:, :2], MATCHES.indices)


@pytest.mark.parametrize("store", STORES)
def test_matches_follow_the_features(tmp_path: Path, store: Store) -> None:
    pairs = [("a", "b"), ("a", "c"), ("b", "c")]
    states = dict.fromkeys("abc", "1")
    with open_match_writer(tmp_path, TYPE, MANIFEST, store=store) as writer:
        writer.follow(states)
        for pair in pairs:
            writer.write(*pair, MATCHES)
    with open_match_writer(tmp_path, TYPE, MANIFEST, store=store) as writer:
        writer.follow(states)
        assert all(writer.is_complete(*pair) for pair in pairs)
        writer.follow(states | {"a": "2"})
        assert [writer.is_complete(*pair) for pair in pairs] == [False, False, True]
        writer.write("c", "a", NONE)
    table = open_matches([tmp_path], TYPE)
    assert table.pairs == [("a", "c"), ("b", "c")]
    assert (table.count("a", "c"), table.count("a", "b")) == (0, None)


@pytest.mark.parametrize("found", STORES)
def test_each_layout_is_added_to_or_replaced_as_one(
    tmp_path: Path, found: Store
) -> None:
    for wanted in STORES:
        root = tmp_path / wanted
        write(root, ("a", "b"), store=found)
        if wanted != found:
            form = f", which --store {found} adds to; choose .*or --force to redo"
            with pytest.raises(OutputError, match=form):
                write(root, ("c", "d"), store=wanted)
            with open_match_writer(root, TYPE, MANIFEST, FORCE, wanted) as writer:
                assert not writer.is_complete("a", "b")
        write(root, ("c", "d"), store=wanted)
        left = [("a", "b")] if wanted == found else []
        assert open_matches([root], TYPE).pairs == [*left, ("c", "d")]


def test_layouts_are_read_together(tmp_path: Path) -> None:
    names = {"files": "a", "tar": "b", "shards": "c"}
    for store in STORES:
        write(tmp_path / store, (names[store], "d"), store=store)
    table = open_matches([tmp_path / store for store in STORES], TYPE)
    assert table.pairs == [("a", "d"), ("b", "d"), ("c", "d")]
    assert [table.count(*pair) for pair in table.pairs] == [len(MATCHES)] * 3


def test_we_read_kaptures_matches(tmp_path: Path) -> None:
    rows = np.column_stack([MATCHES.indices, MATCHES.scores]).astype(np.float64)
    path = kf.get_matches_fullpath(("a.jpg", "b.jpg"), TYPE, str(tmp_path))
    kf.image_matches_to_file(path, rows)
    assert same(read(tmp_path, "a.jpg", "b.jpg"), MATCHES)


def test_what_is_not_there(tmp_path: Path) -> None:
    with open_match_writer(tmp_path, TYPE, MANIFEST) as writer:
        assert not writer.is_complete("a", "b")
        writer.write("a", "b", NONE)
        assert writer.is_complete("b", "a")
    assert len(read(tmp_path, "a", "b")) == 0
    assert open_matches([tmp_path], TYPE).pairs == [("a", "b")]
    write(tmp_path, ("a", "b"))
    assert open_matches([tmp_path], TYPE).read("a", "c") is None
    write(tmp_path, ("a", "b"))
    assert find_matches([tmp_path], "other").pairs == []
    with pytest.raises(DatasetError, match="no matches of keypoints type 'other'"):
        open_matches([tmp_path], "other")


def test_the_first_folder_that_has_a_pair_gives_it(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    write(one, ("a", "b"))
    write(two, ("a", "b"), ("c", "d"))
    with open_match_writer(two, TYPE, MANIFEST) as writer:
        writer.write("a", "b", NONE)
    table = open_matches([one, two, one], TYPE)
    assert table.pairs == [("a", "b"), ("c", "d")]
    found = [table.read("a", "b"), table.read("c", "d")]
    assert [len(item) for item in found if item is not None] == [3, 3]
    assert len(open_matches([two, one], TYPE).read("a", "b") or ()) == 0


def file_of(root: Path) -> Path:
    return matches_folder(root, TYPE) / "a.overlapping" / "b.matches"


@pytest.mark.parametrize(
    "data, message",
    [
        (b"\0" * 23, "found 23 bytes, expected rows of 3 float64"),
        (np.array([0, -1, 0.5]).tobytes(), r"found indices \[0.0, -1.0\] in row 0"),
        (np.array([0, 1, 1, 0.5, 2, 1]).tobytes(), r"indices \[0.5, 2.0\] in row 1"),
        (np.array([np.nan, 1, 1]).tobytes(), r"found indices \[nan, 1.0\]"),
    ],
)
def test_broken_files_are_refused(tmp_path: Path, data: bytes, message: str) -> None:
    write(tmp_path, ("a", "b"))
    file_of(tmp_path).write_bytes(data)
    with pytest.raises(FeatureFormatError, match=message) as caught:
        read(tmp_path, "a", "b")
    assert "match 'a' and 'b' again" in str(caught.value)


def test_a_broken_size_is_not_complete(tmp_path: Path) -> None:
    write(tmp_path, ("a", "b"))
    file_of(tmp_path).write_bytes(b"\0" * 23)
    with open_match_writer(tmp_path, TYPE, MANIFEST) as writer:
        assert not writer.is_complete("a", "b")


def test_pairs_named_without_care_reach_no_file(tmp_path: Path) -> None:
    with open_match_writer(tmp_path, TYPE, MANIFEST) as writer:
        for pair in (("../a", "b"), ("a", "/b"), ("a", "x/../../b")):
            with pytest.raises(DatasetError, match="leaves the dataset's folder"):
                writer.write(*pair, MATCHES)
    folder = matches_folder(tmp_path, "evil")
    folder.mkdir(parents=True)
    with tarfile.open(folder / "matches.tar", "w") as archive:
        member = tarfile.TarInfo("../a.overlapping/b.matches")
        archive.addfile(member, io.BytesIO())
    with pytest.raises(DatasetError, match="leaves the dataset's folder"):
        open_matches([tmp_path], "evil")


def test_an_archive_that_breaks_off(tmp_path: Path) -> None:
    write(tmp_path, ("a", "b"), ("c", "d"))
    pack(tmp_path)
    archive = matches_folder(tmp_path, TYPE) / "matches.tar"
    archive.write_bytes(archive.read_bytes()[: 3 * 512 + 20])
    with pytest.raises(DatasetError, match="matches.tar"):
        open_matches([tmp_path], TYPE)


def test_the_same_settings_resume(tmp_path: Path) -> None:
    write(tmp_path, ("a", "b"))
    again = Manifest(
        model=MANIFEST.model, settings=MANIFEST.settings, versions={"a": "2"}
    )
    with open_match_writer(tmp_path, TYPE, again) as writer:
        assert writer.is_complete("a", "b")


def test_what_a_run_killed_at_once_left_is_no_obstacle(tmp_path: Path) -> None:
    folder = matches_folder(tmp_path, TYPE)
    folder.mkdir(parents=True)
    for name in (".lock", ".manifest.1-0123abcd.json"):
        (folder / name).write_text('{"half', encoding="utf-8")
    write(tmp_path, ("a", "b"))
    assert same(read(tmp_path, "a", "b"), MATCHES)


def test_matches_of_another_tool_are_refused(tmp_path: Path) -> None:
    path = kf.get_matches_fullpath(("a.jpg", "b.jpg"), TYPE, str(tmp_path))
    kf.image_matches_to_file(path, np.zeros((1, 3)))
    with pytest.raises(OutputError, match="made by another tool"):
        write(tmp_path, ("a", "b"))
    assert Path(path).is_file()


@pytest.mark.parametrize("packed", [False, True])
def test_force_removes_what_was_made_otherwise(tmp_path: Path, packed: bool) -> None:
    write(tmp_path, ("a", "b"), ("sub/c", "d"))
    if packed:
        pack(tmp_path)
    with open_match_writer(tmp_path, TYPE, OTHER, FORCE) as writer:
        assert not writer.is_complete("sub/c", "d")
        writer.write("a", "b", MATCHES)
    assert open_matches([tmp_path], TYPE).pairs == [("a", "b")]
    write(tmp_path, manifest=OTHER)


def test_force_keeps_what_was_made_the_same_way(tmp_path: Path) -> None:
    write(tmp_path, ("a", "b"))
    with open_match_writer(tmp_path, TYPE, MANIFEST, FORCE) as writer:
        assert writer.is_complete("a", "b")


def test_force_gets_over_a_broken_manifest(tmp_path: Path) -> None:
    write(tmp_path, ("a", "b"))
    (matches_folder(tmp_path, TYPE) / "manifest.json").write_text("{")
    with pytest.raises(FeatureFormatError, match="not a manifest"):
        write(tmp_path)
    with open_match_writer(tmp_path, TYPE, MANIFEST, FORCE) as writer:
        assert not writer.is_complete("a", "b")


def test_nothing_is_added_next_to_an_archive(tmp_path: Path) -> None:
    """A reader would look into the archive alone."""
    write(tmp_path, ("a", "b"))
    pack(tmp_path)
    with pytest.raises(
        OutputError, match="found an archive, which --store tar adds to; choose"
    ):
        write(tmp_path, ("c", "d"))
    assert same(read(tmp_path, "a", "b"), MATCHES)


def test_an_interrupted_write_leaves_no_pair(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with (
        pytest.raises(KeyboardInterrupt),
        open_match_writer(tmp_path, TYPE, MANIFEST) as writer,
        monkeypatch.context() as patch,
    ):
        patch.setattr("os.replace", killed, raising=True)
        writer.write("a", "b", MATCHES)
    assert find_matches([tmp_path], TYPE).pairs == []
    assert list(kcsv.matches_from_dir(TYPE, str(tmp_path), {"a", "b"})) == []


def test_leftovers_of_a_killed_run_are_cleared(tmp_path: Path) -> None:
    write(tmp_path)
    leftover = matches_folder(tmp_path, TYPE) / ".partial" / "1.tmp"
    leftover.parent.mkdir()
    leftover.write_bytes(b"half")
    write(tmp_path, ("a", "b"))
    assert not leftover.parent.exists()


def test_every_folder_that_is_given_must_have_matches(tmp_path: Path) -> None:
    write(tmp_path / "one", ("a", "b"))
    (tmp_path / "two").mkdir()
    with pytest.raises(DatasetError, match="two.*: found no matches of .*run kapture"):
        open_matches([tmp_path / "one", tmp_path / "two"], TYPE)
