"""``--force`` of the pipeline: what depends on a change is made again, no more."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from r2d2_kapture.config.extract import ExtractConfig, R2D2Config
from r2d2_kapture.config.map import MapConfig
from r2d2_kapture.config.match import MatchConfig, MutualNearestConfig
from r2d2_kapture.config.pairs import PairsConfig
from r2d2_kapture.config.pipeline import PipelineConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.config.verify import VerifyConfig
from r2d2_kapture.errors import OutputError
from r2d2_kapture.models.checkpoints import Checkpoint, load_checkpoint
from r2d2_kapture.stages import pipeline
from r2d2_kapture.types import Report
from tests.scenes.contents import files_below
from tests.scenes.extraction import patch_network
from tests.scenes.pipeline import PipelineScene
from tests.stages.test_pipeline import results

BASE = PipelineConfig(
    extract=ExtractConfig(),
    mapping_pairs=PairsConfig(method="local", vlad_clusters=8, vlad_dim=0),
    query_pairs=PairsConfig(method="exhaustive"),
)
OTHER_MAP = dataclasses.replace(BASE, map=MapConfig(min_angle=0.5))
OTHER_MATCHES = dataclasses.replace(
    OTHER_MAP,
    match=MatchConfig(matcher=MutualNearestConfig(ratio=0.9)),
    verify=VerifyConfig(max_error=2.0),
)
OTHER_FEATURES = dataclasses.replace(
    BASE,
    extract=ExtractConfig(extractor=R2D2Config(top_k=99)),
)
STAGES = (
    *("extract", "extract", "pairs", "match", "verify", "refine", "map"),
    *("pairs", "match", "localize", "evaluate"),
)


class Runs:
    """Pipelines of one scene, with one checkpoint."""

    def __init__(self, scene: PipelineScene, checkpoint: Checkpoint) -> None:
        self.scene = scene
        self.checkpoint = checkpoint

    def __call__(
        self, output: Path, config: PipelineConfig, **options: Any
    ) -> list[Report]:
        """The reports of the stages."""
        reports: list[Report] = []
        pipeline.run(
            config,
            mapping=self.scene.mapping,
            queries={"queries": self.scene.query},
            output=output,
            weights=self.checkpoint,
            options=RunOptions(progress=False, **options),
            announce=reports.append,
        )
        assert tuple(report.stage for report in reports) == STAGES
        return reports


@pytest.fixture
def run(tmp_path: Path, checkpoint_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runs:
    scene = PipelineScene(tmp_path / "scene")
    checkpoint = load_checkpoint(checkpoint_path)
    patch_network(monkeypatch, scene.scene, checkpoint.network.descriptor_dim, 0.1)
    return Runs(scene, checkpoint)


def states(output: Path, *folders: str) -> dict[str, tuple[int, int]]:
    """When and where each file of features, lists or matches was written."""
    suffixes = (".kpt", ".desc", ".gfeat", ".matches", ".txt", ".db")
    return {
        str(path.relative_to(output)): (path.stat().st_mtime_ns, path.stat().st_ino)
        for folder in folders
        for path in [output / folder, *(output / folder).rglob("*")]
        if path.is_file() and path.suffix in suffixes
        # written anew by every run
        and path.parent.parent.name != "keypoints"
    }


def made(reports: list[Report]) -> list[str]:
    """Stages that did something."""
    return [report.stage for report in reports if report.done]


def comparable(output: Path) -> dict[str, bytes]:
    """Results, without logs and notes of what was there before."""
    notes = ("jsonl", "database.json")
    return {n: data for n, data in results(output).items() if not n.endswith(notes)}


def test_what_depends_on_a_change_is_made_again(run: Runs, tmp_path: Path) -> None:
    output = tmp_path / "work"
    run(output, BASE)
    first = ("features", "retrieval", "pairs", "matches", "verified", "database.db")
    before = states(output, *first)
    assert len(before) > 12 * 2 + 9 + 36
    assert made(run(output, BASE, force=True)) == []
    assert states(output, *first) == before
    with pytest.raises(OutputError, match="min_angle: 1.5, not 0.5.*--force"):
        run(output, OTHER_MAP)
    reports = run(output, OTHER_MAP, force=True)
    assert made(reports)[0] == "map" and "match" not in made(reports)
    assert states(output, *first) == before
    with pytest.raises(OutputError, match="ratio: 1.0, not 0.9.*--force"):
        run(output, OTHER_MATCHES)
    reports = run(output, OTHER_MATCHES, force=True)
    assert made(reports)[:4] == ["match", "verify", "refine", "map"]
    assert "localize" in made(reports)
    kept = states(output, *first[:3])
    assert kept == {name: before[name] for name in kept}
    run(tmp_path / "fresh", OTHER_MATCHES)
    assert comparable(output) == comparable(tmp_path / "fresh")


def test_other_features_replace_all(run: Runs, tmp_path: Path) -> None:
    output = tmp_path / "work"
    run(output, BASE)
    before = states(output, "features")
    with pytest.raises(OutputError, match="top_k: .*, not 99.*--force"):
        run(output, OTHER_FEATURES)
    reports = run(output, OTHER_FEATURES, force=True)
    # the features of both datasets: the second does not remove those of the first
    assert [report.done for report in reports[:2]] == [9, 3]
    after = states(output, "features")
    assert after.keys() == before.keys()
    assert not set(after.values()) & set(before.values())
    # the same features come out, so that what is made of the matches stays
    assert made(reports)[2:] == ["match", "match"]


def test_features_of_another_model_are_kept(run: Runs, tmp_path: Path) -> None:
    """As where the same command meets a new default model."""
    output = tmp_path / "work"
    run(output, BASE)
    before = files_below(output)
    label = run.checkpoint.name
    newer = Runs(run.scene, dataclasses.replace(run.checkpoint, name="newer"))
    expected = rf"{label}, expected newer; give their --model \({label}\).*--force"
    with pytest.raises(OutputError, match=expected):
        newer(output, BASE)
    assert files_below(output) == before
    assert made(run(output, BASE)) == []
    assert made(newer(output, BASE, force=True))[:2] == ["extract", "extract"]
    assert made(newer(output, BASE)) == []


def test_what_others_put_there_is_replaced(run: Runs, tmp_path: Path) -> None:
    output = tmp_path / "work"
    run(output, BASE)
    whole = comparable(output)
    (output / "database.db").write_bytes(b"of others")
    (output / "pairs/mapping.txt").write_text("# edited\n")
    with pytest.raises(OutputError, match="edited or made by another tool.*--force"):
        run(output, BASE)
    run(output, BASE, force=True)
    assert comparable(output) == whole
