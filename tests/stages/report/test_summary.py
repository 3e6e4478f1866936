"""The summary: settings that differ, times as people say them, old reports."""

from __future__ import annotations

import re
from pathlib import Path

from r2d2_kapture.config.evaluate import EvaluateConfig
from r2d2_kapture.config.extract import ExtractConfig, R2D2Config
from r2d2_kapture.config.match import DualSoftmaxConfig, MatchConfig
from r2d2_kapture.config.pairs import PairsConfig
from r2d2_kapture.config.pipeline import PipelineConfig
from r2d2_kapture.stages.report.summary import (
    changed_settings,
    setting_text,
    summary_section,
)
from r2d2_kapture.stages.run_record import default_settings, plain_settings
from tests.stages.report.test_page import HOSTILE, Elements


def test_settings_go_by_their_flags() -> None:
    config = PipelineConfig(
        extract=ExtractConfig(extractor=R2D2Config(max_size=640)),
        mapping_pairs=PairsConfig(loop=True),
        evaluate=EvaluateConfig(by="lists", lists=(Path("day.txt"),)),
    )
    changed = changed_settings(plain_settings(config), default_settings())
    shown = {
        name: (setting_text(value), setting_text(default))
        for name, (value, default) in changed.items()
    }
    assert shown == {
        "extract.max-size": ("640", "1024"),
        "mapping_pairs.loop": ("yes", "no"),
        "evaluate.by": ("lists", "none"),
        "evaluate.lists": ("day.txt", "none"),
    }


def test_what_a_run_was_given_is_listed_with_the_settings() -> None:
    plain = {"stages": [], "settings": plain_settings(PipelineConfig())}
    given = {"model_in": "/sparse/é 0", "rotations": "auto"}
    text = Elements(summary_section({**plain, "inputs": given}).html).text
    for shown in ("model-in", "/sparse/é 0", "rotations", "auto", "off"):
        assert shown in text
    assert "rotations" not in Elements(summary_section(plain).html).text


def test_another_matcher_is_compared_with_its_own_defaults() -> None:
    matcher = DualSoftmaxConfig(temperature=0.05)
    settings = plain_settings(PipelineConfig(match=MatchConfig(matcher=matcher)))
    assert changed_settings(
        settings, default_settings({"matcher": "dual_softmax"})
    ) == {
        "match.matcher": ("dual_softmax", "mutual_nearest"),
        "match.temperature": (0.05, 0.02),
    }


def test_a_matcher_that_is_not_installed_breaks_nothing() -> None:
    assert default_settings({"matcher": "of another day"}) == default_settings()


def test_failures_and_warnings_are_inert_and_counted() -> None:
    failed = [{"name": f"extract: {HOSTILE}", "reason": "broken"}] * 103
    html = summary_section({"failed": failed, "warnings": [HOSTILE], "stages": []}).html
    found = Elements(html)
    assert "script" not in found.tags and "img" not in found.tags
    assert "Failures (103)" in found.text and "and 3 more" in found.text


def test_a_report_of_an_older_version_has_what_it_knows() -> None:
    stage = {
        "stage": "match",
        "unit": "pair",
        "done": 3,
        "skipped": 0,
        "failed": [],
        "seconds": 1.5,
        "outputs": ["work/matches"],
        "matches": 1200,
    }
    html = summary_section({"stages": [stage]}).html
    cells = re.findall(r"<td[^>]*>(.*?)</td>", html)
    assert cells == ["match", "mapping", "3 pairs", "0", "1.50", "1,200 matches"]
    assert "Settings" not in html and "Datasets" not in html
