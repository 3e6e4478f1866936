"""Features by image name, with records of the files that they were made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from r2d2_kapture.io.outputs.image_records import ImageRecord, RecordWriter
from r2d2_kapture.types import LocalFeatures


class FeatureStore(Protocol):
    """Stored features by image name, with what they were made of."""

    def is_complete(self, name: str) -> bool:
        """Whether the features of an image are there."""

    def record(self, name: str) -> ImageRecord | None:
        """What file features that are there were made of, if that is known."""

    def written_ns(self, name: str) -> int:
        """When features that are there were written, in nanoseconds."""

    def renew(self, name: str, record: ImageRecord) -> None:
        """Note where the file that features were made of is now."""

    def drop(self, name: str) -> None:
        """Remove features of a file that is gone, or never count them again."""

    def write(
        self, name: str, features: LocalFeatures, record: ImageRecord | None = None
    ) -> None:
        """Store the features of an image; complete or absent, never in between.

        Args:
            name: of the image.
            features: of the image.
            record: of the file that they were made of; None where there is none.

        Raises:
            OutputError: the file system refused.
        """


class RowStore(Protocol):
    """Holds the features of images, without what they were made of."""

    def is_complete(self, name: str) -> bool:
        """Whether the features of an image are there."""

    def written_ns(self, name: str) -> int:
        """When those that are there were written, in nanoseconds."""

    def remove(self, name: str) -> None:
        """Remove the features of an image where single images can be removed."""

    def write(self, name: str, features: LocalFeatures) -> None:
        """Store the features of an image; complete or absent, never in between."""


@dataclass(frozen=True, kw_only=True)
class FeatureWriter:
    """A FeatureStore whose records lie in the folders of the features.

    Attributes:
        rows: where features are written.
        records: one of each folder.
    """

    rows: RowStore
    records: tuple[RecordWriter, ...]

    def is_complete(self, name: str) -> bool:
        if any(records.is_unfinished(name) for records in self.records):
            return False
        made_of = [records.records.get(name) for records in self.records]
        of_one_file = len({record and record.sha256 for record in made_of}) == 1
        return of_one_file and self.rows.is_complete(name)

    def record(self, name: str) -> ImageRecord | None:
        return self.records[0].records.get(name)

    def written_ns(self, name: str) -> int:
        return self.rows.written_ns(name)

    def renew(self, name: str, record: ImageRecord) -> None:
        for records in self.records:
            records.finish(name, record)

    def drop(self, name: str) -> None:
        for records in self.records:
            records.begin(name)
        self.rows.remove(name)

    def write(
        self, name: str, features: LocalFeatures, record: ImageRecord | None = None
    ) -> None:
        for records in self.records if record is not None else ():
            records.begin(name)
        self.rows.write(name, features)
        if record is not None:
            self.renew(name, record)


@dataclass(frozen=True, kw_only=True)
class StoredFeatures:
    """Features that another run may write: they are looked at, and stay as they are.

    Attributes:
        store: of the features.
    """

    store: FeatureStore

    def is_complete(self, name: str) -> bool:
        return self.store.is_complete(name)

    def record(self, name: str) -> ImageRecord | None:
        return self.store.record(name)

    def written_ns(self, name: str) -> int:
        return self.store.written_ns(name)

    def renew(self, name: str, record: ImageRecord) -> None:
        """Leave the record."""

    def drop(self, name: str) -> None:
        """Leave the features."""

    def write(
        self, name: str, features: LocalFeatures, record: ImageRecord | None = None
    ) -> None:
        """Refuse."""
        raise NotImplementedError(name)
