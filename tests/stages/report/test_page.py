"""The page: inert whatever the names, complete, and the same each time."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from html.parser import HTMLParser

import numpy as np
from markupsafe import Markup

from r2d2_kapture.stages.report.page import Section, encoded, render
from tests.scenes.report import HOSTILE


class Elements(HTMLParser):
    """The tags of a page and the text of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.scripts: list[str] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        (self.scripts if self.cdata_elem == "script" else self.text).append(data)


def test_names_are_text_wherever_they_stand() -> None:
    page = render(HOSTILE, [Section("a", HOSTILE, Markup("<p>{}</p>").format(HOSTILE))])
    found = Elements(page)
    assert "img" not in found.tags and "script" not in found.tags
    assert found.text.count(HOSTILE) == 5  # title, h1, contents, h2, p


def test_html_that_no_template_made_is_escaped() -> None:
    page = render("t", [Section("a", "b", "<b>bold</b>")])  # type: ignore[arg-type]
    assert "b" not in Elements(page).tags


def test_a_script_cannot_close_its_element_and_the_policy_names_it() -> None:
    page = render("t", [], ["x = '</script>';"])
    (script,) = Elements(page).scripts
    assert script == "x = '<\\/script>';"
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(line for line in html.unescape(page).split("\n") if "Policy" in line)
    assert "default-src 'none'" in policy and f"'sha256-{digest}'" in policy


def test_arrays_keep_their_values() -> None:
    array = np.arange(6, dtype=">f4").reshape(2, 3)
    said = json.loads(json.dumps(encoded(array)))
    raw = base64.b64decode(said["bdata"])
    assert said["shape"] == "2, 3" and said["dtype"] == "f4"
    assert np.array_equal(np.frombuffer(raw, "<f4").reshape(2, 3), array)
