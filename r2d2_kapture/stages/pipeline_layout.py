"""Where everything lies below the output folder of a pipeline."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Paths below the output folder of a pipeline."""

    output: Path

    @property
    def datasets(self) -> Path:
        """Folders of photographs as kapture datasets."""
        return self.output / "datasets"

    @property
    def features(self) -> Path:
        """Keypoints, descriptors and global features made by the pipeline."""
        return self.output / "features"

    @property
    def retrieval(self) -> Path:
        """Global features aggregated from local features."""
        return self.output / "retrieval"

    @property
    def matches(self) -> Path:
        """Matches of all pairs."""
        return self.output / "matches"

    @property
    def verified(self) -> Path:
        """Verified matches between mapping images."""
        return self.output / "verified"

    @property
    def database(self) -> Path:
        """COLMAP's database of the mapping images, with keypoints as extracted."""
        return self.output / "database.db"

    @property
    def refined(self) -> Path:
        """Refined keypoints of the mapping images, and the database with these."""
        return self.output / "refined"

    @property
    def refined_database(self) -> Path:
        """COLMAP's database of the mapping images with refined keypoints."""
        return self.refined / "database.db"

    @property
    def first_map(self) -> Path:
        """The map that keypoints are refined with a second time."""
        return self.output / "first_map"

    @property
    def refined_again(self) -> Path:
        """As ``refined``, of the second time."""
        return self.output / "refined_again"

    @property
    def mapped_database(self) -> Path:
        """The one that the map is made of: with refined keypoints, if there are any."""
        again = self.refined_again / self.refined_database.name
        found = [path for path in (again, self.refined_database) if path.is_file()]
        return (found or [self.database])[0]

    @property
    def map(self) -> Path:
        """The map: COLMAP model, kapture dataset, PLY, numbers."""
        return self.output / "map"

    def pairs(self, name: str) -> Path:
        """Pairs of mapping images, or of a query dataset with mapping images."""
        return self.output / "pairs" / f"{name}.txt"

    def localized(self, query: str) -> Path:
        """Poses of a query dataset."""
        return self.output / "localized" / query

    def evaluated(self, query: str) -> Path:
        """Errors of those poses."""
        return self.output / "evaluation" / query

    @property
    def model(self) -> Path:
        """The map and all localized queries as one COLMAP model, of a given model."""
        return self.output / "model"

    @property
    def submission(self) -> Path:
        """Poses of all query datasets, in the format of visuallocalization.net."""
        return self.output / "submission.txt"
