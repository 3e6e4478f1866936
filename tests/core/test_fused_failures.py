"""Kernels of a GPU that Triton does not compile: torch's ways are taken instead."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import pytest
import torch

from tests.fake_triton import refuse_kernels


@pytest.mark.parametrize(
    "module", ["r2d2_kapture.core.fused_heads", "r2d2_kapture.matching.fused_nn"]
)
def test_kernels_that_do_not_compile_are_not_used(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_kernels(monkeypatch)
    parent, _, name = module.rpartition(".")
    # as they were, afterwards
    monkeypatch.setattr(importlib.import_module(parent), name, None, raising=False)
    monkeypatch.setitem(sys.modules, module, ModuleType(module))
    del sys.modules[module]
    found = importlib.import_module(module)
    assert not found.works_on(torch.device("cpu"))
