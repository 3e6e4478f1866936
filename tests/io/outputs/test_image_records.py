"""Records of image files: what they were like when features were made of them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from r2d2_kapture.errors import DatasetError, ImageError
from r2d2_kapture.io.outputs import image_records
from r2d2_kapture.io.outputs.image_changes import refuse_shared_names
from r2d2_kapture.io.outputs.image_records import (
    RECORDS_NAME,
    ImageRecord,
    open_records,
    read_records,
    record_image,
    stamp_image,
)

NAME = os.fsdecode(b'sub/"a, b" \xe9\xff.jpg')


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"one")
    return path


def record(path: Path) -> ImageRecord:
    return record_image(path, stamp_image(path), (3, 1))


def test_records_come_back(tmp_path: Path, image: Path) -> None:
    made = record(image)
    with open_records(tmp_path) as writer:
        writer.begin(NAME)
        assert writer.is_unfinished(NAME)
        writer.finish(NAME, made)
        assert not writer.is_unfinished(NAME)
        assert read_records(tmp_path) == {NAME: made}
    assert read_records(tmp_path) == {NAME: made}
    assert not read_records(tmp_path / "absent")


def test_the_log_ends_with_one_line_an_image_whatever_the_order(
    tmp_path: Path, image: Path
) -> None:
    contents = []
    for names in (["b", "a"], ["a", "b", "b"]):
        folder = tmp_path / "".join(names)
        folder.mkdir()
        with open_records(folder) as writer:
            for name in names:
                writer.begin(name)
                writer.finish(name, record(image))
        contents.append((folder / RECORDS_NAME).read_bytes())
    assert contents[0] == contents[1]
    assert contents[0].count(b"\n") == 2


@pytest.mark.parametrize("cut", [1, 5, 100])
def test_a_line_that_broke_off_leaves_the_image_unfinished(
    tmp_path: Path, image: Path, cut: int
) -> None:
    path = tmp_path / RECORDS_NAME
    with open_records(tmp_path) as writer:
        writer.begin("a")
        writer.finish("a", record(image))
        writer.begin("a")
        writer.finish("a", record(image))
        killed = path.read_bytes()[:-cut]
    path.write_bytes(killed)
    with open_records(tmp_path) as writer:
        assert writer.is_unfinished("a")
        writer.finish("b", record(image))
    assert set(read_records(tmp_path)) == {"a", "b"}


def test_files_of_something_else_are_no_records(tmp_path: Path) -> None:
    lines = b'\xff\n[1]\n{"name": "a", "size": 3}\n{"name": "b", "size": [1, 2]}\n'
    (tmp_path / RECORDS_NAME).write_bytes(lines)
    assert read_records(tmp_path) == {"a": None, "b": None}


def test_an_unchanged_file_is_not_read(
    image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = record(image)
    monkeypatch.setattr(image_records, "sha256_of", None)
    assert made.at(image) is made


def test_a_touched_or_moved_file_is_the_same_picture(
    tmp_path: Path, image: Path
) -> None:
    made = record(image)
    os.utime(image, ns=(1, 1))
    touched = made.at(image)
    assert touched is not None and touched.modified_ns == 1
    moved = image.rename(tmp_path / "b.jpg")
    there = touched.at(moved)
    assert there is not None and there.path == str(moved.resolve())
    assert made.at(image) is made  # gone, so not another


def test_other_content_is_another_picture(image: Path) -> None:
    made = record(image)
    image.write_bytes(b"longer")
    assert made.at(image) is None


def test_other_content_of_the_same_length_and_time_is_noticed(image: Path) -> None:
    made = record(image)
    image.write_bytes(b"two")
    os.utime(image, ns=(made.modified_ns, made.modified_ns))
    assert made.at(image) is None


def test_links_are_followed(tmp_path: Path, image: Path) -> None:
    link = tmp_path / "link.jpg"
    link.symlink_to(image)
    made = record(link)
    assert made.path == str(image.resolve())
    assert made.at(image) is made


def test_a_file_that_changes_while_it_is_read_is_refused(image: Path) -> None:
    stamp = stamp_image(image)
    image.write_bytes(b"changed")
    with pytest.raises(ImageError, match=r"a\.jpg: changed while it was read"):
        record_image(image, stamp, (3, 1))
    image.unlink()
    with pytest.raises(ImageError, match=r"a\.jpg"):
        record_image(image, stamp, (3, 1))
    with pytest.raises(ImageError, match=r"a\.jpg: found no such file"):
        stamp_image(image)


def test_names_shared_by_different_files_are_refused(
    tmp_path: Path, image: Path
) -> None:
    copy, other = tmp_path / "copy.jpg", tmp_path / "other.jpg"
    shutil.copy(image, copy)
    other.write_bytes(b"two")
    refuse_shared_names([{"a": image}, {"a": copy}, {"a": image, "b": other}])
    both = rf"{image} and {other}: found two images of one name 'a', and of 1 more"
    both += ".*into a sub-folder$"
    with pytest.raises(DatasetError, match=both):
        refuse_shared_names(
            [{"a": image, "b": copy, "c": image}, {"a": other, "b": other}]
        )
