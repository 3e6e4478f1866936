"""Small tensors: one thread."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.scenes.networks import torch_threads


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Threads that wait for each other cost more than they give on small images."""
    with torch_threads(1):
        yield
