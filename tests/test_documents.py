"""Documents show flags that exist, links that resolve and public data only."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.test_repeated_flags import ROOT, command_modules, parser_of

DOCUMENTS = sorted(
    [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / ".github" / "CONTRIBUTING.md"]
    + list((ROOT / "docs").glob("*.md"))
)


def commands_in(text: str) -> Iterator[tuple[str, list[str]]]:
    """Module and flags of every command that a document shows, in blocks or in text."""
    blocks = re.findall(
        r"^(?: {4}|)(?:bin/)?((?:kapture_r2d2|python pip).*)$", text, re.M
    )
    spans = re.findall(r"`((?:kapture_r2d2|python pip)[^`\n]*)`", text)
    for line in blocks + spans:
        words = shlex.split(line, comments=True)
        name = words[1] if words[0] == "python" else words[0]
        module = name.removesuffix(".py").replace("/", ".")
        module = command_modules().get(name.removeprefix("kapture_r2d2_"), module)
        yield module, [w.partition("=")[0] for w in words if w.startswith("--")]


def flags_shown() -> dict[str, set[str]]:
    shown: dict[str, set[str]] = {}
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8").replace("\\\n", " ")
        for module, flags in commands_in(text):
            shown.setdefault(module, set()).update(flags)
    return shown


def test_every_command_is_shown_by_some_document() -> None:
    assert flags_shown().keys() >= set(command_modules().values())


@pytest.mark.parametrize("module", command_modules().values())
def test_documents_show_flags_that_there_are(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = flags_shown().get(module, set())
    known = parser_of(module, monkeypatch)._option_string_actions
    assert shown <= known.keys()


def anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.M)
    words = [re.sub(r"[^\w\s-]", "", heading.lower()) for heading in headings]
    return {re.sub(r"\s+", "-", text.strip()) for text in words}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)\s]*)\)", text):
        name, _, anchor = target.partition("#")
        linked = path.parent / name if name else path
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_documents_need_nothing_of_ours(path: Path) -> None:
    assert not re.search(r"(\.\.|/work)/shared", path.read_text(encoding="utf-8"))


def test_every_guide_is_linked_from_the_index() -> None:
    linked = re.findall(r"\]\(([\w.]*)\)", (ROOT / "docs/index.md").read_text("utf-8"))
    assert {path.name for path in DOCUMENTS if path.parent.name == "docs"} <= {
        "index.md",
        *linked,
    }
