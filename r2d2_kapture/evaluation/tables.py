"""Tables of named numbers, as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a table.

    Attributes:
        names: the first columns, text.
        values: numbers by name of their column; those absent stay empty.
    """

    names: tuple[str, ...]
    values: Mapping[str, float]


def markdown_table(
    name_titles: Sequence[str], columns: Mapping[str, str], rows: Sequence[Row]
) -> str:
    """Lay out rows in columns of equal width, so that it also reads well as text.

    Args:
        name_titles: of the text columns.
        columns: name of a number -> title of its column; shares with three decimals,
            counts with none. Columns that no row fills are left out.
        rows: in order.
    """
    shown = {
        name: title
        for name, title in columns.items()
        if any(name in row.values for row in rows)
    }
    lines = [[*name_titles, *shown.values()]]
    lines += [
        [*(name.replace("|", "/") for name in row.names)]
        + [_cell(name, row.values) for name in shown]
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*lines)]
    texts = len(name_titles)
    rule = ["-" * w if i < texts else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    padded = [
        [
            cell.ljust(width) if i < texts else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths))
        ]
        for line in [lines[0], rule, *lines[1:]]
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in padded)


def csv_table(name_titles: Sequence[str], rows: Sequence[Row]) -> str:
    """All numbers of all rows with full precision; a column for each name."""
    columns = list(dict.fromkeys(name for row in rows for name in row.values))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*name_titles, *columns])
    for row in rows:
        writer.writerow([*row.names, *(row.values.get(name, "") for name in columns)])
    return text.getvalue()


def _cell(name: str, values: Mapping[str, float]) -> str:
    if name not in values:
        return ""
    # names of shares hold their threshold
    return f"{values[name]:.3f}" if "@" in name else f"{values[name]:.0f}"
