"""One HTML page of sections: self-contained, inert whatever the names, reproducible.

Text reaches the page only through jinja2's escaping; scripts only through ``scripts``.
The page's content security policy lists their digests and allows no address at all, so
a browser runs nothing else and asks the network for nothing.
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
        identifier: of the element, as an address has it after ``#``.
        title: its heading, plain text.
        html: what stands below the heading, made by ``fragment``; what is no Markup is
            escaped.
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
        scripts: JavaScript sources, run in order once the page is there.
        shown: a digest of what the page shows, for whoever makes it again.
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
    """An array as plotly reads it from JSON: type, shape, and bytes in base64."""
    plain = np.ascontiguousarray(array)
    little = plain.astype(plain.dtype.newbyteorder("<"), copy=False)
    return {
        "dtype": f"{little.dtype.kind}{little.dtype.itemsize}",
        "shape": ", ".join(map(str, little.shape)),
        "bdata": base64.b64encode(little.tobytes()).decode("ascii"),
    }


def data_address(data: bytes, kind: str) -> str:
    """The address of data inside the page, as of an image of MIME type ``kind``."""
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
    """A script as an element may hold it: it must not close the element."""
    return Markup(script.replace("\r\n", "\n").replace("</script", "<\\/script"))


def _digest(script: str) -> str:
    """As a content security policy names a script."""
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
