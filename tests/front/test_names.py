"""``import r2d2_kapture`` is light, and offers what its list of names says."""

from __future__ import annotations

import pytest

import r2d2_kapture
from tests.test_architecture import loaded_after

HEAVY = ["torch", "kapture", "pycolmap", "numpy", "matplotlib", "jsonargparse", "PIL"]


def test_the_import_loads_nothing_heavy() -> None:
    assert loaded_after(["r2d2_kapture"], HEAVY) == ""


def test_zlib_is_there_before_pycolmap_brings_its_own() -> None:
    assert loaded_after(["r2d2_kapture"], ["zlib"]) == "zlib"


def test_every_public_name_is_there_and_described() -> None:
    for name in r2d2_kapture.__all__:
        assert getattr(r2d2_kapture, name).__doc__, name
    assert set(r2d2_kapture.__all__) <= set(dir(r2d2_kapture))


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="load_extractr"):
        r2d2_kapture.load_extractr  # noqa: B018
