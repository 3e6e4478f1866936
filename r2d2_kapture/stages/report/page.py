"""One HTML page of sections: self-contained, safe for any names, reproducible.

Text reaches the page only through jinja2's escaping; scripts only through ``scripts``.
The page's content security policy lists their digests and allows no address, so that a
browser runs no other script and sends no network request.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import numpy.typing as npt
from markupsafe import Markup

import r2d2_kapture

TEMPLATES = Path(__file__).with_name("templates")
STYLES = ("page.css", "blocks.css", "view.css")


@dataclass(frozen=True)
class Section:
    """A part of a page.

    Attributes:
        identifier: of the element, as in an address after ``#``.
        title: its heading, plain text.
        html: content below the heading, made by ``fragment``; text that is not Markup
            is escaped.
    """

    identifier: str
    title: str
    html: Markup


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
