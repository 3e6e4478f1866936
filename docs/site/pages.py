"""Pages that are generated while the site is built: commands and Python reference."""

from __future__ import annotations

import configparser
import contextlib
import importlib
import io
import os
import re
from collections.abc import Mapping
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import r2d2_kapture

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ".github/CONTRIBUTING.md"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List the commands in the navigation."""
    for section in config.nav or []:
        if "Commands" in section:
            section["Commands"] = [{name: page_of(name)} for name in commands()]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each command, the Python reference and the guide of .github."""
    contents = {
        page_of(name): command_page(name, module) for name, module in commands().items()
    }
    contents["reference.md"] = reference_page()
    contents["contributing.md"] = (ROOT / GUIDE).read_text(encoding="utf-8")
    for path, content in contents.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Lead links to the guide of .github to its page."""
    return markdown.replace(f"(../{GUIDE})", "(contributing.md)")


def commands() -> Mapping[str, str]:
    """The module of each command, as setup.cfg installs them."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    scripts = setup["options.entry_points"]["console_scripts"].strip().split("\n")
    pairs = (line.split(" = ") for line in scripts)
    return {name: target.replace("entry:", "") for name, target in pairs}


def page_of(command: str) -> str:
    """Path of a command's page below docs/."""
    return f"commands/{command}.md"


def command_page(name: str, module: str) -> str:
    """The help of a command, as it prints it."""
    os.environ["COLUMNS"] = "80"
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        importlib.import_module(module).main(["--help", "all"])
    text = printed.getvalue().rstrip()
    if not text:
        raise ValueError(f"{name} --help: found no text, expected its help")
    parts = re.split(r"^(\S.*):\n(?=  )", text, flags=re.M)
    introduction, _, example = text.rpartition("\nexample: ")
    usage, _, description = parts[0].strip().partition("\n\n")
    page = f"# {name}\n\n{description}\n\n```text\n{usage}\n```\n"
    if introduction:
        page += f"\nExample:\n\n```text\n{' '.join(example.split())}\n```\n"
    for title, flags in zip(parts[1::2], parts[2::2], strict=True):
        flags = flags.partition("\nexample: ")[0].rstrip()
        page += f"\n## {title[0].upper()}{title[1:]}\n\n```text\n{flags}\n```\n"
    return page


def reference_page() -> str:
    """Every public name of the package."""
    names = "\n".join(
        f"::: {getattr(r2d2_kapture, name).__module__}.{name}"
        for name in r2d2_kapture.__all__
    )
    return (
        "# Python reference\n\n"
        "The names of `import r2d2_kapture as rk`; [In Python](python.md) shows them "
        f"at work.\n\n{names}\n"
    )
