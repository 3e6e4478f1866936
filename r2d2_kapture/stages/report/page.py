"""One HTML page of sections: self-contained, safe for any names, reproducible.

The content of a section consists of blocks: headings, numbers, tables, charts and so
on. Text reaches the page only through the escaping of jinja2 and markupsafe; scripts
only through ``scripts``.
The page's content security policy lists their digests and allows no address, so that a
browser runs no other script and sends no network request.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import numpy.typing as npt
from markupsafe import Markup, escape

import r2d2_kapture

TEMPLATES = Path(__file__).with_name("templates")
STYLES = ("page.css", "blocks.css", "view.css")

Figure = dict[str, Any]
"""``data`` and ``layout`` for plotly's script, see charts."""
Cell = str | int | float | None

NUMBER = re.compile(r"(-?[\d,]+(\.\d+)?)?")
SCRIPTS = ("charts.js", "tables.js")
"""Scripts that draw the charts and sort the tables, to be run after plotly's."""


@dataclass(frozen=True)
class Section:
    """A part of a page.

    Attributes:
        identifier: of the element, as in an address after ``#``.
        title: its heading, plain text.
        html: the blocks below the heading; text that is not Markup is escaped.
    """

    identifier: str
    title: str
    html: Markup


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


def render(
    title: str,
    sections: Sequence[Section],
    scripts: Sequence[str] = (),
    *,
    shown: str = "",
) -> str:
    """A whole page.

    Args:
        title: plain text.
        sections: in order; each gets an entry in the table of contents.
        scripts: JavaScript sources, run in order once the page is loaded.
        shown: a digest of the page's inputs, so that equal pages are not rewritten.
    """
    sources = [_inline(script) for script in scripts]
    return (
        _environment()
        .get_template("page.html")
        .render(
            title=title,
            sections=sections,
            scripts=sources,
            digests=[_digest(source) for source in sources],
            style=Markup("".join(map(read_template, STYLES))),
            shown=shown,
            version=r2d2_kapture.__version__,
        )
    )


def fragment(template: str, **values: Any) -> Markup:
    """HTML of a template, for a section.

    Args:
        template: name of a file of ``templates``; it escapes every value, and writes
            data for a script as ``{{ data | tojson }}`` in a script element of type
            application/json.
        values: its variables.
    """
    return Markup(_environment().get_template(template).render(**values))


def read_template(name: str) -> str:
    """The text of a file of ``templates``: a script, a style."""
    return (TEMPLATES / name).read_text(encoding="utf-8")


def encoded(array: npt.NDArray[Any]) -> dict[str, str]:
    """Encode an array for plotly: type, shape, and bytes in base64."""
    plain = np.ascontiguousarray(array)
    little = plain.astype(plain.dtype.newbyteorder("<"), copy=False)
    return {
        "dtype": f"{little.dtype.kind}{little.dtype.itemsize}",
        "shape": ", ".join(map(str, little.shape)),
        "bdata": base64.b64encode(little.tobytes()).decode("ascii"),
    }


def data_address(data: bytes, kind: str) -> str:
    """The data address of bytes with the MIME type ``kind``."""
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


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


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES, encoding="utf-8"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _inline(script: str) -> Markup:
    """Escape a script so that it cannot close its element."""
    return Markup(script.replace("\r\n", "\n").replace("</script", "<\\/script"))


def _digest(script: str) -> str:
    """The hash of a script for the content security policy."""
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
