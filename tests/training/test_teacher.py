"""ALIKED as a teacher: kornia's own results, and what is told where it cannot be."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from r2d2_kapture.core.pyramid import normalize_rgb
from r2d2_kapture.errors import CheckpointError, ConfigError
from r2d2_kapture.training.teacher import load_teacher


def test_a_missing_package_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "kornia.feature", None)
    with pytest.raises(ConfigError, match=r"pip install 'r2d2-kapture\[kornia\]'"):
        load_teacher(tmp_path / "aliked-n16.pth")


def test_files_that_hold_no_aliked_are_one_line(tmp_path: Path) -> None:
    pytest.importorskip("kornia")
    path = tmp_path / "weights.pth"
    for write in (
        lambda: None,
        lambda: path.write_bytes(b"no weights"),
        lambda: torch.save({"a": torch.zeros(1)}, path),
        lambda: torch.save([1], path),
    ):
        write()
        with pytest.raises(CheckpointError, match="--teacher .*weights.pth: found no"):
            load_teacher(path)


def test_it_says_what_kornia_finds(tmp_path: Path) -> None:
    feature = pytest.importorskip("kornia.feature")
    torch.manual_seed(0)
    network = feature.ALIKED("aliked-n16", detection_threshold=-1.0).eval()
    path = tmp_path / "aliked.pth"
    torch.save(network.state_dict(), path)
    pixels = torch.randint(0, 256, (2, 64, 96, 3), dtype=torch.uint8)
    extra = torch.tensor([[[20.0, 30.0]], [[70.5, 10.25]]])
    taught = load_teacher(path)(normalize_rgb(pixels), 20, extra)
    with torch.no_grad():
        results = network(pixels.permute(0, 3, 1, 2) / 255)
    for number, result in enumerate(results):
        best = result.keypoint_scores.argsort(descending=True)[:20]
        here = taught.images == number
        assert here.sum() == 21
        points, scores = taught.points[here], taught.scores[here]
        assert torch.allclose(points[:-1], result.keypoints[best], atol=1e-3)
        assert torch.allclose(points[-1], extra[number], atol=1e-4)
        # a keypoint is itself within a pixel of the best score around
        assert (scores[:-1] >= result.keypoint_scores[best] - 1e-4).all()
        assert 0 < scores[-1] < 1
        likeness = taught.descriptors[here][:-1] * result.descriptors[best]
        assert likeness.sum(dim=1).min() > 0.999
