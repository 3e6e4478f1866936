"""What a pipeline made of a scene, once for all tests of exports."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="package")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a pipeline; its mapping dataset is beside it."""
    from r2d2_kapture.cli.pipeline import main as pipeline
    from tests.scenes.pipeline import PipelineScene

    folder = tmp_path_factory.mktemp("pipeline")
    command = PipelineScene(folder).command(folder / "work")
    assert pipeline([*command, "--match.gpu", "-1"]) == 0
    return folder / "work"
