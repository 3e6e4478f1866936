"""What commands print, and processes that tests start, to be stopped in the middle."""

from __future__ import annotations

import configparser
import re
import signal
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]


def command_modules() -> dict[str, str]:
    """The module of each command, as setup.cfg installs it, by what follows
    kapture_r2d2_."""
    setup = configparser.ConfigParser()
    setup.read(CHECKOUT / "setup.cfg", encoding="utf-8")
    scripts = setup["options.entry_points"]["console_scripts"].strip().split("\n")
    pairs = (line.replace("entry:", "").split(" = ") for line in scripts)
    return {name.removeprefix("kapture_r2d2_"): module for name, module in pairs}


def one_error_line(capsys: pytest.CaptureFixture[str]) -> str:
    """All that was written to stderr: one line, which says what is wrong."""
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    return line


def work_in(output: str, stage: str) -> str:
    """The first line of a stage's last report, without its name and time.

    Numbers of keypoints and matches are written N.
    """
    *_, work = re.findall(rf"^{stage}: (.*) \(\d[^()]*\)$", output, re.MULTILINE)
    return re.sub(r"\d+ (keypoints|matches)\b", r"N \1", work)


def listen_to_ctrl_c() -> None:
    """Before a process begins: undo that a shell's background jobs ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
