"""Kernels of a GPU that Triton does not compile: torch's ways are taken instead."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import pytest
import torch

from r2d2_kapture import core
from r2d2_kapture.core import confidences
from tests.fake_triton import refuse_kernels
from tests.scenes.networks import random_network


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


def test_features_beyond_32_bits_are_left_to_torch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = random_network("r2d2")
    kernel = ModuleType("fused_heads")
    vars(kernel)["confidences"] = lambda *arguments: "fused"
    monkeypatch.setattr(core, "fused_heads", kernel, raising=False)
    monkeypatch.setitem(sys.modules, "r2d2_kapture.core.fused_heads", kernel)
    heads = confidences.Heads(network, torch.device("cpu"))
    features = torch.ones(1, 2, 3, network.descriptor_dim)
    expected = heads(features, True)
    monkeypatch.setattr(confidences, "_fuses", lambda device: True)
    monkeypatch.setattr(confidences, "MOST_FUSED", features.numel() + 1)
    assert heads(features, True) == "fused"
    monkeypatch.setattr(confidences, "MOST_FUSED", features.numel())
    for found, plain in zip(heads(features, True), expected, strict=True):
        assert torch.equal(found, plain)
