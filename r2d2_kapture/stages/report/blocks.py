"""The blocks of sections: headings, numbers, tables, charts, pictures.

Text is escaped here; only Markup is passed through.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

from r2d2_kapture.stages.report.page import data_address, fragment, read_template

Figure = dict[str, Any]
"""``data`` and ``layout`` for plotly's script, see charts."""
Cell = str | int | float | None

NUMBER = re.compile(r"(-?[\d,]+(\.\d+)?)?")
SCRIPTS = ("charts.js", "tables.js")
"""Scripts that draw the charts and sort the tables, to be run after plotly's."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture with its caption.

    Attributes:
        jpeg: the file's bytes; None if there is no picture.
        caption: plain text.
        note: below it, smaller.
    """

    jpeg: bytes | None
    caption: str
    note: str = ""


def block_scripts() -> list[str]:
    """The scripts of the blocks, to be run after plotly's."""
    return [read_template(name) for name in SCRIPTS]


def join(blocks: Iterable[Markup]) -> Markup:
    """Stack blocks vertically."""
    return Markup("\n").join(blocks)


def heading(text: str) -> Markup:
    """A sub-heading of the section."""
    return Markup("<h3>{}</h3>").format(text)


def paragraph(text: str, kind: str = "") -> Markup:
    """A paragraph; ``kind`` is ``note``, ``warning`` or ``failure``."""
    if not kind:
        return Markup("<p>{}</p>").format(text)
    return Markup('<p class="{}">{}</p>').format(kind, text)


def bullets(texts: Iterable[str], kind: str = "") -> Markup:
    """A list of texts."""
    items = join(Markup("<li>{}</li>").format(text) for text in texts)
    return Markup('<ul class="{}">{}</ul>').format(kind, items)


def numbers(values: Mapping[str, str]) -> Markup:
    """Numbers in boxes: label -> number with its unit."""
    boxes = join(
        Markup("<div><dt>{}</dt><dd>{}</dd></div>").format(label, value)
        for label, value in values.items()
    )
    return Markup('<dl class="numbers">{}</dl>').format(boxes)


def table(
    titles: Sequence[str],
    rows: Iterable[Sequence[Cell]],
    *,
    digits: int = 3,
    tall: bool = False,
) -> Markup:
    """A table that is sorted by a click on a column title.

    Args:
        titles: of the columns, with units.
        rows: text, numbers, and None for empty cells. Columns with only numbers are
            right-aligned.
        digits: of floating-point numbers after the point.
        tall: whether it scrolls within a fixed height.
    """
    content = [[cell_text(cell, digits) for cell in row] for row in rows]
    return fragment(
        "table.html",
        titles=titles,
        rows=content,
        numeric=[
            all(NUMBER.fullmatch(row[column]) for row in content)
            for column in range(len(titles))
        ],
        tall=tall,
    )


def cell_text(cell: Cell, digits: int) -> str:
    """Numbers with thousands separators and a fixed number of digits; '' for None."""
    if cell is None:
        return ""
    if isinstance(cell, float):
        return f"{cell:,.{digits}f}"
    return f"{cell:,}" if isinstance(cell, int) else cell


def folded(summary: str, content: Markup) -> Markup:
    """Content that opens by a click on its summary."""
    return Markup("<details><summary>{}</summary>\n{}\n</details>").format(
        summary, content
    )


def chart(
    figure: Figure, label: str, height: int = 300, width: int | None = None
) -> Markup:
    """A chart drawn by plotly.

    Args:
        figure: plain values and arrays of ``page.encoded``.
        label: text alternative, for screen readers and without scripts.
        height: in pixels.
        width: in pixels at most; None takes that of the page.
    """
    return fragment(
        "chart.html", figure=figure, label=label, height=height, width=width
    )


def side_by_side(blocks: Iterable[Markup]) -> Markup:
    """Blocks side by side if the window is wide enough."""
    boxes = join(Markup("<div>{}</div>").format(block) for block in blocks)
    return Markup('<div class="side-by-side">{}</div>').format(boxes)


def pictures(items: Iterable[Picture], kind: str = "thumbnails") -> Markup:
    """Pictures: many in a row, ``thumbnails``, or one, ``full``."""
    return fragment(
        "pictures.html",
        kind=kind,
        pictures=[
            (
                data_address(item.jpeg, "image/jpeg") if item.jpeg else None,
                item.caption,
                item.note,
            )
            for item in items
        ],
    )


def label(text: str) -> str:
    """Escape text for plotly, which would interpret tags and entities in names."""
    return str(escape(text))
