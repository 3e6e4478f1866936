"""Files of hloc that are wrong in part: what fails, and what is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from r2d2_kapture.cli.imports import main
from r2d2_kapture.stages.imports import run
from tests.commands import one_error_line

NAMES = ("a.jpg", "b c.jpg")
COUNTS = (5, 7)
PAIR = "a.jpg/b c.jpg"


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Features in half precision, and matches of the first keypoints."""
    features, matches = tmp_path / "features é.h5", tmp_path / "matches é.h5"
    with h5py.File(features, "w") as file:
        for name, count in zip(NAMES, COUNTS):
            group = file.create_group(name)
            group["keypoints"] = np.arange(2 * count, dtype=np.float16).reshape(-1, 2)
            group["descriptors"] = np.eye(8, count, dtype=np.float16)
            group["image_size"] = np.array([64, 48])
    with h5py.File(matches, "w") as file:
        file[f"{PAIR}/matches0"] = np.array([0, 1, -1, 2, 6], np.int16)
    return features, matches


def change(path: Path, name: str, edit: Callable[[np.ndarray], np.ndarray]) -> None:
    with h5py.File(path, "r+") as file:
        values = file[name][()]
        del file[name]
        file[name] = edit(values)


def with_first(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def edit(values: np.ndarray) -> np.ndarray:
        values.flat[0] = value
        return values

    return edit


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda rows: rows[:-1], "found 4 rows, expected one for each of 5 keypoints"),
        (with_first(7), "found indices up to [4, 7], expected below [5, 7]"),
    ],
)
def test_matches_of_other_keypoints_are_refused_by_name(
    edit: Callable[[np.ndarray], np.ndarray],
    words: str,
    files: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    change(files[1], f"{PAIR}/matches0", edit)
    output = files[0].parent / "out"
    assert main(["--hloc", *map(str, files), "--output", str(output)]) == 2
    error = one_error_line(capsys)
    assert error.startswith(f"error: {files[1]}: ") and words in error


@pytest.mark.parametrize("field", ["keypoints", "descriptors"])
@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_features_that_are_no_numbers_fail_by_name(
    field: str, value: float, files: tuple[Path, Path]
) -> None:
    change(files[0], f"{NAMES[1]}/{field}", with_first(value))
    report = run(hloc=files[:1], output=files[0].parent / "out")
    (failure,) = report.failed
    assert failure.name == NAMES[1]
    assert f"{field}: found NaN or infinity" in failure.reason
    assert report.done == 1


def test_order_and_folder_of_files_do_not_matter(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = files[0].parent / "out"
    assert run(hloc=files, output=output).done == 2
    monkeypatch.chdir(files[0].parent)
    again = run(hloc=[Path(path.name) for path in files[::-1]], output=output)
    assert (again.done, again.skipped) == (0, 2)
