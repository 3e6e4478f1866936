"""Plots and match pictures are whole files that show what they should."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from r2d2_kapture.errors import ConfigError, OutputError
from r2d2_kapture.pictures.homography import (
    AccuracyCurves,
    draw_matches,
    plot_accuracy,
)

PANELS = ("overall", "illumination", "viewpoint")
CURVE = {float(t): 1 - 1 / (t + 1) for t in range(1, 16)}


def read(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def share_of(picture: np.ndarray, channel: int) -> float:
    """Share of the pixels in which one colour clearly leads."""
    others = np.delete(picture, channel, axis=2).max(axis=2)
    return float((picture[:, :, channel] - others > 60).mean())


def draw(path: Path, correct: list[bool], size: tuple[int, int] = (60, 80)) -> Path:
    image1 = np.full((*size, 3), 120, np.uint8)
    image2 = np.full((40, 50, 3), 120, np.uint8)
    count = len(correct)
    points = np.column_stack([np.full(count, 5), np.linspace(5, 35, count)])
    draw_matches(
        image1,
        image2,
        points.astype(np.float32),
        points.astype(np.float32),
        np.array(correct, dtype=bool),
        path,
        title="a_$b$",
    )
    return path


def test_correct_matches_are_green_and_wrong_ones_red(tmp_path: Path) -> None:
    green = read(draw(tmp_path / "g.png", [True] * 10))
    red = read(draw(tmp_path / "r.png", [False] * 10))
    assert share_of(green, 1) > 0.005 and share_of(green, 0) == 0
    assert share_of(red, 0) > 0.005 and share_of(red, 1) == 0


def test_few_of_many_matches_are_drawn(tmp_path: Path) -> None:
    some = share_of(read(draw(tmp_path / "a.png", [True] * 200)), 1)
    many = share_of(read(draw(tmp_path / "b.png", [True] * 5000)), 1)
    assert many == pytest.approx(some, rel=0.05)


def test_no_matches_are_a_picture_too(tmp_path: Path) -> None:
    picture = read(draw(tmp_path / "n.png", []))
    assert share_of(picture, 0) == share_of(picture, 1) == 0


def test_three_panels(tmp_path: Path) -> None:
    methods = [
        AccuracyCurves(label="ours $x$", published=False, curves={"overall": CURVE}),
        AccuracyCurves(
            label="published", published=True, curves=dict.fromkeys(PANELS, CURVE)
        ),
    ]
    path = tmp_path / "new" / "mma.png"
    plot_accuracy(methods, PANELS, path)
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
    method = AccuracyCurves(label="m", published=False, curves={"overall": CURVE})
    plot_accuracy([method, method], PANELS, tmp_path / "two.png")
    plot_accuracy([method], PANELS, tmp_path / "one.png")
    # the second, orange, lies over the first, and both are in the legend
    assert share_of(read(tmp_path / "two.png"), 0) > 0
    assert share_of(read(tmp_path / "one.png"), 0) == 0


def test_vector_formats(tmp_path: Path) -> None:
    method = AccuracyCurves(label="m", published=False, curves={"overall": CURVE})
    plot_accuracy([method], PANELS, tmp_path / "mma.pdf")
    assert (tmp_path / "mma.pdf").read_bytes().startswith(b"%PDF")


def test_a_picture_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write"):
        draw(tmp_path / "file" / "p.png", [True])


@pytest.mark.parametrize("name", ["mma.bmp", "mma.tif", "mma", "mma.png.txt", ".png"])
def test_other_endings_are_refused(tmp_path: Path, name: str) -> None:
    method = AccuracyCurves(label="m", published=False, curves={"overall": CURVE})
    with pytest.raises(
        ConfigError, match=r"expected one of \.png, \.jpg, \.pdf, \.svg"
    ):
        plot_accuracy([method], PANELS, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "magic"), [("a.PNG", b"\x89PNG"), ("a.svg", b"<?xml"), ("a.Pdf", b"%PDF")]
)
def test_endings_may_be_capital(tmp_path: Path, name: str, magic: bytes) -> None:
    method = AccuracyCurves(label="m", published=False, curves={"overall": CURVE})
    plot_accuracy([method], PANELS, tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(magic)
