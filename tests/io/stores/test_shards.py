"""Shards: what was written is read, whatever happened to files or runs in between."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from r2d2_kapture.errors import DatasetError, FeatureFormatError
from r2d2_kapture.io.stores.shard_index import load_members, shard_paths
from r2d2_kapture.io.stores.shards import (
    Limits,
    ShardWriter,
    check_shards,
    move_shards,
)

NAMES = (
    "a.jpg.overlapping/b.jpg.matches",
    "un été/ein Bild.png.kpt",
    "x" * 90 + "/" + "é" * 80 + ".desc",
    "日本/" + "長" * 60 + ".kpt",
    "y" * 100,
    "z" * 101,
)
FIVE = Limits(members=5)


def content_of(name: str) -> bytes:
    return name.encode() * 7


def write(folder: Path, items: Mapping[str, bytes], limits: Limits = FIVE) -> None:
    writer = ShardWriter(folder, limits)
    for name, data in items.items():
        writer.write(name, data)
    writer.close()


def read(folder: Path) -> dict[str, bytes]:
    members = load_members(folder)
    items = {}
    for name in members.names():
        member = members.find(name)
        assert member is not None and not member.removed
        items[name] = member.read().tobytes()
    return items


def numbered(count: int, first: int = 0) -> dict[str, bytes]:
    return {f"{n}.kpt": bytes([n % 256]) * n for n in range(first, first + count)}


def listed(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        path.name: (path.stat().st_mtime_ns, path.stat().st_ino)
        for path in folder.iterdir()
    }


def test_what_was_written_is_read_by_name_and_by_tar(tmp_path: Path) -> None:
    items = {name: content_of(name) for name in NAMES} | {"empty": b""}
    write(tmp_path / "s", items)
    assert read(tmp_path / "s") == items
    assert load_members(tmp_path / "s").find("other") is None
    for shard in shard_paths(tmp_path / "s"):
        subprocess.run(["tar", "-xf", shard, "-C", tmp_path], check=True)
    for name, data in items.items():
        assert (tmp_path / name).read_bytes() == data


def test_shards_are_bounded_and_counted(tmp_path: Path) -> None:
    write(tmp_path / "members", numbered(12))
    stems = ["000000", "000001", "000002"]
    files = [f"{stem}{end}" for stem in stems for end in (".idx", ".tar")]
    assert listed(tmp_path / "members") == files
    write(tmp_path / "bytes", numbered(12), Limits(bytes=3000))
    sizes = [path.stat().st_size for path in shard_paths(tmp_path / "bytes")]
    assert len(sizes) > 2 and max(sizes) <= 3000 + 1024 + 1024


def test_the_last_of_a_name_counts_in_and_between_shards(tmp_path: Path) -> None:
    write(tmp_path, {"a": b"1", "b": b"1", "c": b"1"}, Limits(members=2))
    write(tmp_path, {"b": b"2", "d": b"2"}, Limits(members=2))
    writer = ShardWriter(tmp_path)
    writer.write("d", b"34")
    writer.write("d", b"345")
    found = writer.find("d")
    assert found is not None and found.read().tobytes() == b"345"
    writer.close()
    assert read(tmp_path) == {"a": b"1", "b": b"2", "c": b"1", "d": b"345"}


def test_what_was_removed_is_gone_until_it_is_written_again(tmp_path: Path) -> None:
    write(tmp_path, numbered(12))
    writer = ShardWriter(tmp_path, FIVE)
    writer.remove(["3.kpt", "11.kpt", "other"])
    assert writer.find("3.kpt") is None
    writer.close()
    assert read(tmp_path).keys() == numbered(12).keys() - {"3.kpt", "11.kpt"}
    write(tmp_path, {"3.kpt": b"new"})
    assert read(tmp_path)["3.kpt"] == b"new"
    # also where indexes have to be made again
    for path in tmp_path.glob("*.idx"):
        path.unlink()
    assert read(tmp_path).keys() == numbered(12).keys() - {"11.kpt"}


def test_what_was_replaced_is_not_back_where_later_shards_are_lost(
    tmp_path: Path,
) -> None:
    write(tmp_path, numbered(5))
    writer = ShardWriter(tmp_path, FIVE)
    writer.remove(["1.kpt", "3.kpt", "none"])
    writer.write("3.kpt", b"of another image")
    writer.close()
    assert read(tmp_path)["3.kpt"] == b"of another image"
    check_shards(tmp_path)
    first, second = shard_paths(tmp_path)
    second.unlink()
    second.with_suffix(".idx").unlink()
    kept = {name: numbered(5)[name] for name in ("0.kpt", "2.kpt", "4.kpt")}
    assert read(tmp_path) == kept
    assert ShardWriter(tmp_path).find("3.kpt") is None
    assert load_members(tmp_path).superfluous() == []
    check_shards(tmp_path)


def test_shards_of_which_nothing_counts_are_removed(tmp_path: Path) -> None:
    write(tmp_path, numbered(10))
    write(tmp_path, numbered(10))
    write(tmp_path, {})
    assert len(shard_paths(tmp_path)) == 4
    assert ShardWriter(tmp_path).find("0.kpt") is not None
    assert [path.stem for path in shard_paths(tmp_path)] == ["000002", "000003"]
    assert read(tmp_path) == numbered(10)


def test_a_run_without_work_writes_nothing(tmp_path: Path) -> None:
    write(tmp_path, numbered(7))
    before = stamps(tmp_path)
    writer = ShardWriter(tmp_path)
    assert all(writer.find(name) is not None for name in numbered(7))
    writer.close()
    assert stamps(tmp_path) == before


def test_a_killed_run_keeps_what_it_wrote(tmp_path: Path) -> None:
    script = (
        "import os, signal\n"
        "from pathlib import Path\n"
        "from r2d2_kapture.io.stores.shards import Limits, ShardWriter\n"
        f"writer = ShardWriter(Path({str(tmp_path)!r}), Limits(members=5))\n"
        "for n in range(8):\n"
        "    writer.write(f'{n}.kpt', bytes([n]) * n)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], check=False)
    assert done.returncode == -signal.SIGKILL
    assert read(tmp_path) == numbered(8)  # also while it is open
    write(tmp_path, numbered(4, first=8))
    assert read(tmp_path) == numbered(12)
    assert all(path.with_suffix(".idx").exists() for path in shard_paths(tmp_path))
    check_shards(tmp_path)


@pytest.mark.parametrize("cut", [1, 511, 1025, 2000, 3600, "all"])
def test_a_torn_tail_is_cut(tmp_path: Path, cut: int | str) -> None:
    """Of an open shard, as a crash of the machine leaves it."""
    items = numbered(3, first=600)
    write(tmp_path, items)
    (shard,) = shard_paths(tmp_path)
    shard.with_suffix(".idx").unlink()
    size = shard.stat().st_size
    os.truncate(shard, 0 if cut == "all" else size - int(cut))
    there = read(tmp_path)
    assert there.items() <= items.items()
    lost = {1: 0, 511: 0, 1025: 1, 2000: 1, 3600: 2, "all": 3}[cut]
    assert len(there) == 3 - lost
    write(tmp_path, items)
    assert read(tmp_path) == items
    check_shards(tmp_path)


def test_what_never_reached_the_disk_is_cut(tmp_path: Path) -> None:
    """Blocks of zeros in the last member, whose header is there."""
    write(tmp_path, numbered(3, first=600))
    (shard,) = shard_paths(tmp_path)
    shard.with_suffix(".idx").unlink()
    with open(shard, "r+b") as file:
        file.seek(-1024 - 1000, os.SEEK_END)
        file.write(bytes(1000))
    write(tmp_path, {})
    writer = ShardWriter(tmp_path)
    assert writer.find("602.kpt") is None and writer.find("601.kpt") is not None
    writer.close()
    assert read(tmp_path) == numbered(2, first=600)


@pytest.mark.parametrize("damage", ["missing", "truncated", "flipped", "empty"])
def test_a_damaged_index_is_made_again(tmp_path: Path, damage: str) -> None:
    write(tmp_path, numbered(9))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    index = tmp_path / "000000.idx"
    data = bytearray(index.read_bytes())
    data[100] ^= 4
    index.write_bytes(
        {"truncated": bytes(data[:-1]), "flipped": bytes(data)}.get(damage, b"")
    )
    if damage == "missing":
        index.unlink()
    assert read(tmp_path) == numbered(9)
    assert ShardWriter(tmp_path).find("1.kpt") is not None
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_shard_of_another_size_is_named(tmp_path: Path) -> None:
    write(tmp_path, numbered(3))
    shard = tmp_path / "000000.tar"
    os.truncate(shard, shard.stat().st_size - 512)
    form = r"000000.tar: found \d+ bytes, expected \d+ as its .idx says; remove it and"
    for use in (load_members, lambda folder: ShardWriter(folder).find("a")):
        with pytest.raises(DatasetError, match=form):
            use(tmp_path)


def test_a_shard_that_was_removed_is_made_again(tmp_path: Path) -> None:
    """Also if its index was left, and the run that makes it again is killed."""
    write(tmp_path, numbered(9))
    (tmp_path / "000001.tar").unlink()
    assert read(tmp_path) == numbered(5)
    writer = ShardWriter(tmp_path, FIVE)
    writer.write("5.kpt", numbered(9)["5.kpt"])
    assert read(tmp_path) == numbered(6)  # while it is open
    write(tmp_path, numbered(3, first=6))
    assert read(tmp_path) == numbered(9)


@pytest.mark.parametrize("part", ["content", "name"])
def test_a_flipped_byte_is_found(tmp_path: Path, part: str) -> None:
    write(tmp_path, {"first.kpt": b"1" * 600, "second.kpt": b"2" * 600})
    shard = tmp_path / "000000.tar"
    data = bytearray(shard.read_bytes())
    data[data.index({"content": b"22", "name": b"second"}[part])] ^= 1
    shard.write_bytes(data)
    members = load_members(tmp_path)
    first, second = (members.find(name) for name in ("first.kpt", "second.kpt"))
    assert first is not None and first.read().tobytes() == b"1" * 600
    assert second is not None
    with pytest.raises(FeatureFormatError, match="000000.tar: found .*'second.kpt'"):
        second.read()
    with pytest.raises(DatasetError, match="000000.tar: found other content .*SHA-256"):
        check_shards(tmp_path)


def test_members_of_other_tools_are_read(tmp_path: Path) -> None:
    """POSIX headers of long names, and no checksums."""
    with tarfile.open(
        tmp_path / "000000.tar", "w", format=tarfile.PAX_FORMAT
    ) as archive:
        for name in NAMES:
            (tmp_path / "content").write_bytes(content_of(name))
            archive.add(tmp_path / "content", name)
    assert read(tmp_path) == {name: content_of(name) for name in NAMES}


def test_shards_move_after_those_that_are_there(tmp_path: Path) -> None:
    whole, part = tmp_path / "whole", tmp_path / "part"
    write(whole, {"a": b"old", "b": b"old"})
    write(part, {"b": b"new", **numbered(7)})
    inodes = [path.stat().st_ino for path in shard_paths(part)]
    move_shards(part, whole)
    assert [p.stat().st_ino for p in shard_paths(whole)[1:]] == inodes
    assert list(part.iterdir()) == []
    assert read(whole) == {"a": b"old", "b": b"new", **numbered(7)}


def test_a_move_that_was_killed_is_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, part = tmp_path / "whole", tmp_path / "part"
    replace = os.replace
    for number in range(1, 5):
        write(part, {f"{number} {name}": data for name, data in numbered(7).items()})
        calls = iter(range(1, number))

        def killed(*paths: Path) -> None:
            if next(calls, None) is None:
                raise KeyboardInterrupt
            replace(*paths)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr("os.replace", killed)
            move_shards(part, whole)
        move_shards(part, whole)
        assert len(read(whole)) == 7 * number
    assert ShardWriter(whole).find("1 0.kpt") is not None
    check_shards(whole)


def test_several_threads_write_and_read(tmp_path: Path) -> None:
    items = numbered(200)
    writer = ShardWriter(tmp_path, Limits(members=30))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(writer.write, items, items.values()))
    writer.close()
    members = load_members(tmp_path)

    def content(name: str) -> bytes:
        found = members.find(name)
        return found.read().tobytes() if found else b"?"

    with ThreadPoolExecutor(8) as pool:
        assert dict(zip(items, pool.map(content, items))) == items


def test_names_that_leave_the_folder_are_refused(tmp_path: Path) -> None:
    write(tmp_path, {"../evil": b"1"})
    with pytest.raises(DatasetError, match="000000.tar: name '../evil' leaves"):
        list(load_members(tmp_path).names())
    (tmp_path / "000000.idx").unlink()
    with pytest.raises(DatasetError, match="000000.tar: name '../evil' leaves"):
        load_members(tmp_path)
