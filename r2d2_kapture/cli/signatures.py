"""What can be typed: parameters of stages, and fields of their settings.

Signatures of stages are read from their source, since to import a stage loads torch.
The docstring of a stage's function is the help of its command: the text before Args
describes the command, and Args its flags.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import importlib
import operator
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

from docstring_parser import parse as parse_docstring

import r2d2_kapture

BUILT_IN: Mapping[str, Any] = {
    **{kind.__name__: kind for kind in (Path, bool, float, int, str)},
    "DatasetOrPath": Path,
}
SEQUENCE = re.compile(r"(?:Sequence|Collection|tuple)\[(\w+)(?:, \.\.\.)?\]")
DESTS = {
    "source": "from",
    "map_path": "map",
    "pairs_list": "pairs",
    "file_format": "format",
}
"""Names of flags that parameters do not have, because something else has."""
LIGHT = ("r2d2_kapture.config.", "r2d2_kapture.coordinates")
"""Modules whose types may be imported."""

Origins = Mapping[str, tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A keyword parameter, or a field of settings, whose value can be typed.

    Attributes:
        name: of the parameter.
        kind: type of its value, or of each value of a sequence.
        several: whether it takes a sequence.
        required: whether it has no default.
        default: its default.
        text: its description.
    """

    name: str
    kind: Any
    several: bool
    required: bool
    default: Any
    text: str

    @property
    def dest(self) -> str:
        """Name of the flag, with _."""
        return DESTS.get(self.name, self.name)

    @property
    def flag(self) -> str:
        """The flag, without its dashes at the front."""
        return self.dest.replace("_", "-")


class Signature(NamedTuple):
    """What a function does, and its parameters whose values can be typed."""

    description: str
    parameters: tuple[Parameter, ...]


def read_signature(module: str, function: str = "run") -> Signature:
    """The signature of a function, by the module that defines or shows it.

    Parameters of other types than those of Python and of config/ are left out, as are
    dataclasses.
    """
    path = Path(r2d2_kapture.__file__).parents[1].joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    body = ast.parse(path.read_text(encoding="utf-8")).body
    origins = {
        alias.asname or alias.name: (str(node.module), alias.name)
        for node in body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    for node in body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            return _signature(node, origins)
    return read_signature(*origins[function])


def setting_parameters(settings: type) -> Iterator[Parameter]:
    """The fields of a settings dataclass; a tuple of texts or paths takes several."""
    types = get_type_hints(settings)
    texts: dict[str, str] = {}
    for kind in reversed(settings.__mro__):
        texts |= docstring_texts(kind.__doc__)
    for field in dataclasses.fields(settings):
        kind = types[field.name]
        item = next(iter(get_args(kind)), None)
        several = get_origin(kind) is tuple and item in (Path, str)
        default: Any = field.default
        yield Parameter(
            name=field.name,
            kind=item if several else kind,
            several=several,
            required=False,
            default=list(default) if several else default,
            text=texts.get(field.name, ""),
        )


def docstring_texts(docstring: str | None) -> dict[str, str]:
    """Descriptions of parameters or attributes by name, each on one line."""
    return {
        name: _one_line(item.description)
        for item in parse_docstring(docstring or "").params
        for name in item.arg_name.split(", ")
    }


def _one_line(text: str | None) -> str:
    return " ".join((text or "").replace("``", "").split())


def _signature(function: ast.FunctionDef, origins: Origins) -> Signature:
    docstring = ast.get_docstring(function)
    parsed, texts = parse_docstring(docstring or ""), docstring_texts(docstring)
    arguments = function.args
    found = [
        _parameter(argument, default, texts.get(argument.arg, ""), origins)
        for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults)
    ]
    return Signature(
        description=" ".join(
            map(_one_line, (parsed.short_description, parsed.long_description))
        ).strip(),
        parameters=tuple(parameter for parameter in found if parameter is not None),
    )


def _parameter(
    argument: ast.arg, default: ast.expr | None, text: str, origins: Origins
) -> Parameter | None:
    """A parameter; None if its value cannot be typed."""
    node = argument.annotation
    several = SEQUENCE.fullmatch("" if node is None else ast.unparse(node))
    if several:
        node = ast.parse(several[1], mode="eval").body
    kind = _kind(node, origins)
    if kind in (None, NoneType) or dataclasses.is_dataclass(kind):
        return None
    value = None if default is None else _value(default, origins)
    return Parameter(
        name=argument.arg,
        kind=kind,
        several=several is not None,
        required=default is None,
        default=list(value or ()) if several and default is not None else value,
        text=text,
    )


def _kind(node: ast.expr | None, origins: Origins) -> Any:
    """The types of an annotation whose values can be typed; None if there is none."""
    if isinstance(node, ast.BinOp):
        kinds = [_kind(side, origins) for side in (node.left, node.right)]
        known = [kind for kind in kinds if kind is not None]
        return functools.reduce(operator.or_, known) if known else None
    if isinstance(node, ast.Constant) and node.value is None:
        return NoneType
    if isinstance(node, ast.Subscript):
        return dict[str, str] if ast.unparse(node) == "Mapping[str, str]" else None
    if not isinstance(node, ast.Name):
        return None
    return BUILT_IN.get(node.id) or _imported(node.id, origins)


def _value(node: ast.expr, origins: Origins) -> Any:
    """A default: a literal, or a constant of config/; None for what is called."""
    if isinstance(node, ast.Call):
        return None
    if isinstance(node, ast.Name):
        return _imported(node.id, origins)
    return ast.literal_eval(node)


def _imported(name: str, origins: Origins) -> Any:
    module, original = origins.get(name, ("", ""))
    if not module.startswith(LIGHT):
        return None
    return getattr(importlib.import_module(module), original)
