"""Broken files of every kind are read, or refused in one line; nothing else happens.

A file that sends its reader into another exception, a crash, an endless loop or an
allocation of gigabytes fails here. What was found so is a test beside its reader.
"""

from __future__ import annotations

import faulthandler
import os
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from r2d2_kapture.errors import R2D2KaptureError
from tests.fuzz.mutations import MUTATIONS, Mutation, mutated
from tests.fuzz.samples import SAMPLES

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "100"))
SPARE_BYTES = 4 << 30
LONGEST_S = 600

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def bounds() -> Iterator[None]:
    """End the process if a reader hangs, and refuse it memory that no sample needs."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limits = resource.getrlimit(resource.RLIMIT_AS)
    most = pages * resource.getpagesize() + SPARE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, limits[1]))
    faulthandler.dump_traceback_later(LONGEST_S, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()
    resource.setrlimit(resource.RLIMIT_AS, limits)


@pytest.mark.parametrize("kind", SAMPLES)
def test_a_valid_sample_is_read(kind: str, tmp_path: Path) -> None:
    root = tmp_path / "sample"
    root.mkdir()
    SAMPLES[kind].build(root)
    SAMPLES[kind].read(root)


@pytest.mark.parametrize("kind", SAMPLES)
def test_a_broken_sample_is_read_or_refused_in_one_line(
    kind: str, tmp_path: Path
) -> None:
    sample = SAMPLES[kind]
    whole, root = tmp_path / "whole", tmp_path / "sample"
    whole.mkdir()
    sample.build(whole)
    files = sorted(
        path.relative_to(whole) for path in whole.rglob("*") if path.is_file()
    )

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(name=st.sampled_from(files), mutations=MUTATIONS)
    def check(name: Path, mutations: list[Mutation]) -> None:
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(whole, root)
        (root / name).write_bytes(mutated((whole / name).read_bytes(), mutations))
        try:
            sample.read(root)
        except R2D2KaptureError as error:
            assert "\n" not in str(error)

    check()
