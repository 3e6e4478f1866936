"""Handling of unexpected errors of a command."""

from __future__ import annotations

import os
import platform
import shlex
import sys
import tempfile
import traceback
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from r2d2_kapture.config.extract import EXTRACTORS
from r2d2_kapture.config.match import MATCHERS
from r2d2_kapture.errors import OutputError
from r2d2_kapture.io.outputs.atomic import write_text_atomic
from r2d2_kapture.io.outputs.manifest import package_versions

OWN = "r2d2_kapture"
LONGEST = 300
"""Greatest length of a message on the terminal; the log has all of it."""


def describe_defect(error: Exception, arguments: Sequence[str]) -> str:
    """Write a log of an unexpected error, and return a line with its location.

    The log goes to ``$XDG_STATE_HOME/r2d2_kapture`` (``~/.local/state/r2d2_kapture``),
    or to the folder of temporary files if that cannot be written.

    Args:
        error: the exception.
        arguments: of the command line, without the command.
    """
    kind = type(error).__name__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # a message from a worker process ends in the error itself
    message = f"{kind}: {lines[-1]}"[:LONGEST] if lines else kind
    try:
        log = f"report it with {_write_log(error, arguments)}"
    except (OutputError, OSError) as failure:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        log = (
            f"report it: it was raised in line {frame.lineno} of {frame.filename}, and "
            f"no log could be written ({failure})"
        )
    others = _package_that_raised(error)
    whose = f"{others}, not of r2d2_kapture or" if others else f"{OWN}, not of"
    return f"this is a defect of {whose} your input: {message}; please {log}"


def _package_that_raised(error: Exception) -> str | None:
    """The third-party package whose matcher or extractor raised, rather than our code;
    libraries that either calls do not count."""
    package = None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        module = str(frame.f_globals.get("__name__"))
        if module.partition(".")[0] == OWN:
            package = None
        else:
            found = (door.package_of(module) for door in (EXTRACTORS, MATCHERS))
            package = next(filter(None, found), package)
    return package


def _write_log(error: Exception, arguments: Sequence[str]) -> Path:
    now = datetime.now()
    versions = [f"{name} {version}" for name, version in package_versions().items()]
    text = "\n".join(
        [
            f"time: {now.isoformat(timespec='seconds')}",
            f"command: {shlex.join([sys.argv[0], *arguments])}",
            f"folder: {os.getcwd()}",
            f"machine: {platform.platform()}",
            f"versions: {', '.join(versions)}",
            "",
            *traceback.format_exception(error),
        ]
    )
    name = f"defect-{now:%Y%m%d-%H%M%S}-{os.getpid()}.log"
    path = _state_folder() / name
    try:
        write_text_atomic(path, text)
    except OutputError:
        path = Path(tempfile.gettempdir()) / f"r2d2_kapture-{name}"
        write_text_atomic(path, text)
    return path


def _state_folder() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(os.path.expanduser(state)) / "r2d2_kapture"
