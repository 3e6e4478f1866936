"""Sweeps become command lines."""

from __future__ import annotations

import pytest

from r2d2_kapture.cli.sweep import expand_sweeps
from r2d2_kapture.errors import ConfigError

KEYS = ("top_k", "subpixel")


def test_no_sweep_is_one_plain_variant() -> None:
    (variant,) = expand_sweeps([], KEYS)
    assert (variant.values, variant.flags) == ({}, ())


def test_every_combination_in_order() -> None:
    variants = expand_sweeps(["top-k=100, 200", "subpixel=true,false"], KEYS)
    assert [variant.flags for variant in variants] == [
        ("--top-k=100", "--subpixel"),
        ("--top-k=100", "--no-subpixel"),
        ("--top-k=200", "--subpixel"),
        ("--top-k=200", "--no-subpixel"),
    ]
    assert variants[1].values == {"top_k": "100", "subpixel": "false"}


def test_a_value_twice_counts_once() -> None:
    assert len(expand_sweeps(["top_k=5,5,6"], KEYS)) == 2


@pytest.mark.parametrize("sweep", ["top_k", "=1,2", "top_k=", "top_k=1,,2"])
def test_other_forms_are_refused(sweep: str) -> None:
    with pytest.raises(ConfigError, match="expected key=a,b,c"):
        expand_sweeps([sweep], KEYS)


def test_a_key_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="twice"):
        expand_sweeps(["top_k=1", "top-k=2"], KEYS)


@pytest.mark.parametrize("sweep", ["seed=0,1", "output=a,b", "max-pairs=1,2"])
def test_only_what_decides_features_is_swept(sweep: str) -> None:
    with pytest.raises(ConfigError, match="expected one of top_k, subpixel"):
        expand_sweeps(["top_k=1,2", sweep], KEYS)
