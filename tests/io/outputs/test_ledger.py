"""Folders open for work: whose they are, what is refused, what force removes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.errors import FeatureFormatError, OutputError
from r2d2_kapture.io.outputs.ledger import (
    Contents,
    is_made_with,
    open_ledger,
    rebuilding,
    write_item,
    write_report,
)
from r2d2_kapture.io.outputs.manifest import Manifest, read_manifest
from r2d2_kapture.types import Failure, Report

ROWS = Contents(
    what="rows", files=("**/*.row", "extra/*"), flag="--place", by_name=True
)
MADE = Manifest(model={}, settings={"top_k": 5, "stage": "rows"}, versions={"a": "1"})
OTHER = dataclasses.replace(MADE, settings={"top_k": 9, "stage": "rows"})
RUN, FORCE, REPLACE = RunOptions(), RunOptions(force=True), RunOptions(replace=True)


def files(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8")
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def write(folder: Path, name: str, text: str, manifest: Manifest = MADE) -> None:
    with open_ledger(folder, ROWS, manifest, RUN):
        write_item(folder, folder / name, text.encode())


def test_a_run_resumes_and_one_without_work_changes_nothing(tmp_path: Path) -> None:
    write(tmp_path, "deep/a.row", "1")
    first = files(tmp_path)
    assert first.keys() == {"deep/a.row", "manifest.json"}
    again = dataclasses.replace(MADE, versions={"a": "2"})
    for options in (RUN, REPLACE, FORCE):
        with open_ledger(tmp_path, ROWS, again, options) as emptied:
            assert not emptied
    assert files(tmp_path) == first
    with open_ledger(tmp_path, ROWS, MADE, FORCE, anew=True) as emptied:
        assert emptied
    assert files(tmp_path).keys() == {"manifest.json"}


@pytest.mark.parametrize("options", [FORCE, REPLACE])
def test_force_redoes_ours_and_leaves_what_is_not(
    tmp_path: Path, options: RunOptions
) -> None:
    write(tmp_path, "a.row", "1")
    (tmp_path / "extra").mkdir()
    for name in ("extra/b", "notes.txt", "c.row.txt"):
        (tmp_path / name).write_text("", encoding="utf-8")
    before = files(tmp_path)
    with pytest.raises(OutputError) as caught:
        write(tmp_path, "a.row", "2", OTHER)
    assert str(caught.value) == (
        f"{tmp_path}: found rows made with top_k: 5, not 9; choose another --place, "
        "or --force to redo the rows"
    )
    assert files(tmp_path) == before
    with open_ledger(tmp_path, ROWS, OTHER, options) as emptied:
        assert emptied
    assert files(tmp_path).keys() == {"notes.txt", "c.row.txt", "manifest.json"}
    assert read_manifest(tmp_path / "manifest.json") == OTHER


def test_files_of_usual_names_are_nobodys_without_a_manifest(tmp_path: Path) -> None:
    (tmp_path / "a.row").write_text("", encoding="utf-8")
    rows = dataclasses.replace(ROWS, by_name=False)
    for options in (RUN, FORCE):
        with pytest.raises(OutputError, match="found 'a.row' without a manifest.json"):
            is_made_with(tmp_path, rows, MADE, options)


@pytest.mark.parametrize("name", ["photo.jpg", "deep/photo.jpg", "more.row.txt"])
def test_other_content_is_refused_even_if_forced(tmp_path: Path, name: str) -> None:
    for path in (tmp_path / name, tmp_path / "a.row"):
        path.parent.mkdir(exist_ok=True)
        path.write_text("", encoding="utf-8")
    for options in (RUN, FORCE):
        with pytest.raises(
            OutputError, match=f"found '{name}' without a manifest.json of rows"
        ):
            with open_ledger(tmp_path, ROWS, MADE, options, anew=options.force):
                pass
    assert files(tmp_path) == {name: "", "a.row": ""}


def test_the_output_of_another_command_is_refused_even_if_forced(
    tmp_path: Path,
) -> None:
    text = json.dumps(dataclasses.replace(MADE, settings={"top_k": 5}).to_json())
    (tmp_path / "manifest.json").write_text(text, encoding="utf-8")
    for options in (RUN, FORCE):
        with pytest.raises(OutputError, match="something else than rows; choose "):
            is_made_with(tmp_path, ROWS, MADE, options)


def test_files_like_ours_of_another_tool_are_replaced_only_if_forced(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.row").write_text("", encoding="utf-8")
    with pytest.raises(OutputError, match="found rows without manifest.json, made by"):
        write(tmp_path, "b.row", "1")
    with open_ledger(tmp_path, ROWS, MADE, FORCE):
        assert files(tmp_path).keys() == {"manifest.json"}


def test_what_runs_killed_at_once_left_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / ".partial").mkdir()
    for name in (".lock", ".manifest.1-0123abcd.json", ".partial/1.tmp"):
        (tmp_path / name).write_text("half", encoding="utf-8")
    write(tmp_path, "a.row", "1")
    assert not (tmp_path / ".partial").exists()


def test_a_broken_manifest_is_redone_only_if_forced(tmp_path: Path) -> None:
    write(tmp_path, "a.row", "1")
    (tmp_path / "manifest.json").write_text("{", encoding="utf-8")
    with pytest.raises(FeatureFormatError, match="not a manifest"):
        write(tmp_path, "b.row", "1")
    with open_ledger(tmp_path, ROWS, MADE, FORCE):
        assert files(tmp_path).keys() == {"manifest.json"}


def test_a_link_to_elsewhere_is_not_emptied(tmp_path: Path) -> None:
    write(tmp_path / "real", "a.row", "1")
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(OutputError, match="a link to .*real.*choose another --place"):
        with open_ledger(tmp_path / "link", ROWS, OTHER, FORCE):
            pass
    assert files(tmp_path / "real")["a.row"] == "1"


def test_links_do_not_lead_items_out_of_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "rows"
    folder.mkdir()
    (folder / "deep").symlink_to(tmp_path)
    with pytest.raises(OutputError, match="a link that leaves"):
        write_item(folder, folder / "deep" / "a.row", b"1")


def made_of(path: str, digest: str) -> Manifest:
    return dataclasses.replace(MADE, inputs={"database": (path, digest)})


def test_outputs_of_other_inputs(tmp_path: Path) -> None:
    """Moved is the same; changed is outdated; another in its place is refused."""
    folder = tmp_path / "map"
    assert not is_made_with(folder, ROWS, made_of("a", "1"), RUN)
    with rebuilding(folder, ROWS, made_of("a", "1")) as new:
        (new / "extra").mkdir()
    assert read_manifest(folder / "manifest.json") == made_of("a", "1")
    assert is_made_with(folder, ROWS, made_of("b", "1"), RUN)
    assert not is_made_with(folder, ROWS, made_of("a", "2"), RUN)
    with pytest.raises(OutputError, match="made with database: a, not b; choose"):
        is_made_with(folder, ROWS, made_of("b", "2"), RUN)
    assert not is_made_with(folder, ROWS, made_of("b", "2"), REPLACE)


def test_outputs_whose_manifest_is_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "a.row").write_text("", encoding="utf-8")
    assert is_made_with(tmp_path, ROWS, MADE, RUN, older=MADE)
    with pytest.raises(OutputError, match="top_k: 9, not 5"):
        is_made_with(tmp_path, ROWS, MADE, RUN, older=OTHER)


def test_a_run_without_new_work_keeps_the_report(tmp_path: Path) -> None:
    path = tmp_path / "report.json"

    def report(done: int, *failed: Failure) -> Report:
        return write_report(
            path,
            Report(
                stage="rows",
                done=done,
                skipped=2,
                failed=failed,
                seconds=0.0,
                outputs=(),
            ),
            {"more": 1},
        )

    for done, failed, kept in ((0, (), 0), (3, (), 3), (0, (), 3)):
        assert report(done, *failed).done == done
        saved = json.loads(path.read_text(encoding="utf-8"))
        assert (saved["done"], saved["more"]) == (kept, 1)
    report(0, Failure(name="a", reason="broken"))
    assert json.loads(path.read_text(encoding="utf-8"))["failed"]
