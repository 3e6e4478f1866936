"""Features of plain images that replace those of other settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from r2d2_kapture.config.extract import FileFormat
from r2d2_kapture.errors import OutputError
from r2d2_kapture.io.features.plain_files import open_feature_files
from r2d2_kapture.io.outputs.manifest import Manifest
from tests.scenes.features import random_features

NAMES = ("a.jpg", "b.jpg")


class Killed(Exception):
    """The end of a run."""


def made_with(top_k: int, engine: str = "torch") -> Manifest:
    return Manifest(model={}, settings={"top_k": top_k}, versions={"engine": engine})


@pytest.mark.parametrize("file_format", ["h5", "colmap-text"])
def test_features_that_replaced_others_outlast_a_kill(
    tmp_path: Path, file_format: FileFormat
) -> None:
    """As with --slice all --force, of which slices have been put together once."""

    def run(top_k: int, *, replaces: bool, kill: bool = False) -> list[str]:
        """Make what is missing; the names of that."""
        targets = {name: tmp_path / name for name in NAMES}
        with open_feature_files(
            file_format,
            targets,
            tmp_path,
            made_with(top_k),
            force=False,
            replaces=replaces,
        ) as store:
            todo = [name for name in NAMES if not store.is_complete(name)]
            for name in todo:
                store.write(name, random_features(3))
            if kill:
                raise Killed
        return todo

    assert run(1, replaces=False) == [*NAMES]
    with pytest.raises(OutputError, match="top_k: 1, not 2"):
        run(2, replaces=False)
    with pytest.raises(Killed):
        run(2, replaces=True, kill=True)
    assert run(2, replaces=True) == []
    assert run(2, replaces=True) == []
    assert run(2, replaces=False) == []


def test_parts_of_one_engine_are_continued_by_another(tmp_path: Path) -> None:
    targets = {name: tmp_path / name for name in NAMES}
    for engine in ("torch", "onnxruntime"):
        made = made_with(1, engine)
        with (
            pytest.raises(Killed),
            open_feature_files("h5", targets, tmp_path, made, force=False) as store,
        ):
            assert store.is_complete("a.jpg") == (engine == "onnxruntime")
            store.write("a.jpg", random_features(3))
            raise Killed
