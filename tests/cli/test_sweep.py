"""Sweeps become command lines."""

from __future__ import annotations

import pytest

from r2d2_kapture.cli.sweep import expand_sweeps
from r2d2_kapture.errors import ConfigError


def test_no_sweep_is_one_plain_variant() -> None:
    (variant,) = expand_sweeps([])
    assert (variant.values, variant.flags) == ({}, ())


def test_every_combination_in_order() -> None:
    variants = expand_sweeps(["top-k=100, 200", "subpixel=true,false"])
    assert [variant.flags for variant in variants] == [
        ("--top-k=100", "--subpixel"),
        ("--top-k=100", "--no-subpixel"),
        ("--top-k=200", "--subpixel"),
        ("--top-k=200", "--no-subpixel"),
    ]
    assert variants[1].values == {"top_k": "100", "subpixel": "false"}


def test_a_value_twice_counts_once() -> None:
    assert len(expand_sweeps(["top_k=5,5,6"])) == 2


@pytest.mark.parametrize("sweep", ["top_k", "=1,2", "top_k=", "top_k=1,,2"])
def test_other_forms_are_refused(sweep: str) -> None:
    with pytest.raises(ConfigError, match="expected key=a,b,c"):
        expand_sweeps([sweep])


def test_a_key_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="twice"):
        expand_sweeps(["top_k=1", "top-k=2"])
