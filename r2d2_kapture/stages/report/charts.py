"""Charts for plotly's script: plain values, and only the colours of the data.

Fonts, grid and paper are set by ``charts.js``, which follows the light or dark page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from r2d2_kapture.stages.report.page import Figure, encoded, label

Array = npt.NDArray[Any]

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Distinguishable for colour-blind readers (Okabe and Ito 2008)."""
HISTOGRAM_BINS = 40
TAIL = 99.0
"""Percentile from which a histogram collects values in its last bin."""
CURVE_POINTS = 400
COUNT_TICKS = {"tickformat": ","}
"""Thousands separators."""
HEAT_COLORS = ("#eef3f8", "#9ecae1", "#4292c6", "#08519c", "#08306b")


def lines(
    curves: Mapping[str, tuple[Sequence[float] | Array, Sequence[float] | Array]],
    *,
    x_title: str,
    y_title: str,
    steps: bool = False,
    logarithmic: bool = False,
    y_range: tuple[float, float] | None = None,
    marks: Sequence[float] = (),
) -> Figure:
    """Curves by name.

    Args:
        curves: name -> x and y.
        x_title, y_title: with units.
        steps: y holds until the next x.
        logarithmic: the x axis is.
        y_range: of the y axis; None takes that of the data.
        marks: values of x with a dotted line.
    """
    data = [
        {
            "type": "scatter",
            "mode": "lines+markers" if len(x) <= 12 and not steps else "lines",
            "name": label(name),
            "x": encoded(np.asarray(x, np.float32)),
            "y": encoded(np.asarray(y, np.float32)),
            "line": {
                "color": COLORS[number % len(COLORS)],
                "shape": "hv" if steps else "linear",
                "width": 2,
                "dash": ("solid", "dash", "dot")[number // len(COLORS) % 3],
            },
            "hovertemplate": "%{x:.3g}: %{y:.4g}<extra>%{fullData.name}</extra>",
        }
        for number, (name, (x, y)) in enumerate(curves.items())
    ]
    x_axis: dict[str, Any] = {"title": {"text": x_title}}
    if logarithmic:
        x_axis |= {"type": "log", "dtick": 1, "exponentformat": "none"}
    y_axis: dict[str, Any] = {"title": {"text": y_title}}
    if y_range is not None:
        y_axis["range"] = list(y_range)
    shapes = [
        {
            "type": "line",
            **{"x0": mark, "x1": mark, "y0": 0, "y1": 1, "yref": "paper"},
            "line": {"dash": "dot", "width": 1, "color": "#888888"},
        }
        for mark in marks
    ]
    layout = {
        "xaxis": x_axis,
        "yaxis": y_axis,
        "shapes": shapes,
        "showlegend": len(curves) > 1,
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom"},
    }
    return {"data": data, "layout": layout}


def cumulative(
    errors: Mapping[str, Array],
    *,
    x_title: str,
    of: str,
    marks: Sequence[float] = (),
) -> Figure:
    """Share of values within x, on a logarithmic axis.

    Args:
        errors: by name (N,) values, infinite if missing: a curve ends at the share of
            finite values.
        x_title: with the unit.
        of: the noun of the counted items, in the plural.
        marks: thresholds to mark.
    """
    finite = np.concatenate([values[np.isfinite(values)] for values in errors.values()])
    positive = finite[finite > 0]
    high = 1.5 * max(positive.max(initial=1e-3), *marks, 1e-3)
    low = max(positive.min(initial=high) / 1.5, high / 1e5)
    curves = {
        f"{name} ({np.isfinite(values).sum()} of {len(values)})": _steps(
            values, low, high
        )
        for name, values in errors.items()
    }
    figure = lines(
        curves,
        x_title=x_title,
        y_title=f"{of} within the error (%)",
        steps=True,
        logarithmic=True,
        y_range=(0, 101),
        marks=[mark for mark in marks if low <= mark <= high],
    )
    figure["layout"]["showlegend"] = True
    return figure


def _steps(values: Array, low: float, high: float) -> tuple[Array, Array]:
    found = np.sort(values[np.isfinite(values)]).clip(min=low)
    share = 100 * np.arange(1, len(found) + 1) / max(len(values), 1)
    kept = np.unique(np.linspace(0, len(found) - 1, CURVE_POINTS).astype(int))
    kept = kept[kept >= 0] if len(found) else kept[:0]
    end = share[-1] if len(found) else 0.0
    return (
        np.concatenate([[low], found[kept], [high]]),
        np.concatenate([[0.0], share[kept], [end]]),
    )


def histogram(values: Array, *, x_title: str, y_title: str) -> Figure:
    """Histogram of values; the last bar collects the tail beyond a percentile.

    Args:
        values: (N,) finite, at least one; whole numbers get a bar each.
        x_title: with the unit.
        y_title: what is counted.
    """
    whole = np.issubdtype(values.dtype, np.integer)
    low, high = values.min(), np.percentile(values, TAIL)
    if whole:
        last = max(int(np.ceil(high)), int(low) + 1)
        step = max(1, -(-(last - int(low) + 1) // HISTOGRAM_BINS))
        edges = np.arange(low, last + step + 1, step) - 0.5
    else:
        edges = np.linspace(min(0.0, low), high or 1.0, HISTOGRAM_BINS + 1)
    beyond = int((values >= edges[-1]).sum()) if values.max() > edges[-1] else 0
    counts, _ = np.histogram(values.clip(max=edges[-1]), edges)
    places = (edges[:-1] + edges[1:]) / 2
    shown = [f"{a + 0.5:g} to {b - 0.5:g}" for a, b in zip(edges, edges[1:])]
    if whole and edges[1] - edges[0] == 1:
        shown = [f"{place:g}" for place in places]
    elif not whole:
        shown = [f"{a:.3g} to {b:.3g}" for a, b in zip(edges, edges[1:])]
    if beyond:
        shown[-1] = f"{shown[-1].partition(' ')[0]} and more"
    bar = {
        "type": "bar",
        "x": encoded(places.astype(np.float32)),
        "y": encoded(counts.astype(np.int32)),
        "customdata": shown,
        "hovertemplate": "%{customdata}: %{y:,}<extra></extra>",
        "marker": {"color": COLORS[0]},
    }
    layout = {
        "bargap": 0.05,
        "xaxis": {"title": {"text": x_title}},
        "yaxis": {"title": {"text": y_title}, **COUNT_TICKS, **_whole_ticks(counts)},
    }
    return {"data": [bar], "layout": layout}


def _whole_ticks(counts: Array) -> dict[str, int]:
    """Counts have no fractional ticks."""
    return {"dtick": 1} if counts.max(initial=0) <= 5 else {}


def bars(values: Mapping[str, int], *, x_title: str, y_title: str) -> Figure:
    """A bar for each name, names on hover.

    Args:
        values: by name, in order.
        x_title: of the axis.
        y_title: the noun of the values.
    """
    bar = {
        "type": "bar",
        "x": encoded(np.arange(1, len(values) + 1, dtype=np.int32)),
        "y": encoded(np.array(list(values.values()), np.int32)),
        "customdata": [label(name) for name in values],
        "hovertemplate": f"%{{customdata}}<br>%{{y:,}} {y_title}<extra></extra>",
        "marker": {"color": COLORS[0], "line": {"width": 0}},
    }
    layout = {
        "bargap": 0.1 if len(values) <= 100 else 0,
        "xaxis": {
            "title": {"text": x_title},
            **({"dtick": 1} if len(values) <= 20 else {}),
        },
        "yaxis": {"title": {"text": y_title}, **COUNT_TICKS},
    }
    return {"data": [bar], "layout": layout}


def heat_maps(
    layers: Mapping[str, Array],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    unit: str = "",
) -> Figure:
    """Matrices in one frame, chosen by buttons; names on hover.

    Args:
        layers: the noun of the values -> (R, C) values, NaN for empty cells.
        rows, columns: labels of rows and columns, all different.
        unit: what precedes the noun, such as "mean ".
    """
    data = [
        {
            "type": "heatmap",
            "visible": number == 0,
            "x": [label(name) for name in columns],
            "y": [label(name) for name in rows],
            "z": encoded(values.astype(np.float32)),
            "colorscale": _heat_scale(),
            "zmin": 0,
            "zmax": float(np.nanmax(values, initial=0)) or 1.0,
            "hoverongaps": False,
            "colorbar": {"title": {"text": unit + title, "side": "right"}},
            "hovertemplate": f"%{{y}}<br>%{{x}}<br>%{{z:{_form(values)}}} "
            f"{unit}{title}<extra></extra>",
        }
        for number, (title, values) in enumerate(layers.items())
    ]
    buttons = [
        {
            "label": title,
            "method": "restyle",
            "args": [{"visible": [other == title for other in layers]}],
        }
        for title in layers
    ]
    hidden = {
        "showticklabels": False,
        "showgrid": False,
        "ticks": "",
        "type": "category",
    }
    menu = {
        "type": "buttons",
        "direction": "right",
        "buttons": buttons,
        **{"x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"},
    }
    layout = {
        "xaxis": {**hidden, "constrain": "domain"},
        "yaxis": {
            **hidden,
            "autorange": "reversed",
            "constrain": "domain",
            **({"scaleanchor": "x"} if len(rows) == len(columns) else {}),
        },
        "updatemenus": [menu] if len(layers) > 1 else [],
        "margin": {"l": 30, "r": 20, "t": 50, "b": 30},
        "hovermode": "closest",
    }
    return {"data": data, "layout": layout}


def _form(values: Array) -> str:
    """Plotly's number format: integers as such, means with one digit."""
    finite = values[np.isfinite(values)]
    return ",d" if (finite == np.round(finite)).all() else ",.1f"


def _heat_scale() -> list[list[float | str]]:
    """Colour scale with finer steps for small values: neighbours have far more
    matches."""
    steps = len(HEAT_COLORS) - 1
    return [[(i / steps) ** 2, color] for i, color in enumerate(HEAT_COLORS)]
