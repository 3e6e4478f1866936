"""What a stage knows of the database that it wrote: whether it is still the same."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from r2d2_kapture.io.colmap.check import database_sha256, write_ahead_log
from r2d2_kapture.io.outputs.atomic import read_json, write_json_atomic
from r2d2_kapture.io.outputs.ledger import Contents


@dataclass(frozen=True, kw_only=True)
class DatabaseState:
    """A record about a database, in a file of the work folder.

    Attributes:
        path: of the note.
        database: the database.
    """

    path: Path
    database: Path

    @property
    def files(self) -> tuple[Path, ...]:
        """The record, the database, and where SQLite keeps what it adds to it."""
        return self.path, self.database, write_ahead_log(self.database)

    @property
    def sha256(self) -> str:
        """Of the database that was noted last; empty without a note."""
        return str(read_json(self.path).get("database", ""))

    def is_ours(self) -> bool:
        """Whether the database is as one that we noted, before or after it moved."""
        state = read_json(self.path)
        known = {state.get("database"), state.get("before")}
        return self.database.is_file() and database_sha256(self.database) in known

    def is_current(self, inputs: str) -> bool:
        """Whether the database was made of these inputs."""
        state = read_json(self.path)
        return (
            state.get("inputs") == inputs
            and self.database.is_file()
            and database_sha256(self.database) == state.get("database")
        )

    @property
    def added(self) -> frozenset[str]:
        """Images that stages added to the database, cameras and all."""
        names = read_json(self.path).get("added")
        return frozenset(map(str, names)) if isinstance(names, list) else frozenset()

    def claim(self, contents: Contents, *, replace: bool) -> None:
        """Refuse a database that is not as the stage wrote it, unless it is replaced.

        Args:
            contents: of the stage, for the message.
            replace: whether to take it for ours instead.

        Raises:
            OutputError: naming it; or the file system refused.
        """
        if not self.database.exists() or self.is_ours():
            return
        if not replace:
            found = (
                "a database that this stage did not write, or that has been changed "
                "since"
            )
            raise contents.refusal(self.database, found)
        self.adopt()

    def adopt(self) -> None:
        """Take the database that is there for ours.

        Raises:
            OutputError: the file system refused.
        """
        self._save(inputs=None, database=None)

    def expect(self, complete: Path, inputs: str, added: Iterable[str] = ()) -> None:
        """Note the database that is about to take its place, beside the present one.

        A run killed before or after the move finds either to be ours.

        Args:
            complete: the file that will be moved.
            inputs: digest of what it was made of.
            added: images that it has from us, besides those of earlier runs.

        Raises:
            OutputError: the file system refused.
        """
        self._save(inputs=inputs, database=database_sha256(complete), added=added)

    def settle(self) -> None:
        """Forget the database that was replaced.

        Raises:
            OutputError: the file system refused.
        """
        write_json_atomic(self.path, {**read_json(self.path), "before": None})

    def _save(
        self, inputs: str | None, database: str | None, added: Iterable[str] = ()
    ) -> None:
        there = self.database.is_file()
        state = {
            "inputs": inputs,
            "database": database,
            "before": database_sha256(self.database) if there else None,
            "added": sorted({*added, *(self.added if there else ())}),
        }
        write_json_atomic(self.path, state)
