"""Stages whose slices are made by workers of Ray."""

from __future__ import annotations

import dataclasses
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import r2d2_kapture
from r2d2_kapture.cli import extract as extract_command
from r2d2_kapture.cli import match as match_command
from r2d2_kapture.config.executor import ExecutorConfig
from r2d2_kapture.config.extract import ExtractConfig
from r2d2_kapture.config.match import MatchConfig
from r2d2_kapture.config.pairs import PairsConfig
from r2d2_kapture.config.pipeline import PipelineConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.errors import (
    ConfigError,
    DatasetError,
    LostWorkersError,
    StoppedRunError,
)
from r2d2_kapture.extractors.registry import build_extractor, load_weights
from r2d2_kapture.io.kapture.pairs import ImagePair, write_pairs
from r2d2_kapture.stages import extract, match, pipeline
from r2d2_kapture.stages.cluster import (
    Executor,
    here,
    open_executor,
    slices_on_ray,
)
from r2d2_kapture.stages.cluster.messages import (
    Ended,
    Event,
    Job,
    Made,
    Place,
    Ready,
    Running,
)
from r2d2_kapture.stages.cluster.pool import RayPool
from r2d2_kapture.stages.cluster.slices_on_ray import RayExecutor
from r2d2_kapture.stages.cluster.worker import StageWorker
from r2d2_kapture.types import Failure, Report
from tests.commands import one_error_line
from tests.scenes.contents import files_below
from tests.scenes.kapture_files import write_features
from tests.scenes.pipeline import PipelineScene
from tests.stages.cluster import toy

pytest.importorskip("ray", reason="needs the package ray")

TWO = ExecutorConfig(executor="ray", ray_workers=2)
QUIET = RunOptions(progress=False)
OF_RUNS = ("report.json", ".finished.json")


@pytest.fixture(scope="module")
def execute() -> Iterator[Executor]:
    """Two workers of a Ray of this machine; none of its processes is left."""
    with RayPool(TWO) as pool:
        yield RayExecutor(pool=pool)
        scratch = str(pool.scratch)
    assert not toy.running(scratch)
    assert not os.path.exists(scratch)


@pytest.fixture
def nothing_starts(monkeypatch: pytest.MonkeyPatch) -> Executor:
    """An executor without a Ray to start."""

    def start(pool: RayPool, gpus: float) -> int:
        raise AssertionError("Ray is started for nothing")

    monkeypatch.setattr(RayPool, "start", start)
    return RayExecutor(pool=RayPool(TWO))


def say(
    execute: Executor,
    output: Path,
    trouble: Mapping[str, str] = {},
    options: RunOptions = QUIET,
    names: tuple[str, ...] = toy.NAMES,
) -> Any:
    return execute(toy.run, names, output=output, trouble=trouble, options=options)


def words(folder: Path) -> dict[str, bytes]:
    """The files of an output that do not tell of the run."""
    return {
        name: content
        for name, content in files_below(folder, (".lock",)).items()
        if not name.endswith(OF_RUNS)
    }


def test_matches_and_features_are_those_of_one_process(
    execute: Executor,
    kapture_root: Path,
    checkpoint_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)  # workers go there too
    rng = np.random.default_rng(0)
    names = [f"image é {i}.jpg" for i in range(5)]
    rows = {name: rng.normal(size=(30, 16)).astype(np.float32) for name in names}
    write_features(tmp_path / "features", rows)
    pairs = [ImagePair(image1=a, image2=b) for a, b in itertools.combinations(names, 2)]
    write_pairs(tmp_path / "pairs.txt", pairs)
    extractor = build_extractor(
        ExtractConfig(gpu=-1), load_weights(model=checkpoint_path)[1]
    )
    for how, output in ((execute, Path("shared")), (call, Path("alone"))):
        matched = how(
            match.run,
            MatchConfig(gpu=-1),
            features=[Path("features")],
            pairs=Path("pairs.txt"),
            output=output,
            options=QUIET,
        )
        extracted = how(
            extract.run,
            extractor,
            kapture_root=kapture_root,
            output=output,
            options=QUIET,
        )
        if how is execute:
            assert matched.details["slices"] == 8
            assert matched.details["workers"] == 2
            assert matched.details["retries"] == 0
            assert str(matched.outputs[0]) == "shared/reconstruction/matches/r2d2"
        assert matched.done == len(pairs)
        assert extracted.done == 5
    made = words(tmp_path / "shared")
    assert len(made) > len(pairs) + 10
    assert made == words(tmp_path / "alone")


def call(run: Any, *args: Any, **kwargs: Any) -> Any:
    return run(*args, **kwargs)


def test_a_pipeline_makes_the_same_map_and_poses(
    execute: Executor, tmp_path: Path
) -> None:
    scene = PipelineScene(tmp_path)
    pairing = PairsConfig(method="exhaustive")
    output, made = tmp_path / "work", []  # manifests name their inputs
    for how in (execute, here):
        report = pipeline.run(
            PipelineConfig(
                query_pairs=pairing, mapping_pairs=pairing, match=MatchConfig(gpu=-1)
            ),
            mapping=scene.mapping,
            queries={"queries": scene.query},
            features=[scene.features],
            output=output,
            execute=how,
            options=QUIET,
        )
        assert not report.failed
        if how is execute:
            shared = {one.stage: one.details.get("workers") for one in report.stages}
            assert shared["verify"] == shared["refine"] == 2
            assert shared["map"] is None
        made.append(words(output))
        shutil.rmtree(output)
    assert made[0] == made[1] and len(made[0]) > 100


def test_a_killed_worker_is_replaced(execute: Executor, tmp_path: Path) -> None:
    output = tmp_path / "words"
    report = say(execute, output, {"word7": "killed"})
    assert (tmp_path / "word7 killed").exists()
    assert report.details["retries"] == 1
    assert report.details["workers"] <= 2
    assert report.done + report.skipped == 20 and not report.failed
    say(call, tmp_path / "alone")
    assert words(output) == words(tmp_path / "alone")


def test_an_item_that_fails_is_a_failure(execute: Executor, tmp_path: Path) -> None:
    report = say(execute, tmp_path / "words", {"word3": "failed"})
    assert [failure.name for failure in report.failed] == ["word3"]
    assert report.done == 19
    assert len(words(tmp_path / "words")) == 20  # and the manifest


def test_a_finished_run_starts_nothing(
    nothing_starts: Executor, tmp_path: Path
) -> None:
    output = tmp_path / "words"
    say(call, output)
    made = words(output)
    assert say(nothing_starts, output).skipped == 20
    (output / "word3.word").unlink()
    assert say(nothing_starts, output).done == 1
    assert words(output) == made
    assert not list(tmp_path.glob(".*"))


def test_a_lost_head_ends_the_run_and_the_next_one_resumes(
    execute: Executor, tmp_path: Path
) -> None:
    output = tmp_path / "words"
    with pytest.raises(LostWorkersError, match="^--address local: lost Ray: .*; "):
        say(execute, output, {"word19": "head killed"})
    assert not words(output)
    finished = stamps(tmp_path)
    assert finished
    report = say(execute, output, {"word19": "head killed"})
    assert report.details["slices"] == 8
    assert report.done + report.skipped == 20
    say(call, tmp_path / "alone")
    assert words(output) == words(tmp_path / "alone")


RUN = """
import sys
from pathlib import Path
from tests.stages.cluster import test_ray as ray
with ray.RayPool(ray.TWO) as pool:
    ray.say(ray.RayExecutor(pool=pool), Path(sys.argv[1]), {"word0": "slow"})
"""


def test_a_killed_run_leaves_no_process_and_no_folder(tmp_path: Path) -> None:
    output = tmp_path / "words"
    with tempfile.TemporaryDirectory(prefix="r2d2-killed-", dir="/tmp") as folder:
        run = subprocess.Popen(
            [sys.executable, "-c", RUN, str(output)],
            env=os.environ | {"TMPDIR": folder},
        )
        try:
            wait_until((tmp_path / "word0 slow").exists, 120)
            (scratch,) = Path(folder).glob("r2d2-ray-*")
            assert toy.running(str(scratch))
        finally:
            run.kill()
            run.wait()
        wait_until(lambda: not toy.running(str(scratch)), 30)
        wait_until(lambda: not list(Path(folder).glob("r2d2-ray-*")), 10)


def wait_until(holds: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def stamps(folder: Path) -> dict[Path, int]:
    """When the reports of finished slices were written."""
    made = folder.glob(".words.slices/*-of-*.json")
    return {path: path.stat().st_mtime_ns for path in made}


class PoolInProcess(RayPool):
    """A worker without Ray: that of this process.

    Attributes:
        parts: that it was given.
    """

    def __init__(self) -> None:
        super().__init__(TWO)
        self.parts: list[str] = []

    def start(self, gpus: float) -> int:
        return 2

    def work(self, job: Job) -> Generator[Event, None, None]:
        worker = StageWorker()
        assert not worker.look(job.place)[0]
        for part in job.parts:
            self.parts.append(str(part))
            outcome = worker.run(job.key, job.task, str(part), 1)
            yield Running(done={part: worker.done()})
            yield Made(part=part, outcome=outcome)
        yield Ended(workers=1, retries=0)


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> RayExecutor:
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    return RayExecutor(pool=PoolInProcess())


def test_a_strict_run_stops_and_goes_on(
    in_process: RayExecutor, tmp_path: Path
) -> None:
    output = tmp_path / "words"
    strict = dataclasses.replace(QUIET, strict=True)
    report = say(in_process, output, {"word6": "failed"}, strict)
    assert [failure.name for failure in report.failed] == ["word6"]
    assert report.done == 6 and not report.outputs
    finished = stamps(tmp_path)
    assert len(finished) == 2
    in_process.pool.parts.clear()
    with pytest.raises(DatasetError, match="^words: found trouble, expected none"):
        say(in_process, output, {"word19": "refused"})
    assert in_process.pool.parts == [f"{number}/8" for number in range(3, 9)]
    assert finished.items() <= stamps(tmp_path).items()
    in_process.pool.parts.clear()
    report = say(in_process, output)
    assert in_process.pool.parts == ["8/8"]
    assert report.done + report.skipped == 20
    say(call, tmp_path / "alone")
    assert words(output) == words(tmp_path / "alone")


def test_a_strict_run_of_a_command_ends_with_exit_code_1(
    kapture_root: Path,
    checkpoint_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(slices_on_ray, "FEW", 6)  # that this process makes
    images = kapture_root / "sensors" / "records_data"
    broken = next(path for path in sorted(images.rglob("*")) if path.is_file())
    broken.write_bytes(b"no image")
    flags = [f"--kapture-root={kapture_root}", f"--model={checkpoint_path}", "--gpu=-1"]
    strict = [*flags, "--executor=ray", "--strict", "--quiet"]
    assert extract_command.main(strict) == 1
    said = capsys.readouterr().out
    assert f"failed: {broken.relative_to(images)}" in said
    assert "finished slices are kept" in said


def test_a_strict_pipeline_ends_with_the_stage_that_stopped(tmp_path: Path) -> None:
    scene = PipelineScene(tmp_path)
    failed = Failure(name="one.jpg and two.jpg", reason="as planned")

    def stopped(run: Any, *args: Any, **kwargs: Any) -> Report:
        return Report(
            stage="match",
            unit="pair",
            done=0,
            skipped=0,
            failed=(failed,),
            seconds=1.0,
            outputs=(),
        )

    with pytest.raises(StoppedRunError, match="^match: stopped at 'one.jpg and two.j"):
        pipeline.run(
            PipelineConfig(mapping_pairs=PairsConfig(), match=MatchConfig(gpu=-1)),
            mapping=scene.mapping,
            queries={},
            features=[scene.features],
            output=tmp_path / "work",
            execute=stopped,
            options=dataclasses.replace(QUIET, strict=True),
        )


def test_a_defect_of_a_worker_is_one_of_the_run(
    in_process: RayExecutor, tmp_path: Path
) -> None:
    with pytest.raises(RuntimeError, match="ZeroDivisionError: as planned"):
        say(in_process, tmp_path / "words", {"word3": "defect"})


def test_slices_of_a_run_by_hand_keep_their_number(
    in_process: RayExecutor, tmp_path: Path
) -> None:
    output = tmp_path / "words"
    inputs: Any = {"output": output, "trouble": {}, "options": QUIET}
    toy.run(toy.NAMES, **inputs, slice="2/3")
    assert say(in_process, output).details["slices"] == 3
    assert in_process.pool.parts == ["1/3", "3/3"]
    forced = dataclasses.replace(QUIET, force=True)
    in_process.pool.parts.clear()
    assert say(in_process, output, {}, forced).done == 20
    assert len(in_process.pool.parts) == 8


def test_one_bar_shows_all_items(
    in_process: RayExecutor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = dataclasses.replace(QUIET, progress=True)
    name = toy.__name__.split(".")[2]  # of the package of stages
    say(in_process, tmp_path / "words", {}, shown)
    bars = [bar for bar in capsys.readouterr().err.split("\r") if bar.strip()]
    assert bars[0].startswith(f"{name}:   0%") and "0/20 " in bars[0]
    assert "20/20 " in bars[-1]
    assert all("/20 " in bar for bar in bars)


def test_workers_say_what_they_lack(tmp_path: Path) -> None:
    version, there = r2d2_kapture.__version__, str(tmp_path)
    worker = StageWorker()
    old = Place(version="0.0.1", folder=there, witness=there)
    assert f"found r2d2_kapture {version} on " in worker.look(old)[0]
    away = Place(version=version, folder=f"{there}/away", witness=there)
    assert worker.look(away)[0].startswith(f"found no {there}/away on ")


def test_workers_fit_the_machines() -> None:
    ready = Ready(machines=[(8.0, 2.0), (3.0, 0.0)])
    assert ready.room(1, 0.0) == 11
    assert ready.room(2, 0.0) == 5
    assert ready.room(1, 0.5) == 4
    assert ready.room(4, 0.5) == 2


MATCH = "--features features --pairs pairs.txt --output matches --gpu -1"


@pytest.mark.parametrize(
    "flags, said",
    [
        ("--executor ray --slice 1/2", "--slice 1/2: found --executor ray"),
        ("--ray-workers 2", "--ray-workers 2: found --executor process"),
        ("--executor ray --ray-workers 0", "--ray-workers: found 0, expected 1"),
        ("--executor ray --gpus-per-worker 1.5", "--gpus-per-worker: found 1.5"),
        ("--executor ray --address localhost:65536", "--address: found 'localhost:"),
        ("--executor dask", "--executor dask: expected process or ray"),
        ("--executor ray --address a/b", "--address: found 'a/b', expected"),
    ],
)
def test_wrong_flags_are_said_in_one_line(
    flags: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "features").mkdir()
    (tmp_path / "pairs.txt").touch()
    with pytest.raises(SystemExit) if "dask" in flags else nullcontext():
        assert match_command.main([*MATCH.split(), *flags.split()]) == 2
    assert one_error_line(capsys).startswith(f"error: {said}")


def test_wrong_input_is_said_as_without_ray(
    nothing_starts: Executor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "features").mkdir()
    (tmp_path / "pairs.txt").touch()
    lines = set()
    for flags in ("", "--executor ray"):
        assert match_command.main([*MATCH.split(), *flags.split()]) == 2
        lines.add(one_error_line(capsys))
    assert len(lines) == 1
    assert not list(tmp_path.glob("matches*"))


def test_features_of_other_devices_are_refused(
    kapture_root: Path, checkpoint_path: Path, tmp_path: Path
) -> None:
    weights = load_weights(model=checkpoint_path)[1]
    with pytest.raises(ConfigError, match="^--gpus-per-worker 0.5: found an extractor"):
        with open_executor(dataclasses.replace(TWO, gpus_per_worker=0.5)) as execute:
            execute(
                extract.run,
                build_extractor(ExtractConfig(gpu=-1), weights),
                kapture_root=kapture_root,
                output=tmp_path / "features",
                options=QUIET,
            )
    assert not (tmp_path / "features").exists()


def test_an_address_without_ray_is_said_in_one_line(
    tmp_path: Path,
) -> None:
    nowhere = ExecutorConfig(executor="ray", address="127.0.0.1:1")
    with open_executor(nowhere) as execute:
        with pytest.raises(ConfigError, match="^--address 127.0.0.1:1: found no Ray"):
            say(execute, tmp_path / "words")
    assert not list(tmp_path.iterdir())


def test_without_the_extra_the_way_out_is_said(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "features").mkdir()
    (tmp_path / "pairs.txt").touch()
    assert match_command.main([*MATCH.split(), "--executor", "ray"]) == 2
    line = one_error_line(capsys)
    assert line.startswith("error: --executor ray: needs the package ray")
    assert line.endswith("pip install 'r2d2-kapture[ray]'")
