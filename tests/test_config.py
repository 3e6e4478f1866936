"""Bad settings are refused with the name of their flag."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest

from r2d2_kapture.config.checks import Checked, bounded, require
from r2d2_kapture.config.extract import (
    D2NetConfig,
    EngineConfig,
    ExtractConfig,
    PyramidConfig,
    R2D2Config,
    SelectionConfig,
)
from r2d2_kapture.config.extras import import_extra
from r2d2_kapture.config.localize import LocalizeConfig
from r2d2_kapture.config.pair_poses import PairPosesConfig
from r2d2_kapture.config.photographs import FolderConfig
from r2d2_kapture.config.refine import RefineConfig
from r2d2_kapture.config.verify import VerifyConfig
from r2d2_kapture.errors import ConfigError, R2D2KaptureError

NAN = math.nan


def pinhole(params: str) -> dict[str, Any]:
    return {"camera_model": "PINHOLE", "camera_params": params}


@pytest.mark.parametrize(
    "config, values, flag",
    [
        (FolderConfig, {"camera_mode": "all"}, "--camera-mode"),
        (FolderConfig, {"camera_model": "PINHOL"}, "--camera-model"),
        (FolderConfig, {"exhaustive_limit": -1}, "--exhaustive-limit"),
        (FolderConfig, {"camera_params": "1,2,3"}, "found no --camera-model"),
        (FolderConfig, pinhole("1,2,3"), "found 3 parameters, expected the 4 of PI"),
        (FolderConfig, pinhole("1,2,3,x"), "expected numbers separated by commas"),
        (FolderConfig, pinhole("0,2,3,4"), "a focal length above 0"),
        (FolderConfig, pinhole("nan,2,3,4"), "expected finite numbers"),
        (PyramidConfig, {"coordinates": "colmap"}, "--coordinates"),
        (EngineConfig, {"precision": "int4"}, "--precision"),
        (PyramidConfig, {"scale_f": 1}, "--scale-f"),
        (PyramidConfig, {"scale_f": 0.5}, "--scale-f"),
        (PyramidConfig, {"scale_f": -2}, "--scale-f"),
        (PyramidConfig, {"scale_f": NAN}, "--scale-f"),
        (PyramidConfig, {"min_size": -1}, "--min-size"),
        (PyramidConfig, {"min_size": 1025}, "--min-size"),
        (PyramidConfig, {"max_size": 255}, "--max-size"),
        (PyramidConfig, {"min_size": 0, "max_size": 0}, "--max-size"),
        (PyramidConfig, {"min_scale": -0.1}, "--min-scale"),
        (PyramidConfig, {"min_scale": 0.8, "max_scale": 0.5}, "--min-scale"),
        (PyramidConfig, {"min_scale": NAN}, "--min-scale"),
        (PyramidConfig, {"max_scale": 1.1}, "--max-scale"),
        (PyramidConfig, {"max_scale": 0}, "--max-scale"),
        (PyramidConfig, {"max_scale": NAN}, "--max-scale"),
        (RefineConfig, {"patch_radius": 1}, "--patch-radius"),
        (RefineConfig, {"layers": 0}, "--layers"),
        (RefineConfig, {"max_step": NAN}, "--max-step"),
        (RefineConfig, {"prior": 0}, "--prior"),
        (RefineConfig, {"shape_prior": 0}, "--shape-prior"),
        (RefineConfig, {"min_similarity": 1.1}, "--min-similarity"),
        (RefineConfig, {"max_return": -1}, "--max-return"),
        (RefineConfig, {"max_iterations": 0}, "--max-iterations"),
        (SelectionConfig, {"reliability_thr": -0.1}, "--reliability-thr"),
        (SelectionConfig, {"reliability_thr": 1.1}, "--reliability-thr"),
        (SelectionConfig, {"reliability_thr": NAN}, "--reliability-thr"),
        (SelectionConfig, {"repeatability_thr": -0.1}, "--repeatability-thr"),
        (SelectionConfig, {"repeatability_thr": 2}, "--repeatability-thr"),
        (SelectionConfig, {"repeatability_thr": NAN}, "--repeatability-thr"),
        (SelectionConfig, {"top_k": -1}, "--top-k"),
        (D2NetConfig, {"preprocessing": "keras"}, "--preprocessing"),
        (D2NetConfig, {"max_edge": -1}, "--max-edge"),
        (D2NetConfig, {"max_sum_edges": -1}, "--max-sum-edges"),
        (D2NetConfig, {"max_keypoints": -1}, "--max-keypoints"),
        (EngineConfig, {"gpu": -2}, "--gpu"),
        (EngineConfig, {"tile_pixels": 16383}, "--tile-pixels"),
        (EngineConfig, {"tile_pixels": 0}, "--tile-pixels"),
        (EngineConfig, {"tile_pixels": -1}, "--tile-pixels"),
        (EngineConfig, {"batch_size": 0}, "--batch-size"),
        (EngineConfig, {"batch_size": -3}, "--batch-size"),
    ],
)
def test_bad_values_are_refused(config: Any, values: dict[str, Any], flag: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config(**values)
    message = str(caught.value)
    assert flag in message
    assert "expected" in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(
    "config, values",
    [
        (PyramidConfig, {"scale_f": 1.001}),
        (PyramidConfig, {"min_size": 0}),
        (PyramidConfig, {"min_size": 1024, "max_size": 1024}),
        (PyramidConfig, {"min_scale": 1, "max_scale": 1}),
        (SelectionConfig, {"reliability_thr": 0, "repeatability_thr": 1}),
        (SelectionConfig, {"top_k": 0}),
        (EngineConfig, {"gpu": -1, "tile_pixels": 16384, "batch_size": 1}),
        (EngineConfig, {"gpu": 7, "tile_pixels": "auto"}),
    ],
)
def test_values_at_the_limits_are_accepted(config: Any, values: dict[str, Any]) -> None:
    made = config(**values)
    assert {name: getattr(made, name) for name in values} == values


def test_defaults_are_those_of_the_published_extractor() -> None:
    r2d2 = ExtractConfig().extractor
    assert isinstance(r2d2, R2D2Config)
    assert r2d2.scale_f**4 == pytest.approx(2)
    assert (r2d2.min_size, r2d2.max_size) == (256, 1024)
    assert (r2d2.min_scale, r2d2.max_scale) == (0, 1)
    assert (r2d2.reliability_thr, r2d2.repeatability_thr) == (0.7, 0.7)
    assert r2d2.top_k == 5000
    d2net = D2NetConfig()
    assert (d2net.max_edge, d2net.max_sum_edges) == (1600, 2800)
    # that of the weights; tests/extractors/test_registry.py has caffe where none is
    assert d2net.preprocessing is None and not d2net.multiscale and d2net.relu


@pytest.mark.parametrize(
    "config",
    [R2D2Config, D2NetConfig, EngineConfig, ExtractConfig],
)
def test_settings_are_frozen_and_named(config: Any) -> None:
    made = config()
    name = dataclasses.fields(made)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(made, name, 1)
    with pytest.raises(TypeError):
        config(1)
    assert made == config()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Toy(Checked):
    steps: int | None = bounded(None, at_least=1)
    share: float = bounded(0.5, above=0, at_most=1)
    decay: float = bounded(0.0, at_least=0, below=1)
    tile_size: int | Literal["auto"] = bounded("auto", at_least=8, note="8 pixels")
    refine: bool | Literal["auto"] = "auto"
    mode: Literal["one", "two"] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Heir(Toy):
    weight: float = bounded(1.0, above=0, below=math.inf)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"steps": 0}, "--steps: found 0, expected 1 or more"),
        ({"share": 0}, "--share: found 0, expected above 0 to 1"),
        ({"share": NAN}, "--share: found nan, expected above 0 to 1"),
        ({"decay": 1}, "--decay: found 1, expected 0 to below 1"),
        ({"tile_size": 7}, "--tile-size: found 7, expected 8 pixels"),
        ({"tile_size": "many"}, "--tile-size: found many, expected 8 pixels"),
        ({"refine": 1}, "--refine: found 1, expected one of true, false, auto"),
        ({"mode": "three"}, "--mode: found 'three', expected one of one, two"),
        ({"weight": math.inf}, "--weight: found inf, expected above 0"),
        ({"weight": 1, "steps": -1}, "--steps: found -1, expected 1 or more"),
    ],
)
def test_a_field_says_what_it_expects(values: dict[str, Any], message: str) -> None:
    Heir(steps=1, share=1, tile_size=8, refine=False, mode="two")
    with pytest.raises(ConfigError) as caught:
        Heir(**values)
    assert str(caught.value) == message


def test_require_and_the_exception_tree() -> None:
    require(True, "never seen")
    with pytest.raises(R2D2KaptureError, match="--x: wrong"):
        require(False, "--x: wrong")
    with pytest.raises(ValueError):
        require(False, "--x: wrong")


@pytest.mark.parametrize(
    "content, said",
    [
        (None, "which is not installed"),
        ("import lacking.part", "which needs lacking, which is not installed"),
        ("from math import cosine", "which cannot be imported: cannot import name .*"),
        ("import an_extra.lacking", "which is not installed"),
    ],
)
def test_what_an_extra_lacks_is_named(
    content: str | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    if content is not None:
        (tmp_path / "an_extra.py").write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError) as refused:
        import_extra("an_extra", "more", "--flag")
    expected = f"--flag: needs the package an_extra, {said}; pip install 'r2d2-kapture"
    assert re.match(expected, str(refused.value))


@pytest.mark.parametrize("config", [VerifyConfig, PairPosesConfig, LocalizeConfig])
def test_seeds_that_colmap_cannot_take_are_refused(config: Callable[..., Any]) -> None:
    assert config(seed=2**31 - 1).seed == 2**31 - 1
    with pytest.raises(ConfigError, match="^--seed: found 2147483648, expected 0 to"):
        config(seed=2**31)
