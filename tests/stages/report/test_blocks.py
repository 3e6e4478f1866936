"""Blocks and charts: names are inert, numbers are what they should be."""

from __future__ import annotations

import base64
import json
import re
from html import unescape
from typing import Any

import numpy as np
import pytest
from markupsafe import Markup

from r2d2_kapture.stages.report import charts, page
from tests.scenes.report import HOSTILE
from tests.stages.report.test_page import Elements


def decoded(array: dict[str, str]) -> list[float]:
    data = base64.b64decode(array["bdata"])
    return list(np.frombuffer(data, f"<{array['dtype']}").tolist())


@pytest.mark.parametrize(
    "block",
    [
        page.heading(HOSTILE),
        page.paragraph(HOSTILE, "note"),
        page.bullets([HOSTILE], "warning"),
        page.numbers({HOSTILE: HOSTILE}),
        page.table([HOSTILE], [[HOSTILE]]),
        page.folded(HOSTILE, page.paragraph(HOSTILE)),
        page.pictures([page.Picture(jpeg=b"x", caption=HOSTILE, note=HOSTILE)]),
        page.chart(charts.bars({HOSTILE: 1}, x_title="", y_title=""), HOSTILE),
        page.chart(
            charts.heat_maps({"a": np.ones((1, 1))}, [HOSTILE], [HOSTILE]),
            HOSTILE,
        ),
    ],
)
def test_names_are_text_in_every_block(block: Markup) -> None:
    found = Elements(str(block))
    assert "b" not in found.tags
    assert found.tags.count("img") == ("data:image/jpeg" in block)
    for script in found.scripts:
        figure = json.dumps(json.loads(script), ensure_ascii=False)
        # plotly makes links and styles of tags in texts; entities it only shows
        assert "<" not in re.sub("<br>|<extra></extra>", "", figure)


def test_a_chart_keeps_the_names_that_it_shows() -> None:
    figure = charts.bars({HOSTILE: 3}, x_title="x", y_title="things")
    [bar] = figure["data"]
    assert unescape(bar["customdata"][0]) == HOSTILE
    assert decoded(bar["y"]) == [3]


def test_columns_of_numbers_are_distinguished_from_text() -> None:
    html = page.table(["name", "count", "error"], [["a", 1234567, 0.5], ["b", 2, None]])
    cells = re.findall(r"<td( class=\"number\")?>(.*?)</td>", html)
    assert [text for _, text in cells] == ["a", "1,234,567", "0.500", "b", "2", ""]
    assert [bool(number) for number, _ in cells] == [False, True, True] * 2


@pytest.mark.parametrize(
    ("values", "count", "last"),
    [
        (np.array([2, 2, 3, 5]), [2, 1, 0, 1], "5"),
        (np.array([7]), [1, 0], "8"),
        (np.array([2] * 500 + [3] * 500 + [90]), [500, 501], "3 and more"),
    ],
)
def test_whole_numbers_get_a_bar_each(values: Any, count: list[int], last: str) -> None:
    [bar] = charts.histogram(values, x_title="x", y_title="y")["data"]
    assert decoded(bar["y"]) == count
    assert bar["customdata"][-1] == last


@pytest.mark.parametrize("scale", [1.0, 0.0, 1e-9, 1e9])
def test_a_histogram_counts_every_value_once(scale: float) -> None:
    values = scale * np.random.default_rng(2).exponential(size=3000)
    [bar] = charts.histogram(values, x_title="x", y_title="y")["data"]
    assert sum(decoded(bar["y"])) == 3000


def test_a_histogram_of_many_whole_numbers_has_few_bars() -> None:
    values = np.arange(2, 4002)
    [bar] = charts.histogram(values, x_title="x", y_title="y")["data"]
    assert sum(decoded(bar["y"])) == 4000
    assert len(bar["customdata"]) <= charts.HISTOGRAM_BINS + 1
    assert bar["customdata"][0] == "2 to 101"


def test_curves_end_at_the_share_that_was_found() -> None:
    errors = {"a": np.array([0.1, 0.2, 0.4, np.inf]), "none": np.array([np.inf])}
    figure = charts.cumulative(errors, x_title="m", of="queries", marks=(0.25,))
    one, none = figure["data"]
    assert one["name"] == "a (3 of 4)"
    np.testing.assert_allclose(decoded(one["y"]), [0, 25, 50, 75, 75])
    np.testing.assert_allclose(decoded(one["x"])[1:4], [0.1, 0.2, 0.4], rtol=1e-6)
    assert set(decoded(none["y"])) == {0}
    assert [shape["x0"] for shape in figure["layout"]["shapes"]] == [0.25]
