"""A file is complete or absent, whatever happens to its writer."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from r2d2_kapture.errors import OutputError
from r2d2_kapture.io.outputs.atomic import (
    atomic_path,
    is_temporary,
    write_bytes_atomic,
    write_json_atomic,
    write_text_atomic,
)
from r2d2_kapture.io.outputs.lock import LOCK_NAME, exclusive


def test_files_of_any_name_are_written_into_folders_that_do_not_exist_yet(
    tmp_path: Path,
) -> None:
    path = tmp_path / "seq 1" / "é" / "a.bin"
    write_bytes_atomic(path, b"\x00\r\n\xff")
    assert path.read_bytes() == b"\x00\r\n\xff"
    assert os.listdir(path.parent) == ["a.bin"]
    path = tmp_path / ("é" * 125 + ".kpt")
    write_bytes_atomic(path, b"x")
    assert path.read_bytes() == b"x"
    write_text_atomic(tmp_path / "a.txt", "é\r\n日本\n")
    assert (tmp_path / "a.txt").read_bytes() == "é\r\n日本\n".encode()


def test_temporary_is_hidden_next_to_the_file_and_keeps_its_suffix(
    tmp_path: Path,
) -> None:
    with atomic_path(tmp_path / "a.r2d2") as temporary:
        assert temporary.parent == tmp_path
        assert temporary.name.startswith(".")
        assert temporary.suffix == ".r2d2"
        assert is_temporary(temporary)
        temporary.write_bytes(b"")
        assert not (tmp_path / "a.r2d2").exists()
    assert not is_temporary(tmp_path / "a.r2d2")
    assert not is_temporary(tmp_path / ".config.json")


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a") as one, atomic_path(tmp_path / "a") as two:
        assert one != two
        one.write_text("one")
        two.write_text("two")
    assert (tmp_path / "a").read_text() == "one"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_failure_leaves_what_was_there(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("before")
    with pytest.raises(error), atomic_path(path) as temporary:
        temporary.write_text("half of it")
        raise error()
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize(
    "code, way_out",
    [(errno.ENOSPC, "free space"), (errno.EROFS, "choose another place")],
)
def test_refusal_is_one_line_that_names_the_file_and_the_way_out(
    tmp_path: Path, code: int, way_out: str
) -> None:
    path = tmp_path / "a.txt"
    with pytest.raises(OutputError) as caught, atomic_path(path) as temporary:
        temporary.write_text("half of it")
        raise OSError(code, os.strerror(code))
    message = str(caught.value)
    assert str(path) in message
    assert os.strerror(code) in message
    assert way_out in message
    assert "\n" not in message
    assert os.listdir(tmp_path) == []


def test_places_taken_by_something_else_are_output_errors(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "a.txt").mkdir()
    for path in (tmp_path / "file" / "a.txt", tmp_path / "a.txt"):
        with pytest.raises(OutputError, match="a.txt"):
            write_text_atomic(path, "text")
    assert sorted(os.listdir(tmp_path)) == ["a.txt", "file"]


def test_killed_writer_leaves_no_file_of_that_name(tmp_path: Path) -> None:
    code = (
        "import os, sys, signal; from pathlib import Path\n"
        "from r2d2_kapture.io.outputs.atomic import atomic_path\n"
        "with atomic_path(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_bytes(b'half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = tmp_path / "a.bin"
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run([sys.executable, "-c", code, str(path)], cwd=root)
    assert done.returncode < 0
    assert not path.exists()


def test_json_reads_back_and_shows_letters_as_they_are(tmp_path: Path) -> None:
    value = {"image": "café.jpg", "counts": [1, 2.5, None]}
    write_json_atomic(tmp_path / "a.json", value)
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == value
    assert '\n  "image": "café.jpg"' in text
    assert text.endswith("}\n")


def test_json_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write_json_atomic(tmp_path / "a.json", {"path": tmp_path})
    for number in (float("inf"), float("nan")):
        with pytest.raises(ValueError, match="JSON"):
            write_json_atomic(tmp_path / "a.json", {"score": number})
    assert os.listdir(tmp_path) == []


def test_what_dead_processes_left_is_removed_with_the_next_lock(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    left = f".map.{ended.pid}-0123abcd.json"
    others = (
        f".map.{os.getpid()}-0123abcd.json",
        left[1:],
        f"{left}.txt.gz",
        ".a.json",
    )
    for name in (left, *others):
        (tmp_path / name).touch()
    with exclusive(tmp_path):
        assert sorted(os.listdir(tmp_path)) == sorted([*others, LOCK_NAME])
