"""Picture of what scale.py measured, on logarithmic axes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from scale_results import Results

MARKERS = "osv^D<>Pph*Xd"


def plot(
    results: Results, sizes: Sequence[int], names: Sequence[str], path: Path
) -> None:
    """Draw time and memory over the number of images.

    Args:
        results: of all sizes and stages.
        sizes: numbers of images.
        names: of stages.
        path: of the picture.
    """
    figure = Figure(figsize=(15, 5), layout="constrained")
    panels: dict[str, Callable[[str, int], float | None]] = {
        "CPU time of an item, ms": results.milliseconds,
        "CPU time of a resume with nothing to do, s": results.seconds_again,
        "peak memory, GiB": results.gibibytes,
    }
    axes = figure.subplots(1, len(panels))
    for axis, (title, value) in zip(axes, panels.items(), strict=True):
        for number, name in enumerate(names):
            values = [value(name, images) or math.nan for images in sizes]
            marker = MARKERS[number % len(MARKERS)]
            axis.loglog(sizes, values, f"{marker}-", label=name, alpha=0.8)
        axis.set_title(title)
        axis.set_xlabel("images")
        axis.grid(which="both", alpha=0.3)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper")
    figure.savefig(path, dpi=100)
