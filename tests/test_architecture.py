"""Imports point one way, and heavy or foreign packages stay where they belong."""

from __future__ import annotations

import ast
import configparser
import functools
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import r2d2_kapture

PACKAGE = Path(r2d2_kapture.__file__).resolve().parent
CHECKOUT = PACKAGE.parent

BASE = {"errors", "types", "coordinates", "config"}
LIBRARY = {"core", "models", "matching", "refinement", "io"}
TASKS = {"extractors", "evaluation", "synthetic", "pictures"}
ALLOWED = {
    "errors": set(),
    "coordinates": {"errors"},
    "types": {"errors", "coordinates"},
    "config": {"errors", "types", "coordinates"},
    "models": BASE,
    "core": BASE | {"models"},  # the engine runs a network
    "matching": BASE | {"models"},  # LightGlue has weights
    "refinement": BASE,
    "io": BASE,
    "extractors": BASE | LIBRARY,
    "evaluation": BASE | LIBRARY,
    "synthetic": BASE | LIBRARY,
    "pictures": BASE | LIBRARY | {"evaluation"},  # they show what it measures
    "training": BASE | {"core", "models"},
    "stages": BASE | LIBRARY | TASKS | {"training"},
    "front": BASE | LIBRARY | TASKS | {"stages"},
    "cli": BASE | LIBRARY | TASKS | {"training", "stages"},
}
"""What each part of the package may import of the others."""

FORBIDDEN = {
    "errors": {"torch", "kapture", "pycolmap"},
    "types": {"torch", "kapture", "pycolmap"},
    "config": {"torch", "kapture", "pycolmap", "jsonargparse"},
    "io": {"torch", "jsonargparse"},
    "core": {"kapture", "pycolmap", "jsonargparse"},
    "models": {"kapture", "pycolmap", "jsonargparse"},
    "matching": {"kapture", "pycolmap", "jsonargparse"},
    "refinement": {"kapture", "pycolmap", "jsonargparse"},
    "training": {"kapture", "pycolmap", "jsonargparse"},
    "extractors": {"kapture", "jsonargparse"},
    "evaluation": {"jsonargparse"},
    "stages": {"jsonargparse"},
    "front": {"jsonargparse"},
}
"""What each part of the package may not import of others' packages."""


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def part_of(path: Path) -> str:
    """The sub-package or module right below the package; '' is the package itself."""
    first = path.relative_to(PACKAGE).parts[0]
    return "" if first == "__init__.py" else first.removesuffix(".py")


def imports_of(path: Path) -> Sequence[str]:
    """Full names of everything a module imports, anywhere in its text."""
    package = "r2d2_kapture", *path.relative_to(PACKAGE).parts[:-1]
    return imports_in(path.read_text(encoding="utf-8"), package)


@functools.cache  # each rule asks for those of all modules
def imports_in(text: str, package: Sequence[str]) -> Sequence[str]:
    names: list[str] = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names += (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            names += (f"{module}.{alias.name}" for alias in node.names)
    return names


def offences(check: Callable[[Path], str]) -> list[str]:
    """What a rule says of each module that breaks it."""
    said = {path.relative_to(PACKAGE): check(path) for path in modules()}
    return [f"{path}: {text}" for path, text in said.items() if text]


def wrong_way(path: Path) -> str:
    part = part_of(path)
    if not part:  # it imports what it offers, when that is asked for
        return ""
    if part not in ALLOWED:
        return f"say in ALLOWED what {part} may import"
    wrong = []
    for name in imports_of(path):
        root, _, rest = name.partition(".")
        imported = rest.split(".")[0]
        if root != "r2d2_kapture" or not imported or imported == "__version__":
            continue
        if imported != part and imported not in ALLOWED[part]:
            wrong.append(name)
    return ", ".join(wrong)


def misplaced(path: Path) -> str:
    found = {name.partition(".")[0] for name in imports_of(path)}
    return ", ".join(found & FORBIDDEN.get(part_of(path), set()))


def past_the_face(path: Path) -> str:
    """What a stage imports of the inside of another stage's package."""
    parts = path.relative_to(PACKAGE).parts
    if parts[0] != "stages":
        return ""
    own = parts[1] if len(parts) > 2 else ""
    wrong = []
    for name in imports_of(path):
        _, *inside = name.split(".")
        if inside[:1] != ["stages"] or len(inside) < 3 or inside[1] == own:
            continue
        if len(inside) > 3 or inside[2] not in face_of(inside[1], inside[2]):
            wrong.append(name)
    return ", ".join(wrong)


def face_of(stage: str, name: str) -> list[str]:
    """What a stage's package shows; a stage of one module shows every name."""
    init = PACKAGE / "stages" / stage / "__init__.py"
    if not init.is_file():
        return [name]
    for node in ast.parse(init.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return []


def test_stages_import_each_other_by_their_faces() -> None:
    assert offences(past_the_face) == []


def test_imports_point_one_way() -> None:
    assert offences(wrong_way) == []


def test_foreign_packages_stay_where_they_belong() -> None:
    assert offences(misplaced) == []


def test_only_the_command_line_parses_arguments() -> None:
    for path in modules():
        found = {name.partition(".")[0] for name in imports_of(path)}
        if part_of(path) != "cli":
            assert not found & {"argparse", "jsonargparse"}, path


def test_the_walk_sees_every_kind_of_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{__name__}.PACKAGE", tmp_path)
    path = tmp_path / "io" / "a.py"
    path.parent.mkdir()
    path.write_text(
        "import torch.nn as nn\n"
        "from . import b\n"
        "from .. import stages\n"
        "from ..core.engine import Engine\n"
        "def f():\n    from r2d2_kapture import cli\n"
    )
    assert imports_of(path) == [
        "torch.nn",
        "r2d2_kapture.io.b",
        "r2d2_kapture.stages",
        "r2d2_kapture.core.engine.Engine",
        "r2d2_kapture.cli",
    ]


def run_python(code: str) -> str:
    """Run code in a fresh interpreter and return what it prints."""
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=CHECKOUT,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def loaded_after(modules: list[str], watched: list[str]) -> str:
    return run_python(
        f"import sys\nimport {', '.join(modules)}\n"
        f"print(*sorted(set({watched!r}) & sys.modules.keys()))"
    )


def test_inference_loads_neither_kapture_nor_pycolmap() -> None:
    inference = [
        "r2d2_kapture.models.checkpoints",
        "r2d2_kapture.core.engine",
        "r2d2_kapture.extractors.r2d2",
        "r2d2_kapture.matching.vlad",  # of extraction that turns images
    ]
    watched = ["kapture", "pycolmap", "jsonargparse", "matplotlib", "sklearn", "torch"]
    assert loaded_after(inference, watched) == "torch"


def test_settings_and_types_load_without_torch() -> None:
    light = [f"r2d2_kapture.{name}" for name in sorted(BASE)]
    assert loaded_after(light, ["torch", "kapture", "pycolmap"]) == ""


def test_files_are_read_and_written_without_torch() -> None:
    paths = [path.relative_to(CHECKOUT) for path in (PACKAGE / "io").rglob("[!_]*.py")]
    files = sorted(".".join(path.with_suffix("").parts) for path in paths)
    assert loaded_after(files, ["torch"]) == ""


@pytest.mark.parametrize(
    "first, second", [("torch", "pycolmap"), ("pycolmap", "torch")]
)
def test_torch_and_pycolmap_work_in_either_order(first: str, second: str) -> None:
    code = (
        f"import {first}\nimport {second}\n"
        "values = torch.linalg.svdvals(torch.eye(3) * 2)\n"
        "rotation = pycolmap.Rotation3d([0, 0, 0, 1])\n"
        "print(float(values.sum()), rotation.matrix().trace())"
    )
    assert run_python(code) == "6.0 3.0"


def test_pycolmap_finds_zlib_loaded() -> None:
    """pycolmap 4.2.1 exports zlib's names: loaded first, it breaks every use of it."""
    code = (
        "from r2d2_kapture.io.colmap.log import quiet_pycolmap\n"
        "import pycolmap, zlib\n"
        "print(zlib.decompress(zlib.compress(b'whole')).decode())"
    )
    assert run_python(code) == "whole"


@pytest.mark.parametrize(
    "check, part, text",
    [
        (wrong_way, "io", "from r2d2_kapture.stages import match"),
        (wrong_way, "new", "import os"),
        (misplaced, "io", "import torch.nn"),
        (past_the_face, "stages", "from r2d2_kapture.stages.match.cache import Key"),
    ],
)
def test_each_rule_sees_what_breaks_it(
    check: Callable[[Path], str],
    part: str,
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(f"{__name__}.PACKAGE", tmp_path)
    path = tmp_path / part / "a.py"
    path.parent.mkdir()
    path.write_text(text)
    (said,) = offences(check)
    assert said.startswith(f"{part}/a.py: ")
    path.write_text("import os")
    assert part == "new" or offences(check) == []


def test_every_package_on_disk_is_installed() -> None:
    setup = configparser.ConfigParser()
    setup.read(CHECKOUT / "setup.cfg", encoding="utf-8")
    listed = setup["options"]["packages"].split()
    if listed[0].startswith("find"):
        return
    on_disk = {
        ".".join(path.parent.relative_to(CHECKOUT).parts)
        for path in PACKAGE.rglob("*.py")
    }
    assert on_disk <= set(listed)
    assert {"r2d2_kapture.configs", "r2d2_kapture.pipelines"} <= set(listed)
    elsewhere = dict(
        line.split(" = ")
        for line in setup["options"]["package_dir"].strip().split("\n")
    )
    for name in set(listed) - on_disk:
        assert (CHECKOUT / elsewhere[name]).is_dir(), f"{name} is listed but not there"
