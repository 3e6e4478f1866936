"""Every matcher on planes whose correspondences are known, and the door itself."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from r2d2_kapture.config import plugins
from r2d2_kapture.config.match import (
    MATCHERS,
    AdaLamConfig,
    DualSoftmaxConfig,
    LightGlueConfig,
    MatchConfig,
    MutualNearestConfig,
)
from r2d2_kapture.config.settings import make_settings
from r2d2_kapture.errors import CheckpointError, ConfigError, FeatureFormatError
from r2d2_kapture.matching.matcher import (
    Matcher,
    MatchInput,
    build_matcher,
    match_features,
    matcher_record,
)
from r2d2_kapture.types import LocalFeatures, PairMatches
from tests.matching.test_mutual_nn import use_blocks
from tests.scenes.features import features_at, unit_rows

SIZE = (640, 480)


def moved_plane(
    count: int = 400, outliers: int = 60, seed: int = 0
) -> tuple[LocalFeatures, LocalFeatures]:
    """Points of a plane moved by a similarity; the last descriptors are exchanged.

    Row i of both images is one point; the last ``outliers`` rows describe others.
    """
    rng = np.random.default_rng(seed)
    xy = rng.uniform((40, 40), (600, 440), (count, 2))
    turned = (xy - 240) @ np.array([[0.98, 0.17], [-0.17, 0.98]]) * 0.9 + 250
    rows = unit_rows(count, 128, seed)
    noisy = rows + 0.02 * rng.standard_normal(rows.shape)
    wrong = np.arange(count)
    wrong[-outliers:] = np.roll(wrong[-outliers:], 7)
    noisy = noisy[wrong] / np.linalg.norm(noisy[wrong], axis=1, keepdims=True)
    return features_at(xy, rows), features_at(turned, noisy)


def chosen(matcher: str, **values: object) -> Any:
    """Settings of a matcher by its name."""
    return make_settings(MatchConfig, {"matcher": matcher, **values}).matcher


def match(settings: Any, *pair: LocalFeatures) -> PairMatches:
    return match_features(build_matcher(settings), *pair)


def available(name: str) -> Any:
    """Settings of a matcher; skips the test where its package is absent."""
    if name in ("adalam", "lightglue"):
        pytest.importorskip("kornia")
    return MATCHERS.settings_of(name)()


@pytest.mark.parametrize("name", ["mutual_nearest", "dual_softmax", "adalam"])
def test_points_of_a_plane_find_each_other(name: str) -> None:
    first, second = moved_plane()
    found = match(available(name), first, second)
    correct = found.indices[:, 0] == found.indices[:, 1]
    assert correct.sum() >= 330
    assert (np.diff(found.indices[:, 0]) > 0).all()
    assert len(np.unique(found.indices[:, 1])) == len(found)
    assert found.scores.dtype == np.float32


def test_adalam_drops_what_its_surroundings_do_not_support() -> None:
    settings = available("adalam")
    pair = moved_plane()
    every, kept = match(MutualNearestConfig(), *pair), match(settings, *pair)
    wrong = every.indices[:, 0] != every.indices[:, 1]
    assert wrong.sum() > 50
    assert (kept.indices[:, 0] != kept.indices[:, 1]).sum() <= 2
    # as often as one likes, and without the sizes of the images
    np.testing.assert_array_equal(match(settings, *pair).indices, kept.indices)


NONE = features_at(np.zeros((0, 2)), np.zeros((0, 128)))


@pytest.mark.parametrize("name", sorted(set(MATCHERS.places) - {"lightglue"}))
def test_no_features_no_matches(name: str) -> None:
    some, _ = moved_plane(20, 2)
    for pair in ((NONE, some), (some, NONE), (NONE, NONE)):
        assert len(match(available(name), *pair)) == 0


@pytest.mark.parametrize("name", ["mutual_nearest", "dual_softmax", "adalam"])
def test_a_row_of_zeros_matches_nothing(name: str) -> None:
    settings = available(name)
    first, second = moved_plane()
    blank = first.descriptors.copy()
    blank[:5] = 0
    found = match(settings, dataclasses.replace(first, descriptors=blank), second)
    assert len(found) and not np.isin(found.indices[:, 0], np.arange(5)).any()


@pytest.mark.parametrize("rows, columns", [(1, 1), (33, 65), (200, 150)])
@pytest.mark.parametrize("small", [False, True])
def test_dual_softmax_against_its_definition(
    rows: int, columns: int, small: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if small:
        use_blocks(monkeypatch, 7)
    first, second = unit_rows(rows, seed=1), unit_rows(columns, seed=2)
    settings = DualSoftmaxConfig(temperature=0.07, min_probability=0.02)
    found = build_matcher(settings)(
        *(MatchInput(descriptors=torch.from_numpy(part)) for part in (first, second))
    )
    logits = torch.from_numpy(first).double() @ torch.from_numpy(second).double().T
    logits /= 0.07
    p = (logits.softmax(0) * logits.softmax(1)).numpy()
    expected = [
        (i, j)
        for i in range(rows)
        for j in range(columns)
        if p[i, j] == p[i].max() == p[:, j].max() and p[i, j] >= 0.02
    ]
    assert len(expected) > 0
    assert [tuple(pair) for pair in found.indices.tolist()] == expected
    np.testing.assert_allclose(found.scores, [p[pair] for pair in expected], rtol=2e-4)


def test_descriptors_of_two_lengths_are_refused() -> None:
    first, _ = moved_plane(10, 2)
    short = dataclasses.replace(first, descriptors=first.descriptors[:, :64].copy())
    with pytest.raises(FeatureFormatError, match="'a.png' and 'b.png': found 128 and"):
        match_features(build_matcher(), first, short, images=("a.png", "b.png"))


@pytest.mark.parametrize(
    "settings, values",
    [
        (MutualNearestConfig, {"ratio": 0.0}),
        (MutualNearestConfig, {"min_similarity": 2.0}),
        (DualSoftmaxConfig, {"temperature": 0.0}),
        (DualSoftmaxConfig, {"min_probability": 1.5}),
        (AdaLamConfig, {"local_inliers": 0}),
        (LightGlueConfig, {"min_confidence": -0.1}),
    ],
)
def test_settings_out_of_range_are_refused(
    settings: type, values: dict[str, float]
) -> None:
    flag = next(iter(values)).replace("_", "-")
    with pytest.raises(
        ConfigError, match=f"--{flag}: found {next(iter(values.values()))}"
    ):
        settings(**values)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FirstConfig:
    matcher: ClassVar[str] = "first"
    count: int = 1


class First(Matcher):
    """The first keypoints of both images, whatever they are."""

    settings_class = FirstConfig
    needs_keypoints = False

    def __init__(self, settings: FirstConfig, device: torch.device) -> None:
        self.settings = settings

    def __call__(self, features1: MatchInput, features2: MatchInput) -> PairMatches:
        rows = np.arange(self.settings.count, dtype=np.int64)
        return PairMatches(
            indices=np.stack([rows, rows], 1), scores=np.ones(len(rows), np.float32)
        )


class Nameless:
    settings_class = MutualNearestConfig


@pytest.fixture
def other_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = [
        EntryPoint("first", f"{__name__}:First", MATCHERS.group),
        EntryPoint("broken", "no_such_package:Matcher", MATCHERS.group),
        EntryPoint("raises", "raising_matcher:Matcher", MATCHERS.group),
        EntryPoint("renamed", f"{__name__}:Nameless", MATCHERS.group),
        EntryPoint("none", f"{__name__}:moved_plane", MATCHERS.group),
    ]
    (tmp_path / "raising_matcher.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(
        plugins, "entry_points", lambda group: EntryPoints(found).select(group=group)
    )


@pytest.mark.usefixtures("other_packages")
def test_a_matcher_of_another_package() -> None:
    settings = chosen("first", count=3)
    assert match(settings, *moved_plane(10, 2)).indices.tolist() == [
        [0, 0],
        [1, 1],
        [2, 2],
    ]
    digest = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
    assert matcher_record(build_matcher(settings)) == {
        "matcher": "first",
        "count": 3,
        "matcher code": f"{__name__} ({digest})",
    }
    with pytest.raises(
        ConfigError, match="counts: no such setting; did you mean count"
    ):
        chosen("first", counts=3)
    with pytest.raises(ConfigError, match="--matcher broken: no_such_package:Matcher"):
        MATCHERS.load("broken")
    with pytest.raises(ConfigError, match="expected one of mutual_nearest, .*, first"):
        MATCHERS.load("frist")
    with pytest.raises(ConfigError, match="--matcher raises: .* division by zero"):
        MATCHERS.load("raises")
    for name in ("renamed", "none"):
        with pytest.raises(ConfigError, match=f"--matcher {name}: .* dataclass"):
            chosen(name)
    assert list(MATCHERS.settings())[len(MATCHERS.own) :] == [
        "first"
    ]  # others do no harm


@pytest.mark.parametrize("name", ["adalam", "lightglue"])
def test_without_kornia_the_extra_is_named(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "kornia.feature", None)
    values = {"weights": tmp_path / "w.pth"} if name == "lightglue" else {}
    with pytest.raises(ConfigError, match=rf"--matcher {name}: .*r2d2-kapture\[kornia"):
        build_matcher(chosen(name, **values))


def published_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As files of github.com/cvg/LightGlue name the layers."""
    renamed = {}
    for name, value in state.items():
        parts = name.split(".")
        if parts[0] == "transformers":
            parts = [parts[2], parts[1], *parts[3:]]
        renamed[".".join(parts)] = value
    return renamed


@pytest.fixture(scope="module")
def lightglue_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    feature = pytest.importorskip("kornia.feature")
    torch.manual_seed(0)
    network = feature.LightGlue(None, input_dim=128, descriptor_dim=64, n_layers=2)
    path = tmp_path_factory.mktemp("weights") / "aliked_lightglue.pth"
    torch.save(published_names(network.state_dict()), path)
    return path


def test_lightglue_is_kornias_own(lightglue_file: Path) -> None:
    from kornia.feature import LightGlue

    settings = LightGlueConfig(weights=lightglue_file, min_confidence=0.0)
    first, second = moved_plane(60, 5)
    found = match(settings, first, second)
    network = LightGlue(
        None, input_dim=128, descriptor_dim=64, n_layers=2, filter_threshold=0.0
    )
    state = torch.load(lightglue_file)
    network.load_state_dict(
        {
            name.replace("self_attn.0", "transformers.0.self_attn")
            .replace("self_attn.1", "transformers.1.self_attn")
            .replace("cross_attn.0", "transformers.0.cross_attn")
            .replace("cross_attn.1", "transformers.1.cross_attn"): value
            for name, value in state.items()
        }
    )
    network.eval()
    with torch.inference_mode():
        expected = network(
            {
                key: {
                    "keypoints": torch.from_numpy(item.keypoints)[None],
                    "descriptors": torch.from_numpy(item.descriptors)[None],
                    "image_size": torch.tensor(SIZE)[None],
                }
                for key, item in (("image0", first), ("image1", second))
            }
        )
    assert len(found) > 0
    assert sorted(map(tuple, found.indices.tolist())) == sorted(
        map(tuple, expected["matches"][0].tolist())
    )


def test_lightglue_without_features(lightglue_file: Path) -> None:
    settings = LightGlueConfig(weights=lightglue_file)
    some, _ = moved_plane(20, 2)
    assert len(match(settings, NONE, some)) == len(match(settings, some, NONE)) == 0


def test_lightglue_refuses_what_it_cannot_match(
    lightglue_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="there are none for R2D2 and D2-Net"):
        build_matcher(LightGlueConfig())
    first, _ = moved_plane(10, 2)
    wide = dataclasses.replace(first, descriptors=unit_rows(10, 512))
    with pytest.raises(FeatureFormatError, match="of 512 values, expected 128"):
        match(LightGlueConfig(weights=lightglue_file), wide, wide)
    broken = tmp_path / "broken.pth"
    for content in ({"a": torch.zeros(2)}, [1, 2]):
        torch.save(content, broken)
        with pytest.raises(CheckpointError, match="broken.pth: found no weights of"):
            build_matcher(LightGlueConfig(weights=broken))
    for data in (b"", lightglue_file.read_bytes()[:1000]):
        broken.write_bytes(data)
        with pytest.raises(CheckpointError, match="broken.pth: found no complete"):
            build_matcher(LightGlueConfig(weights=broken))
    state = torch.load(lightglue_file)
    del state["log_assignment.0.matchability.weight"]
    torch.save(state, broken)
    with pytest.raises(CheckpointError, match="lacks 1 layers of LightGlue"):
        build_matcher(LightGlueConfig(weights=broken))
