"""Tables and figures of the results of a benchmark."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from matplotlib.figure import Figure

from r2d2_kapture.errors import ConfigError
from r2d2_kapture.evaluation.tables import Row, csv_table, markdown_table
from r2d2_kapture.io.outputs.atomic import write_json_atomic, write_text_atomic
from r2d2_kapture.pictures.figures import save

Run = TypeVar("Run")
PLOT_SUFFIXES = (".png", ".pdf", ".svg")


@dataclass(frozen=True, kw_only=True)
class Presentation(Generic[Run]):
    """How files of results are read and shown.

    Attributes:
        name: of the benchmark, stem of the tables.
        suffix: of the file of results of a run.
        expected: what files there may be, for an error.
        read: reads one of them.
        titles: of the text columns of the printed tables.
        columns: for each printed table, numbers by name and their titles.
        legend: of the printed tables.
        means: their rows.
        item_titles, items: titles and rows of a second table of the Markdown file, of
            one heading; there may be none.
        csv_titles, csv: of the CSV file.
        to_json: a run as plain values.
        figure: curves of all runs.
        plot_name: of the picture written beside the tables; empty for none.
    """

    name: str
    suffix: str
    expected: str
    read: Callable[[Path], Run]
    titles: tuple[str, ...]
    columns: tuple[Mapping[str, str], ...]
    legend: str
    means: Callable[[Sequence[Run]], list[Row]]
    csv_titles: tuple[str, ...]
    csv: Callable[[Sequence[Run]], list[Row]]
    to_json: Callable[[Run], dict[str, Any]]
    figure: Callable[[Sequence[Run]], Figure]
    item_titles: tuple[str, ...] = ()
    items: Callable[[Sequence[Run]], list[Row]] = lambda runs: []
    plot_name: str = ""

    def read_all(self, paths: Sequence[Path]) -> list[Run]:
        """Read files of results, in order.

        Raises:
            FeatureFormatError: a file has another format.
            ConfigError: no file is given.
        """
        if not paths:
            raise ConfigError(f"found no results, expected {self.expected}")
        return [self.read(path) for path in paths]

    def table(self, runs: Sequence[Run]) -> str:
        """The means of every run, as aligned Markdown tables."""
        return self._markdown(self.titles, self.means(runs))

    def write(
        self,
        runs: Sequence[Run],
        folder: Path | None = None,
        plot: Path | None = None,
    ) -> None:
        """Write the tables as Markdown, CSV and JSON, and the figure.

        Args:
            runs: to show.
            folder: of the tables; None writes none.
            plot: place of the figure; by default ``plot_name`` in the folder.

        Raises:
            OutputError: the files cannot be written.
        """
        if folder is not None:
            self._write_tables(folder, runs)
            if plot is None and self.plot_name:
                plot = folder / self.plot_name
        if plot is not None:
            save(self.figure(runs), plot)

    def _write_tables(self, folder: Path, runs: Sequence[Run]) -> None:
        markdown, csv, as_json = self._paths(folder)
        text = f"{self.table(runs)}\n{self.legend}"
        if items := self.items(runs):
            title = f"\nBy {self.item_titles[-1]}:\n\n"
            text += title + self._markdown(self.item_titles, items)
        write_text_atomic(markdown, text)
        write_text_atomic(csv, csv_table(self.csv_titles, self.csv(runs)))
        write_json_atomic(as_json, [self.to_json(run) for run in runs])

    def remove(self, folder: Path) -> None:
        """Remove the tables and the figure of an earlier run."""
        plot = [folder / self.plot_name] if self.plot_name else []
        for path in [*self._paths(folder), *plot]:
            path.unlink(missing_ok=True)

    def _paths(self, folder: Path) -> list[Path]:
        return [folder / f"{self.name}.{suffix}" for suffix in ("md", "csv", "json")]

    def _markdown(self, titles: tuple[str, ...], rows: Sequence[Row]) -> str:
        """A table for each set of columns, of the rows that have numbers for it."""
        found = [
            (columns, [row for row in rows if columns.keys() & row.values.keys()])
            for columns in self.columns
        ]
        return "\n".join(
            markdown_table(titles, columns, filled)
            for columns, filled in found
            if filled
        )


def check_plot_path(path: Path) -> None:
    """Check before the work begins that a plot can be written to a path.

    Raises:
        ConfigError: it is a folder, or has another suffix.
    """
    if path.suffix.lower() not in PLOT_SUFFIXES or path.is_dir():
        found = "a folder" if path.is_dir() else repr(path.suffix)
        raise ConfigError(
            f"--plot {path}: found {found}, expected a file with the suffix "
            f"{', '.join(PLOT_SUFFIXES)}"
        )
