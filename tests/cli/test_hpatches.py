"""kapture_r2d2_hpatches as a user types it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from r2d2_kapture.cli.hpatches import main
from r2d2_kapture.coordinates import Turn, stored_from_turned
from r2d2_kapture.core.quarter_turns import turned
from r2d2_kapture.evaluation.summary import OVERALL, read_summary
from tests.commands import one_error_line, work_in
from tests.evaluation.test_published_caches import write_cache
from tests.scenes.images import write_crops

pytestmark = pytest.mark.usefixtures("empty_pictures")

SMALL = ["--reliability-thr", "0", "--repeatability-thr", "0", "--min-size", "64"]
CPU = ["--gpu", "-1", "--precision", "fp32", "--top-k", "40", "--worst-pairs", "0"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for seed, name in enumerate(("v_wall", "i_lamp")):
        write_crops(tmp_path / "root" / name, seed)
    return tmp_path / "root"


@pytest.fixture
def command(root: Path, tmp_path: Path, checkpoint_path: Path) -> list[str]:
    model = ["--model", str(checkpoint_path)]
    output = ["--output", str(tmp_path / "out")]
    return ["--root", str(root), *output, *model, *SMALL, *CPU]


def test_rivals_are_in_one_table(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rivals = ["--rivals", "sift", "--sift-max-keypoints", "50"]
    assert main([*command, *rivals]) == 0
    out = capsys.readouterr().out
    labels = [line.split()[3] for line in out.splitlines()[2:8]]
    assert labels == ["tiny", "sift"] * 3
    assert work_in(out, "hpatches") == "4 sequences"
    kept = (tmp_path / "out/sift/extract_config.yaml").read_text()
    assert "extractor: sift\n" in kept and "sift_max_keypoints: 50\n" in kept
    assert main([*command, *rivals]) == 0
    assert work_in(capsys.readouterr().out, "hpatches") == "4 sequences, already done"


@pytest.mark.parametrize(
    "rivals, message",
    [
        (["surf"], "error: --rivals surf: no such name"),
        (["aliked"], "error: --rivals aliked: found no --model"),
        (
            ["sift:w.pth"],
            "error: --rivals sift:w.pth: --model w.pth: found no such file",
        ),
        (["sift", "sift"], "labels: found a duplicate in tiny, sift, sift"),
        (["sift", "--disk-window", "7"], "--disk-window: found for a model of r2d2"),
    ],
)
def test_rivals_that_cannot_be_are_one_line(
    command: list[str],
    rivals: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if rivals == ["aliked"]:
        pytest.importorskip("kornia")
    assert main([*command, "--rivals", *rivals]) == 2
    assert message in one_error_line(capsys)


def test_models_of_one_name_and_label_are_distinguished(
    command: list[str],
    tmp_path: Path,
    checkpoint_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    models = [tmp_path / name / checkpoint_path.name for name in ("a", "b")]
    models.append(tmp_path / "a" / f"other{checkpoint_path.suffix}")
    for path in models:
        path.parent.mkdir(exist_ok=True)
        shutil.copy(checkpoint_path, path)
    same_name = f"model={models[0]},{models[1]}"
    assert main([*command, "--sweep", same_name]) == 0
    assert "a/tiny" in (out := capsys.readouterr().out) and "b/tiny" in out
    assert {p.name for p in tmp_path.glob("out/*.npz")} == {"a_tiny.npz", "b_tiny.npz"}
    same_label = f"model={models[0]},{models[2]}"
    assert main([*command, "--label", "foo", "--sweep", same_label]) == 0
    assert "foo tiny" in (out := capsys.readouterr().out) and "foo other" in out
    assert main([*command, "--label", "foo", "--sweep", "top_k=20"]) == 0
    assert "foo top_k=20" in capsys.readouterr().out


def test_help_speaks_of_sequences_and_lists_the_keys_of_sweeps(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    words = " ".join(capsys.readouterr().out.split())
    assert "stop at the first sequence that fails" in words
    assert "--sweep top-k=1000,5000 --sweep subpixel=true,false" in words
    assert "keys: model, extractor, scale-f, " in words
    assert "image that fails" not in words


def test_results_are_shown_again_next_to_published_ones(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command) == 0
    capsys.readouterr()
    cache = write_cache(tmp_path / "published.npy")
    results = ["--results", str(tmp_path / "out" / "tiny.npz"), str(cache)]
    tables = tmp_path / "tables"
    assert main([*results, "--output", str(tables)]) == 0
    out = capsys.readouterr().out
    assert "published" in out and "tiny" in out
    assert [line.split()[1] for line in out.splitlines()[2:8]] == [
        *("overall", "overall", "illumination", "illumination"),
        *("viewpoint", "viewpoint"),
    ]
    assert (tables / "mma.png").is_file()


def test_a_malicious_cache_is_one_error_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {tmp_path / 'witness'}",)

    array = np.empty(3, dtype=object)
    array[:] = [Evil(), 1, 2]
    np.save(tmp_path / "evil.npy", array)
    assert main(["--results", str(tmp_path / "evil.npy")]) == 2
    error = capsys.readouterr().err
    assert "refused the name" in error and error.count("\n") == 1
    assert not (tmp_path / "witness").exists()
    function, arguments = Evil().__reduce__()
    function(*arguments)
    assert (tmp_path / "witness").exists(), "the file was harmless"


def prototype_figures(shared: Path, output: Path, flags: list[str]) -> list[float]:
    """MMA at 1, 2, 3, 5 px of r2d2_WASF_N16 on 15 pairs, 5000 keypoints."""
    command = ["--root", str(shared / "data/homography/hpatches")]
    command += ["--model", str(shared / "data/weights/r2d2_WASF_N16.pt")]
    assert main([*command, "--output", str(output), *flags]) == 0
    values = read_summary(output / "r2d2_WASF_N16.npz").groups[OVERALL].values
    return [values[f"MMA@{threshold}"] for threshold in (1, 2, 3, 5)]


@pytest.mark.shared
@pytest.mark.slow
def test_published_settings_reach_the_published_figures(
    shared: Path, tmp_path: Path
) -> None:
    flags = ["--coordinates", "published", "--no-subpixel"]
    found = prototype_figures(shared, tmp_path, flags)
    np.testing.assert_allclose(found, [0.298, 0.628, 0.788, 0.887], atol=0.003)


@pytest.mark.shared
@pytest.mark.slow
def test_our_settings_reach_more(shared: Path, tmp_path: Path) -> None:
    found = prototype_figures(shared, tmp_path, [])
    assert (np.array(found) >= [0.379, 0.678, 0.803, 0.886]).all()


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_accuracy_on_turned_sequences_is_that_of_upright_ones(
    root: Path, tmp_path: Path, turn: Turn
) -> None:
    """With the bundled model: the same matches, in the pixels of the stored images."""
    sequence = tmp_path / "turned" / "v_wall"
    shutil.copytree(root / "v_wall", sequence)
    for number in (2, 3):
        path = sequence / f"{number}.png"
        with Image.open(path) as image:
            upright = np.array(image)
        Image.fromarray(turned(upright, turn)).save(path)
        corners = np.array([[0, 0], [1, 0], [0, 1]], float)
        height, width = upright.shape[:2]
        back = (360 - turn) % 360
        # where the turned image has these pixels of the upright one
        x, y, z = stored_from_turned(corners, back, turned_size(turn, width, height))
        H_stored_from_upright = np.eye(3)
        H_stored_from_upright[:2] = np.stack([y - x, z - x, x], axis=1)
        H = np.loadtxt(sequence / f"H_1_{number}")
        np.savetxt(sequence / f"H_1_{number}", H_stored_from_upright @ H)
    shutil.rmtree(root / "i_lamp")
    found = []
    for folder, rotations in ((root, "off"), (tmp_path / "turned", "auto")):
        output = tmp_path / f"out_{rotations}"
        flags = ["--root", str(folder), "--output", str(output), *SMALL, *CPU]
        flags += ["--top-k", "300", "--rotations", rotations]
        assert main(flags) == 0
        (path,) = output.glob("*.npz")
        found.append(read_summary(path).groups[OVERALL].values)
    # what RANSAC samples gives is left out
    expected, values = (
        {k: v for k, v in one.items() if not k.startswith(("AUC", "homography"))}
        for one in found
    )
    assert expected["MMA@3"] > 0.5 and expected["matches"] > 50
    assert values == pytest.approx(expected, abs=1e-3)


def turned_size(turn: int, width: int, height: int) -> tuple[int, int]:
    return (height, width) if turn in (90, 270) else (width, height)
