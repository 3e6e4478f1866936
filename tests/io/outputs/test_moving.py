"""What runs wrote, moved into the folder of another run."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from r2d2_kapture.io.outputs.growing_archive import GrowingArchive
from r2d2_kapture.io.outputs.moving import leave, move_outputs
from tests.scenes.contents import files_below


def write(folder: Path, **texts: str) -> Path:
    for name, text in texts.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return folder


def content(folder: Path) -> dict[str, str]:
    return {name: data.decode() for name, data in files_below(folder).items()}


def test_files_replace_and_logs_grow(tmp_path: Path) -> None:
    whole = write(
        tmp_path / "whole", log_jsonl="1\n", a__x_kpt="old", manifest_json="w"
    )
    part = write(tmp_path / "part", log_jsonl="2\n", a__x_kpt="new", manifest_json="p")
    write(part, a__y_kpt="y", b__c__z_kpt="z", _lock="", _finished_json="p")
    write(part, _partial__1_tmp="half")
    move_outputs(part, whole, {})
    assert content(whole) == {
        "log.jsonl": "1\n2\n",
        "a/x.kpt": "new",
        "a/y.kpt": "y",
        "b/c/z.kpt": "z",
        "manifest.json": "w",
    }
    move_outputs(part, whole, {})  # a run that was killed is repeated
    move_outputs(tmp_path / "gone", whole, {})
    assert len(content(whole)) == 5


def test_names_mean_something_beside_a_lock_only(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole", queries__a_json="a")
    part = write(tmp_path / "part", _lock="", queries__manifest_json="m")
    write(part, queries__day_jsonl="d", day_jsonl__b_kpt="b")
    write(whole, queries__day_jsonl="D", day_jsonl__a_kpt="a")
    move_outputs(part, whole, {})
    assert content(whole) == {
        "queries/a.json": "a",
        "queries/manifest.json": "m",
        "queries/day.jsonl": "d",
        "day.jsonl/a.kpt": "a",
        "day.jsonl/b.kpt": "b",
    }


def test_lines_of_a_log_that_was_not_removed_in_time_come_once(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole", log_jsonl="1\n2\n3\n")
    part = write(tmp_path / "part", _lock="", log_jsonl="2\n3\n")
    move_outputs(part, whole, {})
    assert content(whole) == {"log.jsonl": "1\n2\n3\n"}
    assert not (part / "log.jsonl").exists()


@pytest.mark.parametrize("known", [False, True])
def test_archives_grow_by_members_in_order(tmp_path: Path, known: bool) -> None:
    names = {"whole": "ab"[: 2 * known], "part": "édc"}
    for folder, members in names.items():
        (tmp_path / folder).mkdir()
        if members:
            with GrowingArchive(tmp_path / folder / "rows.tar") as archive:
                for name in members:
                    archive.append(f"{name}.kpt", name.encode() * 600)
    write(tmp_path / "part", _lock="")
    move_outputs(tmp_path / "part", tmp_path / "whole", {})
    with GrowingArchive(tmp_path / "one.tar") as archive:
        for name in names["whole"] + names["part"]:
            archive.append(f"{name}.kpt", name.encode() * 600)
    made = tmp_path / "whole" / "rows.tar"
    assert made.read_bytes() == (tmp_path / "one.tar").read_bytes()
    with tarfile.open(made) as archive:
        assert archive.getnames() == [f"{n}.kpt" for n in "".join(names.values())]


def test_files_with_a_way_of_their_own(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole", states_json="1", turns_json="1")
    part = write(tmp_path / "part", _lock="", states_json="2", turns_json="2")

    def add(one: Path, other: Path) -> None:
        one.write_text(one.read_text("utf-8") + other.read_text("utf-8"), "utf-8")

    move_outputs(part, whole, {"states.json": leave, "turns.json": add})
    assert content(whole) == {"states.json": "1", "turns.json": "12"}
