"""Archives, well-meant and not."""

from __future__ import annotations

import io
import random
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from r2d2_kapture.errors import DatasetError, OutputError
from r2d2_kapture.io import archives
from r2d2_kapture.io.archives import unpack
from tests.scenes.contents import files_below

FILES = {"a.txt": b"first", "folder/b c.txt": b"second" * 1000, "folder/é": b""}


def write_zip(path: Path, files=FILES) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.mkdir("folder")
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def write_tar(path: Path, files=FILES, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("kind", ["zip", "w", "w:gz", "w:bz2", "w:xz"])
def test_all_files_come_out(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "archive"
    write_zip(path) if kind == "zip" else write_tar(path, mode=kind)
    assert unpack(path, tmp_path / "out", progress=False) == 3
    assert files_below(tmp_path / "out") == FILES


def test_what_is_there_is_kept_and_the_rest_is_added(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "archive.zip")
    out = tmp_path / "out"
    unpack(path, out, progress=False)
    (out / "a.txt").write_bytes(b"my 5b"[:5])
    (out / "folder/b c.txt").write_bytes(b"half")
    (out / "mine").write_bytes(b"mine")
    assert unpack(path, out, progress=False) == 3
    assert files_below(out) == {**FILES, "a.txt": b"my 5b", "mine": b"mine"}


LEAVING = "leaves the dataset's folder"
UNSAFE = {
    "../evil": LEAVING,
    "/evil": LEAVING,
    "a/../../evil": LEAVING,
    "C:\\evil": LEAVING,
    "..\\evil": LEAVING,
    "a\nb": r"holds the character U\+000A",
}


@pytest.mark.parametrize("name, reason", UNSAFE.items())
@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_names_that_leave_the_folder_are_refused(tmp_path, name, reason, write) -> None:
    path = write(tmp_path / "archive", {"good.txt": b"good", name: b"evil"})
    with pytest.raises(DatasetError, match=reason):
        unpack(path, tmp_path / "out" / "deep", progress=False)
    assert files_below(tmp_path) == {"archive": path.read_bytes()}


def test_links_and_devices_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "archive"
    kinds = tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE
    for kind in (None, *kinds):
        if kind is None:
            with zipfile.ZipFile(path, "w") as packed:
                link = zipfile.ZipInfo("odd")
                link.external_attr = (stat.S_IFLNK | 0o777) << 16
                packed.writestr(link, "/etc/passwd")
        else:
            with tarfile.open(path, "w") as archive:
                archive.addfile(tarfile.TarInfo("good"), io.BytesIO())
                odd = tarfile.TarInfo("odd")
                odd.type, odd.linkname = kind, "/etc/passwd"
                archive.addfile(odd)
        with pytest.raises(DatasetError, match="'odd' is a link"):
            unpack(path, tmp_path / "out", progress=False)
        assert not (tmp_path / "out").exists()


def random_files() -> dict[str, bytes]:
    return {"a.bin": random.Random(0).randbytes(40_000), "b.bin": b"end" * 100}


@pytest.mark.parametrize("kind", ["zip", "w", "w:gz"])
def test_broken_archives_leave_no_half_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "archive"
    files = random_files()
    write_zip(path, files) if kind == "zip" else write_tar(path, files, kind)
    data = bytearray(path.read_bytes())
    if kind == "w":
        data = data[:30_000]
    else:
        data[20_000:20_010] = b"corruption"
    path.write_bytes(data)
    with pytest.raises(DatasetError, match="not an archive that can be unpacked"):
        unpack(path, tmp_path / "out", progress=False)
    assert "a.bin" not in files_below(tmp_path)


@pytest.mark.parametrize("content", [b"", b"no archive at all", b"PK\x03\x04"])
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "archive.zip"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match="archive.zip: not an archive") as caught:
        unpack(path, tmp_path / "out", progress=False)
    assert "\n" not in str(caught.value)
    with pytest.raises(DatasetError, match="missing.zip: not found"):
        unpack(tmp_path / "missing.zip", tmp_path / "out", progress=False)


def test_too_little_room_is_reported_before_anything_is_files_below(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_zip(tmp_path / "archive.zip")

    class Usage:
        free = 100

    monkeypatch.setattr(archives.shutil, "disk_usage", lambda folder: Usage)
    with pytest.raises(OutputError, match="free space and run again"):
        unpack(path, tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


def test_a_folder_packed_from_within_is_unpacked(tmp_path: Path) -> None:
    """As ``tar -c .`` and zip make it: the folder itself is a member."""
    (tmp_path / "content").mkdir()
    (tmp_path / "content" / "a.txt").write_bytes(b"first")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(tmp_path / "content", ".")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.mkdir("./")
        packed.writestr("./a.txt", b"first")
    for name in ("a.tar", "a.zip"):
        unpack(tmp_path / name, tmp_path / name[2:], progress=False)
        assert (tmp_path / name[2:] / "a.txt").read_bytes() == b"first"
