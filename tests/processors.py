"""Processors of both kinds, in place of the one that the tests run on."""

from __future__ import annotations

import pytest

from r2d2_kapture.core import processor
from r2d2_kapture.core.processor import Processor

PROCESSORS = {
    "AVX2": Processor(name="AVX2", runs_bf16=False, has_bf16=False),
    "AVX512": Processor(name="AVX512", runs_bf16=True, has_bf16=False),
    "AVX512_BF16": Processor(name="AVX512", runs_bf16=True, has_bf16=True),
}

needs_bf16 = pytest.mark.skipif(
    not processor.this_processor().runs_bf16,
    reason="needs a processor that runs convolutions in bfloat16",
)

PRECISIONS = ["fp32", pytest.param("bf16", marks=needs_bf16)]


def as_processor(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let the package find the processor of PROCESSORS."""
    monkeypatch.setattr(processor, "this_processor", lambda: PROCESSORS[name])
