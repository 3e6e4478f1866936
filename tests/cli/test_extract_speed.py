"""The benchmark of extraction in miniature: its lines are commands that run."""

from __future__ import annotations

import importlib
import os
import runpy
import sys
from pathlib import Path
from types import ModuleType

import pytest

from r2d2_kapture.cli.extract import main as extract
from r2d2_kapture.synthetic.dataset import RoomDataset
from tests.processors import PROCESSORS
from tests.scenes.images import write_noise
from tests.scenes.kapture_files import write_dataset

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def commands() -> list[list[str]]:
    """Command lines of Python that were measured."""
    return []


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch, commands: list[list[str]]) -> ModuleType:
    """The script, which measures nothing and runs its commands here."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setattr(os, "environ", dict(os.environ))
    module = importlib.import_module("extract_speed")

    def measure(command: list[str]) -> object:
        commands.append(command)
        if command[0] == "-m":
            assert extract(command[2:]) == 0
        else:
            with monkeypatch.context() as patch:
                patch.setattr(sys, "argv", command)
                runpy.run_path(command[0], run_name="__main__")
        return module.Measurement(seconds=len(commands), cpu_seconds=1, peak_gib=1)

    monkeypatch.setattr(module, "measure", measure)
    monkeypatch.setattr(module, "write_room_dataset", write_noise_room)
    return module


def write_noise_room(folder: Path, **others: object) -> RoomDataset:
    """Two images to measure and one, as small as the published scales allow."""
    datasets = {"mapping": ["a.png", "b.png"], "query": ["c.png"]}
    for name, images in datasets.items():
        write_dataset(folder / name, images)
        for seed, image in enumerate(images):
            path = folder / name / "sensors/records_data" / image
            write_noise(path, seed, size=(256, 192))
    places = {name: folder / name for name in datasets}
    return RoomDataset(**places, mapping_images=2, query_images=1)


def models(path: Path) -> list[str]:
    return ["--model", str(path), "--fast-model", str(path)]


def test_every_line_is_a_command_that_extracts(
    benchmark: ModuleType,
    commands: list[list[str]],
    checkpoint_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ways = ["--ways", "published", "preset fast: torch, fp32"]
    benchmark.main([*models(checkpoint_path), "--images", "2", "--repeats", "1", *ways])
    lines = [line for line in capsys.readouterr().out.splitlines() if "GiB" in line]
    assert [line.partition("  ")[0] for line in lines] == [
        "published way",
        "Fast-R2D2, preset fast: torch, fp32",
    ]
    assert len(commands) == 2 * len(lines)
    assert commands[0][-1].endswith("mapping") and commands[1][-1].endswith("query")


def test_a_limit_binds_all_commands_and_is_said(
    benchmark: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    limits = []

    def measure(command: list[str]) -> object:
        limits.append({os.environ[name] for name in benchmark.LIMITS["avx2"]})
        return benchmark.Measurement(seconds=len(limits), cpu_seconds=1, peak_gib=1)

    monkeypatch.setattr(benchmark, "measure", measure)
    benchmark.main(["--isa", "avx2", "--ways", "torch, fp32"])
    assert len(limits) == 3 * 6 and set.union(*limits) == {"avx2", "AVX2"}
    out = capsys.readouterr().out
    assert "kept to ATEN_CPU_CAPABILITY=avx2" in out and "torch 2" in out


@pytest.mark.parametrize("processor", PROCESSORS)
@pytest.mark.parametrize("bound", [True, False])
def test_lines_are_what_the_processor_and_its_limit_allow(
    benchmark: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    processor: str,
    bound: bool,
) -> None:
    monkeypatch.setattr(benchmark, "this_processor", lambda: PROCESSORS[processor])
    monkeypatch.setattr("measure.find_spec", lambda package: package)
    names = [way.name for way in benchmark.all_ways("a", "b", bound=bound)]
    found = {name.partition(": ")[2] for name in names[1:]}
    expected = {"torch, fp32", "openvino, fp32", "openvino, int8"}
    if PROCESSORS[processor].has_bf16:
        expected.add("torch, bf16")
    if not bound:  # onnxruntime knows no limit
        expected |= {"onnxruntime, fp32", "onnxruntime, int8"}
    assert names[0] == "published way" and found == expected
    assert len(names) == 1 + 3 * len(expected)
