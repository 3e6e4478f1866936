"""Downloads from a server of this machine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from r2d2_kapture.errors import ConfigError, DatasetError, OutputError
from r2d2_kapture.io.download import download
from tests.http_files import FileServer, running

CONTENT = bytes(range(256)) * 4000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server() -> Iterator[FileServer]:
    with running() as state:
        state.files["data.zip"] = CONTENT
        yield state


def fetch(server: FileServer, path: Path, **settings):
    return download(server.url("data.zip"), path, progress=False, **settings)


def broken_off(server: FileServer, path: Path, after: int = 300_000) -> None:
    server.break_after = after
    with pytest.raises(DatasetError, match=f"{after} of {len(CONTENT)} bytes; run"):
        fetch(server, path)
    server.break_after = None


def test_a_file_is_fetched_with_its_checksum(server, tmp_path) -> None:
    path = tmp_path / "new folder" / "data.zip"
    found = fetch(server, path, sha256=DIGEST.upper())
    assert path.read_bytes() == CONTENT
    assert (found.sha256, found.bytes) == (DIGEST, len(CONTENT))
    assert [p.name for p in path.parent.iterdir()] == ["data.zip"]


def test_an_interrupted_download_resumes(server, tmp_path) -> None:
    path = tmp_path / "data.zip"
    broken_off(server, path)
    assert not path.exists()
    assert (tmp_path / "data.zip.part").stat().st_size == 300_000
    assert fetch(server, path, sha256=DIGEST).sha256 == DIGEST
    assert server.requests[-1][1] == "bytes=300000-"
    assert server.sent == len(CONTENT)


def test_it_resumes_twice(server, tmp_path) -> None:
    path = tmp_path / "data.zip"
    broken_off(server, path)
    server.break_after = 1000
    with pytest.raises(DatasetError, match="301000 of"):
        fetch(server, path)
    server.break_after = None
    fetch(server, path, sha256=DIGEST)
    assert server.sent == len(CONTENT)


def test_a_server_without_parts_starts_over(server, tmp_path) -> None:
    path = tmp_path / "data.zip"
    broken_off(server, path)
    server.ranges = False
    assert fetch(server, path).sha256 == DIGEST


def test_a_file_that_has_changed_meanwhile_is_fetched_again(server, tmp_path) -> None:
    path = tmp_path / "data.zip"
    broken_off(server, path)
    server.files["data.zip"], server.version = CONTENT[::-1], '"2"'
    fetch(server, path)
    assert path.read_bytes() == CONTENT[::-1]


def test_a_part_of_another_address_is_not_gone_on_with(server, tmp_path) -> None:
    path = tmp_path / "data.zip"
    broken_off(server, path)
    server.files["other.zip"] = CONTENT[::-1]
    download(server.url("other.zip"), path, progress=False)
    assert path.read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("version", ['"1"', 'W/"1"', None])
def test_a_part_that_is_already_whole_is_only_checked(
    server, tmp_path, version
) -> None:
    server.version = version
    path = tmp_path / "data.zip"
    fetch(server, path)
    # as if the machine had stopped before the last rename
    broken = tmp_path / "again.zip"
    broken_off_at_the_end = broken.with_name("again.zip.part")
    server.break_after = len(CONTENT) - 1
    with pytest.raises(DatasetError):
        fetch(server, broken)
    server.break_after = None
    broken_off_at_the_end.write_bytes(CONTENT)
    sent = server.sent
    assert fetch(server, broken, sha256=DIGEST).bytes == len(CONTENT)
    assert server.sent == sent


def test_a_wrong_checksum_deletes_what_came(server, tmp_path) -> None:
    path = tmp_path / "data.zip"
    with pytest.raises(DatasetError, match=f"found SHA-256 {DIGEST}, expected 00"):
        fetch(server, path, sha256="00" * 32)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_is_one_line(server, tmp_path) -> None:
    with pytest.raises(DatasetError, match="answers 404"):
        download(server.url("missing"), tmp_path / "x", progress=False)


def test_no_server_is_one_line(tmp_path) -> None:
    with running() as state:
        url = state.url("data.zip")
    with pytest.raises(DatasetError, match="refused.*run again"):
        download(url, tmp_path / "x", progress=False)


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://a/b", "data.zip", "http:"]
)
def test_other_addresses_are_refused(tmp_path, url) -> None:
    with pytest.raises(ConfigError, match="expected an http or https"):
        download(url, tmp_path / "x", progress=False)


def test_a_place_that_cannot_be_written_is_reported(server, tmp_path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OutputError, match="cannot write"):
        fetch(server, tmp_path / "file" / "data.zip")
