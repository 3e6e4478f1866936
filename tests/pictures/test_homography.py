"""Plots of accuracy are whole files that show what they should."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from r2d2_kapture.errors import ConfigError, OutputError
from r2d2_kapture.pictures.figures import save
from r2d2_kapture.pictures.homography import AccuracyCurves, accuracy_figure
from tests.pictures.colours import read, share_of

PANELS = ("overall", "illumination", "viewpoint")
CURVE = {float(t): 1 - 1 / (t + 1) for t in range(1, 16)}
ONE = AccuracyCurves(label="m", published=False, curves={"overall": CURVE})


def test_three_panels(tmp_path: Path) -> None:
    methods = [
        AccuracyCurves(label="ours $x$", published=False, curves={"overall": CURVE}),
        AccuracyCurves(
            label="published", published=True, curves=dict.fromkeys(PANELS, CURVE)
        ),
    ]
    path = tmp_path / "new" / "mma.png"
    save(accuracy_figure(methods, PANELS), path)
    picture = read(path)
    height, width, _ = picture.shape
    assert width > 2.5 * height
    # blue and orange, the first two of the cycle; only the second is in every panel
    blue = [share_of(part, 2) for part in np.array_split(picture, 3, axis=1)]
    orange = [share_of(part, 0) for part in np.array_split(picture, 3, axis=1)]
    assert blue[0] > 5 * blue[2]
    assert min(orange) > 0
    assert [file.name for file in path.parent.iterdir()] == ["mma.png"]


def test_two_methods_of_one_label_are_two_lines(tmp_path: Path) -> None:
    save(accuracy_figure([ONE, ONE], PANELS), tmp_path / "two.png")
    save(accuracy_figure([ONE], PANELS), tmp_path / "one.png")
    # the second, orange, lies over the first, and both are in the legend
    assert share_of(read(tmp_path / "two.png"), 0) > 0
    assert share_of(read(tmp_path / "one.png"), 0) == 0


def test_a_picture_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write"):
        save(accuracy_figure([ONE], PANELS), tmp_path / "file" / "p.png")


@pytest.mark.parametrize("name", ["mma.bmp", "mma.tif", "mma", "mma.png.txt", ".png"])
def test_other_endings_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(
        ConfigError, match=r"expected one of \.png, \.jpg, \.pdf, \.svg"
    ):
        save(accuracy_figure([ONE], PANELS), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "magic"),
    [
        ("a.PNG", b"\x89PNG"),
        ("a.svg", b"<?xml"),
        ("a.Pdf", b"%PDF"),
        ("a.pdf", b"%PDF"),
    ],
)
def test_endings_may_be_capital(tmp_path: Path, name: str, magic: bytes) -> None:
    save(accuracy_figure([ONE], PANELS), tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(magic)
