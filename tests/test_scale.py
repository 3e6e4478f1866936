"""The benchmark of scale: the world that it makes, and what the stages find in it."""

from __future__ import annotations

import importlib
import itertools
import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.commands import CHECKOUT

NAMES = ("scale", "scale_dataset", "scale_results", "scale_slices", "scale_world")


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, ModuleType]]:
    """The benchmark's modules, which import each other as scripts do."""
    monkeypatch.syspath_prepend(CHECKOUT / "benchmarks")
    before = {*sys.modules}
    yield {name: importlib.import_module(name) for name in NAMES}
    for name in {*sys.modules} - before:
        if name.startswith(("scale", "measure")):
            del sys.modules[name]


def number(text: str) -> float:
    return float(text.replace(",", ""))


def test_all_stages_find_the_truth_and_nothing_is_measured_twice(
    modules: dict[str, ModuleType],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    scale, calls = modules["scale"], itertools.count(10)

    def in_process(command: Sequence[str]) -> Any:
        first, *arguments = command
        if first == "-m":
            code = importlib.import_module(arguments[0]).main(arguments[1:])
        else:
            code = modules["scale_dataset"].main(arguments)
        if code:
            raise RuntimeError(command)
        return scale.Measurement(seconds=1, cpu_seconds=next(calls), peak_gib=1)

    for module in (scale, modules["scale_slices"]):
        monkeypatch.setattr(module, "measure", in_process)
    for name in ("PYTHONPATH", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "")
    monkeypatch.syspath_prepend(tmp_path / "plugin")
    arguments = ["--images", "24", "--output", str(tmp_path), "--workers", "1"]
    scale.main([*arguments, "--slices", "2"])
    shown = capsys.readouterr().out
    truth = re.findall(r"24 images: (.*): (.*), expected (.*)", shown)
    found = {what: (number(one), number(right)) for what, one, right in truth}
    errors = [found.pop(what) for what in [*found] if "error" in what]
    assert len(found) == 4 and all(one == right for one, right in found.values())
    assert len(errors) == 2 and all(one < 0.1 for one, _ in errors)  # mm, degrees
    sliced = re.findall(r": (\w+) in 2 slices: (\d+) files.*: (.*)", shown)
    assert [unlike for _, _, unlike in sliced] == ["[]"] * 4
    assert all(int(files) >= 3 for _, files, _ in sliced)
    assert (tmp_path / "scale.png").stat().st_size
    measured = json.loads((tmp_path / "scale.json").read_text())["results"]
    assert len(measured) == 2 * len(scale.COMMANDS)

    before = next(calls)
    scale.main(arguments)
    assert next(calls) == before + 1
    scale.main([*arguments, "--again", "pairs"])
    assert next(calls) == before + 2 + 2 * 2  # two sizes, each run and run again


def test_counts_are_those_of_the_points_that_images_show(
    modules: dict[str, ModuleType],
) -> None:
    world = modules["scale_dataset"].World(1003)
    shown = [{*place.blocks()} for _, place in world.mapping()]
    shared = [
        len(one & other)
        for number, one in enumerate(shown)
        for other in shown[number + 1 : number + 9]
    ]
    blocks = [*itertools.chain(*shown)]
    seen_twice = sum(blocks.count(block) > 1 for block in {*blocks})
    assert world.pair_count == sum(map(bool, shared))
    assert world.match_count(64) == 16 * sum(shared)
    assert world.point_count(64) == 16 * seen_twice
    shown_at = dict(world.mapping())
    for query, image in world.query_pairs():
        number = int(Path(query).stem)
        place = modules["scale_world"].Place(2 * number + 1)
        assert {*place.blocks()} & {*shown_at[image].blocks()}


def test_images_say_where_they_were_taken_and_show_all_their_points(
    modules: dict[str, ModuleType],
) -> None:
    world = modules["scale_world"]
    for half in (0, 1, 1234, 2_000_000_000):
        place = world.Place(half)
        image = np.repeat(place.pixels()[..., None], 3, axis=2)
        assert world.Place.read(image) == place
        features = world.features(place, 64, 8)
        limits = np.array(features.image_size) - 1
        assert features.descriptors.shape == (64, 8)
        assert ((features.keypoints >= 0) & (features.keypoints <= limits)).all()


def test_what_costs_more_than_it_may_is_named(
    modules: dict[str, ModuleType], tmp_path: Path
) -> None:
    results = modules["scale_results"]

    def cost(seconds: float, gib: float = 1.0) -> Any:
        return results.Measurement(seconds=1, cpu_seconds=seconds, peak_gib=gib)

    found = results.Results(tmp_path / "scale.json")
    rows = {  # seconds of a run, of its resume, and memory
        ("match", 12): (2, 1, 1),
        ("match", 112): (3, 1, 1),
        ("match", 1012): (15, 1.2, 5),
        ("start", 12): (2, 1, 1),
        ("start", 24): (2.1, 1.2, 1),
        ("pairs", 12): (2, 1, 1),
        ("pairs", 112): (3, 1, 1),
        ("pairs", 1012): (15, 1.1, 1),
    }
    for (stage, images), (run, again, gib) in rows.items():
        one = results.Result(
            stage=stage,
            images=images,
            unit="image",
            items=images,
            command=[],
            run=cost(run, gib),
            again=cost(again),
            files=1,
            commit="",
        )
        found.add(one)
    found = results.Results(tmp_path / "scale.json")
    assert found.missed([112, 1012], ["match", "pairs"]) == [
        "match: an item of 1,012 images costs 1.30 times one of 112, goal: 1.2",
        "match: a resume of 1,012 images costs 1.5 % of the run, goal: 1 %",
        "match: 5.0 GiB, goal: 4 GiB",
    ]
    (row,) = found.table([24], ["start"]).splitlines()[2:]
    assert [cell.strip() for cell in row.split("|")][7:9] == ["-", "-"]
    assert not found.missed([24], ["start"])
