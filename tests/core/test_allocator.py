"""The heap is kept, and given back on request, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

from r2d2_kapture.core.allocator import keep_heap, trim_heap

KEEP_AND_TRIM = """
import os
from pathlib import Path
from r2d2_kapture.core.allocator import keep_heap, trim_heap

def resident():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") >> 20

if not keep_heap():
    print("no glibc")
    raise SystemExit
before = resident()
block = b"x" * (200 << 20)
del block
kept = resident() - before
trim_heap(1 << 40)
below_limit = resident() - before
trim_heap(0)
print(kept, below_limit, resident() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux")
def test_freed_memory_is_kept_until_it_is_trimmed() -> None:
    result = subprocess.run(
        [sys.executable, "-c", KEEP_AND_TRIM], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    if "no glibc" in result.stdout:
        pytest.skip("needs glibc")
    kept, below_limit, trimmed = map(int, result.stdout.split())
    assert kept > 190
    assert below_limit > 190
    assert trimmed < 10


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    assert keep_heap() is False
    trim_heap(0)
