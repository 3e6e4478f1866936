"""Triton whose compiler takes no kernel, as of a version that knows them no more."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch


class TritonError(Exception):
    """Like Triton's: no RuntimeError."""


class Kernel:
    """Fails wherever it is launched."""

    def __getitem__(self, grid: Any) -> Any:
        raise TritonError("CompilationError: at 1:0")


def refuse_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a GPU and this Triton seem to be there."""
    triton, language = ModuleType("triton"), ModuleType("triton.language")
    vars(triton).update(
        TritonError=TritonError,
        language=language,
        jit=lambda *function, **options: Kernel() if function else lambda f: Kernel(),
        cdiv=lambda value, by: -(-value // by),
        next_power_of_2=lambda value: 1 << (value - 1).bit_length(),
    )
    language.__dict__["constexpr"] = SimpleNamespace
    monkeypatch.setitem(sys.modules, "triton", triton)
    monkeypatch.setitem(sys.modules, "triton.language", language)
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
