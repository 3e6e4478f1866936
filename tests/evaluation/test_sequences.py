"""Folders in the layout of HPatches."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from r2d2_kapture.errors import DatasetError
from r2d2_kapture.evaluation import sequences
from tests.scenes.two_views import H_2_FROM_1


def write_sequence(
    folder: Path,
    *,
    images: Iterable[int] = (1, 2, 3),
    homographies: Iterable[int] = (2, 3),
    suffix: str = ".png",
) -> Path:
    folder.mkdir(parents=True)
    for number in images:
        (folder / f"{number}{suffix}").touch()
    for number in homographies:
        np.savetxt(folder / f"H_1_{number}", H_2_FROM_1 * number)
    return folder


@pytest.mark.parametrize("suffix", [".ppm", ".png", ".jpg", ".PNG"])
def test_read_sequence(tmp_path: Path, suffix: str) -> None:
    folder = write_sequence(tmp_path / "v_wall", suffix=suffix)
    (folder / "notes.txt").touch()
    (folder / "e1.png").touch()
    sequence = sequences.read_sequence(folder)
    assert (sequence.name, sequence.kind) == ("v_wall", "viewpoint")
    names = [path.name for path in sequence.images]
    assert names == [f"{k}{suffix}" for k in (1, 2, 3)]
    assert [h.dtype for h in sequence.homographies] == [np.float64] * 2
    np.testing.assert_allclose(sequence.homographies[1], H_2_FROM_1 * 3)


def test_sequence_of_ten_images_is_in_numeric_order(tmp_path: Path) -> None:
    folder = write_sequence(
        tmp_path / "i_lamp", images=range(1, 11), homographies=range(2, 11)
    )
    sequence = sequences.read_sequence(folder)
    assert sequence.kind == "illumination"
    assert [path.stem for path in sequence.images] == [str(k) for k in range(1, 11)]


@pytest.mark.parametrize(
    ("images", "homographies", "message"),
    [
        ((1, 2, 3), (2,), "missing H_1_3"),
        ((1, 3), (2, 3), "missing image 2"),
        ((2, 3), (2, 3), "missing image 1"),
        ((1,), (), "missing image 2, H_1_2"),
        ((), (), "missing image 1, image 2, H_1_2"),
        ((1, 2, 3, 4), (), "missing H_1_2, H_1_3, H_1_4"),
    ],
)
def test_missing_files_are_named(
    tmp_path: Path, images: Iterable[int], homographies: Iterable[int], message: str
) -> None:
    folder = write_sequence(
        tmp_path / "v_wall", images=images, homographies=homographies
    )
    with pytest.raises(DatasetError, match=message):
        sequences.read_sequence(folder)


def test_a_broken_homography_is_named(tmp_path: Path) -> None:
    folder = write_sequence(tmp_path / "v_wall")
    unfinished = ("", "1 0 0 0 1 0", "1 0 0 0 1 0 0 0 x", "nan " * 9, "1 " * 9)
    for text in unfinished:
        (folder / "H_1_3").write_text(text)
        with pytest.raises(DatasetError, match="H_1_3"):
            sequences.read_sequence(folder)
    (folder / "H_1_3").write_text("1 0 nan 0 1 0 0 0 inf")
    expected = "H_1_3: found .* nan .* inf, expected finite"
    with pytest.raises(DatasetError, match=expected):
        sequences.read_sequence(folder)


@pytest.mark.parametrize(
    "extra, words",
    [
        ("2.ppm", "2.png and 2.ppm"),
        ("H_1_02", "found both H_1_02 and "),
        ("02.png", "found both 02.png and "),
        ("02.ppm", "found both 02.ppm and "),
    ],
)
def test_one_number_twice_is_refused(tmp_path: Path, extra: str, words: str) -> None:
    folder = write_sequence(tmp_path / "v_wall")
    (folder / extra).write_text("1 0 0 0 1 0 0 0 1")
    with pytest.raises(DatasetError, match=words):
        sequences.read_sequence(folder)


def test_sequences_are_found_at_any_depth_and_sorted(tmp_path: Path) -> None:
    for name in ("b/v_b", "i_z", "b/v_a", "other wall"):
        write_sequence(tmp_path / name)
    (tmp_path / "empty").mkdir()
    found = sequences.read_sequences(tmp_path)
    assert [(sequence.name, sequence.kind) for sequence in found] == [
        ("b/v_a", "viewpoint"),
        ("b/v_b", "viewpoint"),
        ("i_z", "illumination"),
        ("other wall", "other"),
    ]


def test_a_root_may_be_a_sequence_itself_broken_or_not(tmp_path: Path) -> None:
    folder = write_sequence(tmp_path / "v_wall")
    assert sequences.find_sequences(folder) == {"v_wall": folder}
    folder = write_sequence(tmp_path / "roots" / "v_wall", homographies=())
    assert sequences.find_sequences(folder) == {"v_wall": folder}
    with pytest.raises(DatasetError, match="v_wall: missing H_1_2"):
        sequences.read_sequences(folder.parent)


def test_the_large_sequences_are_left_out_by_default(tmp_path: Path) -> None:
    assert len(sequences.LARGE_SEQUENCES) == 8
    for name in (*sequences.LARGE_SEQUENCES, "v_wall"):
        write_sequence(tmp_path / name)
    assert list(sequences.find_sequences(tmp_path)) == ["v_wall"]
    assert len(sequences.find_sequences(tmp_path, leave_out=())) == 9


def test_no_sequence_is_an_error_that_names_the_folder(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=str(tmp_path)):
        sequences.find_sequences(tmp_path)
    write_sequence(tmp_path / "v_talent")
    with pytest.raises(DatasetError, match="left out 1"):
        sequences.find_sequences(tmp_path)
    with pytest.raises(DatasetError, match="nothere: no such folder"):
        sequences.find_sequences(tmp_path / "nothere")
    with pytest.raises(DatasetError, match="v_none"):
        sequences.read_sequence(tmp_path / "v_none")


@pytest.mark.parametrize("counts", [(1, 0), (3, 1), (0, 0)])
def test_a_sequence_checks_its_counts(counts: tuple[int, int]) -> None:
    images, homographies = counts
    with pytest.raises(DatasetError, match="expected n and n - 1"):
        sequences.HomographySequence(
            name="v_wall",
            images=(Path("1"),) * images,
            homographies=(np.eye(3),) * homographies,
        )


@pytest.mark.shared
@pytest.mark.parametrize(
    ("group", "count", "images"),
    [("hpatches", 3, 6), ("homogr", 6, 2), ("iguazu_noise", 1, 6)],
)
def test_real_sequences_are_read(
    shared: Path, group: str, count: int, images: int
) -> None:
    found = sequences.read_sequences(shared / "data" / "homography" / group)
    assert [len(sequence.images) for sequence in found] == [images] * count


@pytest.mark.parametrize("number", ["200000", "9" * 60])
def test_many_missing_files_are_counted_not_listed(tmp_path: Path, number: str) -> None:
    folder = write_sequence(tmp_path / "v_wall")
    (folder / f"{number}.ppm").touch()
    with pytest.raises(DatasetError, match="missing image 4, image 5") as error:
        sequences.read_sequence(folder)
    assert len(str(error.value)) - len(str(folder)) < 200
    missing = 2 * int(number) - 1 - 4 - 2
    assert f"image 11 and {missing - 8} more" in str(error.value)


def test_numbers_before_the_first_are_ignored(tmp_path: Path) -> None:
    folder = write_sequence(tmp_path / "v_wall")
    for name in ("0.png", "H_1_0", "H_1_1"):
        (folder / name).touch()
    assert len(sequences.read_sequence(folder).images) == 3


@pytest.mark.parametrize("root", ["v_data", "i_data"])
def test_a_root_of_any_name_holds_sequences(tmp_path: Path, root: str) -> None:
    write_sequence(tmp_path / root / "v_wall")
    assert list(sequences.find_sequences(tmp_path / root)) == ["v_wall"]
