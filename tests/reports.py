"""What the report of a command says of its work."""

from __future__ import annotations

import re


def work_in(output: str, stage: str) -> str:
    """The first line of a stage's last report, without its name and time.

    Numbers of keypoints and matches are written N.
    """
    *_, work = re.findall(rf"^{stage}: (.*) \(\d[^()]*\)$", output, re.MULTILINE)
    return re.sub(r"\d+ (keypoints|matches)\b", r"N \1", work)
