"""Localization that is interrupted, repeated, or run beside itself."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from r2d2_kapture.config.localize import LocalizeConfig
from r2d2_kapture.errors import OutputError
from tests.colmap_scene import pinhole
from tests.localize_scene import QUIET, LocalizationScene, files_below

SINGLE = LocalizeConfig(rigs="off")
LOCK = ".lock"
VOLATILE = ("report.json", LOCK)
FORCE = dataclasses.replace(QUIET, force=True)


@pytest.fixture
def noisy(tmp_path: Path) -> LocalizationScene:
    return LocalizationScene(tmp_path, noise=0.5, outliers=0.5)


def test_a_second_run_skips_and_changes_nothing(noisy: LocalizationScene) -> None:
    before = files_below(noisy.query)
    noisy.run()
    first = files_below(noisy.root / "output")
    report = noisy.run()
    assert (report.done, report.skipped) == (0, 3)
    assert report.details["localized"] == 3
    assert files_below(noisy.root / "output") == first
    assert files_below(noisy.query) == before


def test_only_what_depends_on_a_change_is_done_again(noisy: LocalizationScene) -> None:
    noisy.run(SINGLE)
    changed = noisy.queries[1]
    noisy.replace_matches(changed, noisy.mapped[0], np.zeros((0, 2)))
    report = noisy.run(SINGLE)
    assert (report.done, report.skipped) == (1, 2)
    noisy.write_query({"walker": pinhole([319.5, 240.5])})
    assert noisy.run(SINGLE).done == 1


def test_a_broken_outcome_is_found_again(noisy: LocalizationScene) -> None:
    noisy.run(SINGLE)
    first = files_below(noisy.root / "output", VOLATILE)
    queries = noisy.root / "output/queries"
    (queries / f"{noisy.queries[0]}.json").write_text('{"status": "localized"}')
    (queries / f"{noisy.queries[1]}.json").write_bytes(b"\xff{")
    report = noisy.run(SINGLE)
    assert (report.done, report.skipped) == (2, 1)
    assert files_below(noisy.root / "output", VOLATILE) == first


def test_other_settings_are_refused_unless_forced(noisy: LocalizationScene) -> None:
    noisy.run()
    first = files_below(noisy.root / "output", [LOCK])
    other = LocalizeConfig(max_error=5.0)
    with pytest.raises(OutputError, match="max_error: 12.0, not 5.0"):
        noisy.run(other)
    assert files_below(noisy.root / "output", [LOCK]) == first
    assert noisy.run(other, FORCE).done == 3
    assert noisy.run(other).skipped == 3
    # what a forced run that was stopped left behind is not taken for its own
    assert noisy.run(LocalizeConfig(), FORCE).done == 3


def test_the_number_of_workers_changes_no_byte(noisy: LocalizationScene) -> None:
    for workers in (1, 3):
        options = dataclasses.replace(QUIET, workers=workers)
        noisy.run(SINGLE, options, output=str(workers))
    one, three = (
        files_below(noisy.root / str(workers), VOLATILE) for workers in (1, 3)
    )
    assert one == three
    assert len(one) == 3 + 6
