"""kapture_r2d2_train as a user types it: one-line errors, signals, kills, torchrun."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from r2d2_kapture.cli.train import main as train
from r2d2_kapture.config.extract import DEFAULT_MODEL
from r2d2_kapture.config.train import TrainConfig
from r2d2_kapture.models.checkpoints import load_checkpoint
from tests.commands import one_error_line, work_in
from tests.scenes.images import textured_image
from tests.scenes.networks import torch_threads

TINY = (
    "--architecture fast_r2d2 --width 1 --descriptor-dim 16 --batch-size 2 "
    "--crop-size 64 --min-side 64 --patch-size 8 --border 8 --average-decay 0.9 "
    "--validate-every 0 --log-every 1 --gpu -1"
).split()
D2NET = "--architecture d2net --patch-size 16 --border 16".split()
"""What undoes the settings above that are of R2D2."""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "my photos, été"
    folder.mkdir()
    for number in range(3):
        pixels = textured_image(100, 120, seed=number)
        Image.fromarray(np.asarray(pixels)).save(folder / f"{number}.png")
    return folder


def flags(photos: Path, run: Path, *more: str) -> list[str]:
    return [*TINY, "--images", str(photos), "--output", str(run), *more]


def start(arguments: list[str], *launcher: str) -> subprocess.Popen[str]:
    launcher = launcher or (sys.executable, "-m")
    return subprocess.Popen(
        [*launcher, "r2d2_kapture.cli.train", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def wait_for_rows(run: Path, count: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        path = run / "log.csv"
        if path.exists() and path.read_text().count("\n") > count:
            return
        time.sleep(0.01)


def weights(run: Path) -> dict[str, torch.Tensor]:
    network = load_checkpoint(run / "model.safetensors").network
    return dict(network.state_dict())


def test_train_then_train_on(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert train(flags(photos, run, "--steps", "2", "--workers", "0")) == 0
    assert work_in(capsys.readouterr().out, "train") == "2 steps"
    assert train(flags(photos, run, "--steps", "3", "--workers", "0")) == 0
    assert work_in(capsys.readouterr().out, "train") == "1 step, 2 already done"
    # the settings that were saved are a config
    again = ["--config", str(run / "train_config.yaml"), "--images", str(photos)]
    assert train([*again, "--output", str(run)]) == 0
    assert work_in(capsys.readouterr().out, "train") == "3 steps, already done"


def test_weights_to_begin_with_are_listed_with_commas(
    photos: Path, tmp_path: Path
) -> None:
    once = ["--steps", "1", "--workers", "0"]
    first, second = tmp_path / "first, and best", tmp_path / "second"
    assert train(flags(photos, first, *once)) == 0
    start = f"{first}/model.safetensors"
    assert train(flags(photos, second, *once, "--start-from", start)) == 0
    start = f"{second}/model.safetensors,{second}/best.safetensors"
    assert train(flags(photos, tmp_path / "missing", *once, "--start-from", start)) == 2
    start = start.replace("best", "model")
    assert train(flags(photos, tmp_path / "mean", *once, "--start-from", start)) == 0


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_resumes_to_the_weights_of_the_unbroken_one(
    photos: Path, tmp_path: Path, how: signal.Signals
) -> None:
    run = tmp_path / "run"
    long = flags(photos, run, "--steps", "100000", "--save-every", "2")
    process = start([*long, "--workers", "1"])
    wait_for_rows(run, 5, process)
    # as Ctrl-C and timeout do: to the processes that make pairs, too
    os.killpg(process.pid, how)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert errors.strip() == "interrupted; run the same command again to resume"
    step = torch.load(run / "state.pt", weights_only=True)["step"]
    assert step >= 4
    with torch_threads(1):  # as the process that was stopped: sums round alike
        for folder in (run, tmp_path / "unbroken"):
            total = str(step + 2)
            assert train(flags(photos, folder, "--steps", total, "--workers", "0")) == 0
    unbroken = weights(tmp_path / "unbroken")
    for name, tensor in weights(run).items():
        assert torch.equal(tensor, unbroken[name]), name
    rows = (run / "log.csv").read_text().splitlines()[1:]
    assert [int(row.split(",")[0]) for row in rows] == list(range(1, step + 3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--output", "{run}"],
            "no source of pairs given, expected one or more of --images",
        ),
        (["--images", "{photos}"], "--output: missing"),
        (
            ["--images", "/nowhere", "--output", "{run}"],
            "/nowhere: found no such file or folder",
        ),
        (["{ok}", "--architecture", "d3"], "unknown architecture 'd3', expected one"),
        (["{ok}", "--learning-rate", "0"], "--learning-rate: found 0"),
        (["{ok}", "--batch-size", "0"], "--batch-size: found 0"),
        (["{ok}", "--workers", "-1"], "--workers: found -1"),
        (["{ok}", "--gpu", "99"], "CUDA devices"),
        (["{ok}", "--crop-size", "2000", "--min-side", "2000"], "--max-side"),
        (["{ok}", "--crop-size", "200", "--min-side", "200"], "smaller than 200"),
        (["{ok}", "--start-from", "/no.pt"], "--start-from /no.pt: found no such"),
        (["{ok}", "--start-from", "a.pt,"], "found an empty name between commas"),
        (["{ok}", "--start-from", "x.pt, " * 999 + "y.pt"], "--start-from x.pt: found"),
        (
            ["{ok}", "--start-from", f"{DEFAULT_MODEL},/no.pt"],
            "--start-from /no.pt: found no",
        ),
        (["{ok}", "--validation", "/nowhere"], "/nowhere"),
        (["{ok}", "--config", "no_preset"], "presets: d2net, fast_r2d2"),
        ([*D2NET, "{ok}"], "--start-from: missing"),
        ([*D2NET, "{ok}", "--crop-size", "48"], "11 x 11 = 121 cells"),
        (
            [*D2NET, "{ok}", "--safe-radius", "14", "--least-correspondences", "9"],
            "--safe-radius 14: found crops of 15 x 15 cells",
        ),
        ([*D2NET, "{ok}", "--trained-layers", "11"], "found 11, expected 0 to 10"),
        (
            [*D2NET, "{ok}", "--weight-peaky", "5", "--plain-ap-weight", "3"],
            "--plain-ap-weight, --weight-peaky: found for --architecture d2net",
        ),
        (
            ["{ok}", "--margin", "7", "--trained-layers", "2"],
            "--margin, --trained-layers: found for --architecture fast_r2d2",
        ),
        (["{ok}", "--gradient-clip", ".inf"], "--gradient-clip: found inf"),
        (["{ok}", "--margin", "0"], "--margin: found 0"),
        (["{ok}", "--megadepth", "{photos}"], "--megadepth and --train-scenes"),
        (["{ok}", "--validation-scenes", "x.txt"], "found no --megadepth"),
        (["{ok}", "--validation-dataset", "/nowhere"], "/nowhere"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    photos: Path,
    tmp_path: Path,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    ok = ["--images", str(photos), "--output", str(run), "--steps", "1"]
    typed = [a.format(run=run, photos=photos, ok="{ok}") for a in arguments]
    typed = [b for a in typed for b in (ok if a == "{ok}" else [a])]
    assert train([*TINY, *typed]) == 2
    assert message in one_error_line(capsys)
    assert not (run / "state.pt").exists()


def test_every_preset_names_settings_that_exist() -> None:
    presets = sorted(Path("configs/train").glob("*.yaml"))
    assert {path.stem for path in presets} >= {"r2d2", "fast_r2d2", "fast_r2d2_taught"}
    known = TrainConfig().to_flat()
    for path in presets:
        lines = path.read_text().splitlines()
        names = [line.split(":")[0] for line in lines if not line.startswith("#")]
        assert set(names) <= known.keys()
        assert f"architecture: {path.stem.removesuffix('_taught')}" in lines


def test_no_two_settings_share_a_name() -> None:
    import dataclasses

    config = TrainConfig()
    parts = [getattr(config, field.name) for field in dataclasses.fields(config)]
    names = [field.name for part in parts for field in dataclasses.fields(part)]
    assert len(names) == len(set(names)) == len(config.to_flat())


@pytest.mark.slow
def test_torchrun_trains_with_two_processes(photos: Path, tmp_path: Path) -> None:
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone")
    command = flags(photos, tmp_path / "run", "--steps", "3", "--workers", "0")
    process = start(command, *launcher, "--nproc-per-node", "2", "-m")
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert work_in(out, "train") == "3 steps" and out.count("train: ") == 1
    assert "3 steps of 4 pairs" in out
    assert len((tmp_path / "run" / "log.csv").read_text().splitlines()) == 4
    weights(tmp_path / "run")
