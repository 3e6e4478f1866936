"""Fetching the named sources, from a server of this machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from r2d2_kapture.cli.fetch import main
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.errors import ConfigError, DatasetError, OutputError
from r2d2_kapture.io.outputs.lock import exclusive
from r2d2_kapture.stages import fetch
from r2d2_kapture.training.sources import SOURCE_FOLDERS
from tests.http_files import FileServer, running, zipped

QUIET = RunOptions(progress=False)


AACHEN = zipped({"images_upright/db/1.jpg": b"one", "images_upright/query/2.jpg": b"2"})
STYLES = zipped({"1.jpg.st_2.jpg": b"styled" * 50_000})


@pytest.fixture
def server() -> Iterator[FileServer]:
    with running() as state:
        state.files.update({"a.zip": AACHEN, "s.zip": STYLES})
        yield state


def run(root: Path, letters: str, server: FileServer | None = None, **settings):
    urls = (
        {} if server is None else {"A": server.url("a.zip"), "S": server.url("s.zip")}
    )
    settings.setdefault("options", QUIET)
    return fetch.run(data_root=root, sources=letters, url=urls, **settings)


def test_sources_are_fetched_checked_and_unpacked(server, tmp_path) -> None:
    root = tmp_path / "data"
    digest = hashlib.sha256(AACHEN).hexdigest()
    report = run(root, "AS", server, sha256={"A": digest})
    assert (report.done, report.skipped, report.failed) == (2, 0, ())
    assert (root / "aachen/images_upright/db/1.jpg").read_bytes() == b"one"
    assert (root / "aachen/style_transfer/1.jpg.st_2.jpg").stat().st_size == 300_000
    assert "as published or given" in report.details["A"]
    assert list((root / "archives").iterdir()) == []
    assert json.loads((root / "fetch_report.json").read_text())["done"] == 2


def test_an_unknown_checksum_is_reported_recorded_and_compared(
    server, tmp_path
) -> None:
    report = run(tmp_path, "S", server)
    digest = hashlib.sha256(STYLES).hexdigest()
    assert digest in report.details["S"] and "not verified" in report.details["S"]
    record = json.loads((tmp_path / ".fetched/S.json").read_text())
    assert record["sha256"] == digest and record["url"] == server.url("s.zip")
    assert record["licence"]
    server.files["s.zip"] = zipped({"other": b"changed"})
    again = run(tmp_path, "S", server, options=RunOptions(progress=False, force=True))
    assert f"expected {digest}" in again.failed[0].reason
    assert not (tmp_path / "aachen/style_transfer/other").exists()


def test_finished_sources_are_skipped_unless_forced(server, tmp_path) -> None:
    run(tmp_path, "AS", server)
    count = len(server.requests)
    assert run(tmp_path, "AS", server).skipped == 2
    assert len(server.requests) == count
    forced = run(tmp_path, "A", server, options=RunOptions(progress=False, force=True))
    assert forced.done == 1 and "as recorded" in forced.details["A"]


def test_an_interrupted_download_resumes(server, tmp_path) -> None:
    server.break_after = 100_000
    report = run(tmp_path, "S", server)
    assert "run again" in report.failed[0].reason
    server.break_after = None
    assert run(tmp_path, "S", server).done == 1
    assert server.sent == len(STYLES)


def test_an_interrupted_unpacking_resumes(server, tmp_path, monkeypatch) -> None:
    def interrupted(archive: Path, folder: Path, *, progress: bool | None) -> int:
        (folder / "half").mkdir(parents=True)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(fetch, "unpack", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, "S", server)
    count = len(server.requests)
    assert run(tmp_path, "S", server).done == 1
    assert (tmp_path / "aachen/style_transfer/1.jpg.st_2.jpg").is_file()
    assert len(server.requests) == count


@pytest.mark.parametrize("letter", "WSF")
def test_what_cannot_be_fetched_says_what_to_do_in_one_line(tmp_path, letter) -> None:
    report = run(tmp_path, letter)
    (failure,) = report.failed
    assert failure.name == letter
    assert str(tmp_path / SOURCE_FOLDERS[letter]) in failure.reason
    assert str(tmp_path / "archives") in failure.reason
    assert "by hand" in failure.reason and "\n" not in failure.reason


def test_files_put_there_by_hand_are_taken(tmp_path) -> None:
    folder = tmp_path / "web_images"
    folder.mkdir()
    (folder / "mine.jpg").write_bytes(b"")
    report = run(tmp_path, "W")
    assert (report.done, report.skipped, report.failed) == (0, 1, ())


def test_an_archive_put_there_by_hand_is_checked_unpacked_and_kept(tmp_path) -> None:
    archive = tmp_path / "archives/aachen_style_transfer.zip"
    archive.parent.mkdir()
    archive.write_bytes(STYLES)
    report = run(tmp_path, "S", sha256={"S": "ab" * 32})
    assert "expected abab" in report.failed[0].reason
    assert archive.is_file()
    assert run(tmp_path, "S").done == 1
    assert (tmp_path / "aachen/style_transfer/1.jpg.st_2.jpg").is_file()
    assert archive.is_file()


def test_an_archive_of_another_layout_is_reported(server, tmp_path) -> None:
    server.files["a.zip"] = zipped({"elsewhere/1.jpg": b""})
    report = run(tmp_path, "A", server)
    assert "images_upright/db is missing" in report.failed[0].reason
    # not recorded: it is not finished
    assert run(tmp_path, "A", server).skipped == 0


def test_archives_are_kept_on_demand(server, tmp_path) -> None:
    run(tmp_path, "S", server, keep_archives=True)
    kept = tmp_path / "archives/aachen_style_transfer.zip"
    assert kept.read_bytes() == STYLES


def test_one_failure_does_not_stop_the_others_unless_strict(server, tmp_path) -> None:
    del server.files["a.zip"]
    report = run(tmp_path, "AS", server)
    assert report.done == 1 and [item.name for item in report.failed] == ["A"]
    strict = RunOptions(progress=False, strict=True, force=True)
    with pytest.raises(DatasetError, match="404"):
        run(tmp_path, "AS", server, options=strict)


def test_unknown_letters_and_busy_folders_are_refused(tmp_path) -> None:
    with pytest.raises(ConfigError, match="'X'"):
        run(tmp_path, "AX")
    with exclusive(tmp_path), pytest.raises(OutputError, match="another run"):
        run(tmp_path, "W")


def test_the_table_names_places_and_licences() -> None:
    lines = fetch.table()
    assert [line[0] for line in lines] == list("WASF")
    assert all("licence: " in line for line in lines)
    for source in fetch.SOURCES.values():
        assert source.url is not None or source.by_hand


def test_the_command(server, tmp_path, capsys) -> None:
    root = tmp_path / "data root"
    arguments = ["--data-root", str(root), "--sources", "S", "--quiet"]
    url = json.dumps({"S": server.url("s.zip")})
    assert main([*arguments, "--url", url]) == 0
    assert "fetch: 1 data set" in capsys.readouterr().out
    assert main(["--list"]) == 0
    assert "licence" in capsys.readouterr().out
    assert main(["--data-root", str(root), "--sources", "F"]) == 1
    assert "by hand" in capsys.readouterr().out
    assert main([]) == 2
    assert "--data-root" in capsys.readouterr().err
