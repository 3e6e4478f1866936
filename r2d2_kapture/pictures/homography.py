"""The accuracy curves of the evaluation on homography sequences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from r2d2_kapture.pictures.figures import new_figure

PANEL_INCHES = 4.5
LEGEND_ROW_INCHES = 0.24
LEGEND_LETTERS_PER_INCH = 15
LEGEND_HANDLE_LETTERS = 6
MAX_THRESHOLD = 10
MARKERS = "os^Dv<>pP*"


@dataclass(frozen=True, kw_only=True)
class AccuracyCurves:
    """Mean matching accuracy of one method.

    Attributes:
        label: in the legend.
        published: third-party results, drawn dashed.
        curves: panel name -> accuracy at each threshold in pixels.
    """

    label: str
    published: bool
    curves: Mapping[str, Mapping[float, float]]


def accuracy_figure(
    methods: Sequence[AccuracyCurves],
    panels: Sequence[str],
    *,
    unit: str = "px",
    accuracy: str = "mean matching accuracy",
) -> Figure:
    """Accuracy at thresholds 1 to 10, with a panel for each group.

    The figure of D2-Net (Dusmanu et al., CVPR 2019) on HPatches.

    Args:
        methods: at least one; a panel omits those without a curve for it.
        panels: names of the groups.
        unit: of the thresholds.
        accuracy: label of the vertical axis.
    """
    longest = max(len(method.label) for method in methods) + LEGEND_HANDLE_LETTERS
    fitting = int(PANEL_INCHES * len(panels) * LEGEND_LETTERS_PER_INCH / longest)
    columns = max(1, min(fitting, len(methods)))
    rows = -(-len(methods) // columns)
    figure = new_figure(
        PANEL_INCHES * len(panels), PANEL_INCHES + LEGEND_ROW_INCHES * (rows + 0.5)
    )
    all_axes: list[Axes] = list(
        figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    )
    colors = matplotlib.colormaps["tab10"].colors  # type: ignore[attr-defined]
    for axes, panel in zip(all_axes, panels):
        for i, method in enumerate(methods):
            curve = {
                t: v
                for t, v in sorted(method.curves.get(panel, {}).items())
                if t <= MAX_THRESHOLD
            }
            axes.plot(
                list(curve.keys()),
                list(curve.values()),
                linestyle="--" if method.published else "-",
                marker=MARKERS[i % len(MARKERS)],
                markersize=3.5,
                linewidth=1.2 if method.published else 1.8,
                color=colors[i % len(colors)],
            )
        _style_panel(axes, panel, any(panel in method.curves for method in methods))
        axes.set_xlabel(f"threshold [{unit}]")
    all_axes[0].set_ylabel(accuracy)
    legend = figure.legend(
        all_axes[0].get_lines(),
        [method.label for method in methods],
        loc="outside lower center",
        ncols=columns,
        fontsize=8.5,
        frameon=False,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def _style_panel(axes: Axes, title: str, has_curves: bool) -> None:
    axes.set_title(title.capitalize(), fontsize=11)
    axes.set_xlim(0.7, MAX_THRESHOLD + 0.3)
    axes.set_ylim(0, 1)
    axes.xaxis.set_major_locator(MultipleLocator(1))
    axes.yaxis.set_major_locator(MultipleLocator(0.1))
    axes.grid(linewidth=0.4, alpha=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    if not has_curves:
        axes.text(
            0.5,
            0.5,
            "no such pairs",
            transform=axes.transAxes,
            ha="center",
            color="grey",
        )
