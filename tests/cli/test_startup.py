"""The first second of a command: what it loads to answer, and Ctrl-C while it does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.commands import command_modules, listen_to_ctrl_c

CHECKOUT = Path(__file__).parents[2]
HEAVY = (
    "torch scipy numba sklearn matplotlib pycolmap kapture quaternion h5py tqdm "
    "safetensors tensorboard"
).split()
ANSWERS = """
import importlib, io, sys
from contextlib import redirect_stderr, redirect_stdout
heavy, commands = sys.argv[1].split(), sys.argv[2].split()
for name in commands:
    module = importlib.import_module(name)
    for line in "--help", "--help all", "--version", "--no-such", "--config":
        typed = line.split()
        try:
            with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
                code = module.main(typed)
        except SystemExit as end:
            code = end.code
        loaded = [package for package in heavy if package in sys.modules]
        right = code == (2 if typed[0] in ("--no-such", "--config") else 0)
        if loaded or not right:
            sys.exit(f"{name} {typed}: code {code}, loaded {loaded}")
"""


def command_names() -> list[str]:
    """Modules of the commands, and of the recipes."""
    recipes = sorted(path.stem for path in CHECKOUT.glob("pipelines/[!_]*.py"))
    return [
        *command_modules().values(),
        *(f"pipelines.{recipe}" for recipe in recipes),
    ]


def test_help_version_and_usage_errors_load_nothing_heavy() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ANSWERS, " ".join(HEAVY), " ".join(command_names())],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


SLOW_PACKAGE = """
import pathlib, time
pathlib.Path({started!r}).touch()
try:
    time.sleep(60)
except BaseException as error:
    raise ImportError("swallowed") from error
"""


@pytest.mark.parametrize("package", ["jsonargparse", "torch"])
def test_ctrl_c_during_imports_is_one_line(package: str, tmp_path: Path) -> None:
    started = tmp_path / "started"
    (tmp_path / f"{package}.py").write_text(SLOW_PACKAGE.format(started=str(started)))
    process = subprocess.Popen(
        [sys.executable, CHECKOUT / "bin/kapture_r2d2_extract", "--kapture-root", "."],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=listen_to_ctrl_c,
    )
    while not started.exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert error == "interrupted; run the same command again to resume\n"
    assert process.returncode == 130
