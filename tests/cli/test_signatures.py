"""Flags of commands from the signatures and docstrings of their stages."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import pytest

from r2d2_kapture.cli.common import make_parser
from r2d2_kapture.cli.parser import value_name
from r2d2_kapture.cli.signatures import read_signature
from r2d2_kapture.cli.stage_flags import (
    add_parameters,
    parameter_values,
    require_given,
)
from r2d2_kapture.errors import ConfigError

STAGES = [
    *("colmap", "evaluate", "extract", "export", "extract.files", "fetch"),
    *("localize", "map", "match", "megadepth", "pairs", "pipeline", "refine"),
    *("report", "train", "train.view", "verify"),
]
SOURCE = '''
from collections.abc import Sequence
from pathlib import Path
from r2d2_kapture.config.cameras import CameraMode as Mode
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.io.kapture.dataset import Dataset

def made(
    settings,
    *,
    images: Path | Dataset,
    lists: Sequence[Path] = (),
    map_path: Path | None = None,
    mode: Mode = "auto",
    count: int = 3,
    tar: bool = False,
    only: Sequence[str] | None = None,
    dataset: Dataset | None = None,
    options: RunOptions = RunOptions(),
):
    """Make.

    All of ``it``.

    Args:
        images: folder of
            images.
        count, tar: of both.

    Raises:
        ValueError: never.
    """
'''


@pytest.fixture
def parameters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Of a function that a package shows, and its description."""
    package = tmp_path / "r2d2_kapture"
    (package / "shown").mkdir(parents=True)
    (package / "shown" / "__init__.py").write_text(
        "from r2d2_kapture.made import made as run"
    )
    (package / "made.py").write_text(SOURCE)
    monkeypatch.setattr("r2d2_kapture.__file__", str(package / "__init__.py"))
    description, found = read_signature("r2d2_kapture.shown")
    assert description == "Make. All of it."
    return found


def test_what_can_be_typed_becomes_flags(parameters) -> None:
    assert [(item.dest, item.text) for item in parameters] == [
        ("images", "folder of images."),
        ("lists", ""),
        ("map", ""),
        ("mode", ""),
        ("count", "of both."),
        ("tar", "of both."),
    ]
    parser = make_parser("made", "", "")
    add_parameters(
        parser, parameters, {"outputs": ["mode"]}, taken=["tar"], in_files=True
    )
    typed = parser.parse_args(["--lists", ".", "/", "--mode", "single"])
    values = parameter_values(typed, parameters)
    with pytest.raises(ConfigError, match="^--images: missing, expected folder of ima"):
        require_given(typed, parameters)
    assert values == {
        "images": None,
        "lists": [Path("."), Path("/")],
        "map_path": None,
        "mode": "single",
        "count": 3,
    }
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args(["--mode", "double"])


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_says_what_its_parameters_are(stage: str) -> None:
    module = f"r2d2_kapture.stages.{stage}"
    description, parameters = read_signature(module)
    assert description.endswith(".") and parameters
    run = inspect.signature(importlib.import_module(module).run)
    for parameter in parameters:
        declared = run.parameters[parameter.name]
        assert parameter.text, parameter.name
        assert parameter.required == (declared.default is inspect.Parameter.empty)
        if not parameter.required and not parameter.several:
            assert parameter.default == declared.default


@pytest.mark.parametrize(
    "text, name",
    [
        ("list of pairs by kapture_r2d2_pairs", "FILE"),
        ("COLMAP database to write; it appears in the folder", "FILE"),
        ("file, or folder for text", "PATH"),
        ("folder for a dataset and one JSON file per query", "DIR"),
        ("output of kapture_r2d2_map, or another model", "DIR"),
    ],
)
def test_metavars_of_paths_come_from_their_texts(text: str, name: str) -> None:
    assert value_name(Path | None, text) == name
