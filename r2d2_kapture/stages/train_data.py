"""What a run is trained and validated on."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r2d2_kapture.config.training_pairs import PairConfig
from r2d2_kapture.config.training_sources import SourceConfig
from r2d2_kapture.evaluation.sequences import HomographySequence, read_sequences
from r2d2_kapture.stages.train_validation import built_in_pairs
from r2d2_kapture.stages.training_sources import open_sources
from r2d2_kapture.stages.training_views import (
    OpenedSources,
    find_photographs,
    photograph_sources,
)
from r2d2_kapture.training.validation import HomographyPair, hold_out


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingData:
    """What a run is made of.

    Attributes:
        opened: the sources of pairs, and what they leave out.
        trained: names of the photographs of the synthetic pairs, in their folder.
        held_out: pairs to validate on, of photographs that are not trained on.
        sequences: of a folder of the user's to validate on.
    """

    opened: OpenedSources
    trained: tuple[str, ...]
    held_out: tuple[HomographyPair, ...]
    sequences: tuple[HomographySequence, ...]

    @property
    def items(self) -> int:
        """Photographs and pairs of all sources, which make an epoch."""
        return sum(len(item.source) for item in self.opened.sources)

    def summary(self) -> dict[str, Any]:
        """What a checkpoint says of what it was trained on; no path in full."""
        names = "\n".join(self.trained).encode("utf-8", "surrogateescape")
        return {
            "sources": {
                Path(item.source.name).name: len(item.source)
                for item in self.opened.sources
            },
            "photographs": len(self.trained),
            "names_sha256": hashlib.sha256(names).hexdigest(),
        }


def open_training_data(
    inputs: SourceConfig, config: PairConfig, validation: Path | None
) -> TrainingData:
    """Open the sources, but for a few photographs that are held out.

    Args:
        inputs: where the pictures are.
        config: of the pairs.
        validation: folder of sequences in the layout of HPatches.

    Raises:
        ConfigError, DatasetError, ImageError, ReconstructionError: a source cannot be
            used.
    """
    sequences = tuple(read_sequences(validation)) if validation else ()
    if inputs.images is None:
        opened = open_sources(inputs, config)
        return TrainingData(opened=opened, trained=(), held_out=(), sequences=sequences)
    paths, skipped = find_photographs(inputs.images, config)
    trained, held_out = hold_out(paths, inputs.images)
    sources = photograph_sources(inputs.images, trained, config)
    opened = OpenedSources(sources=sources, skipped=skipped)
    if inputs.data_root or inputs.depth_dataset or inputs.sfm_model:
        others = dataclasses.replace(inputs, images=None)
        opened = opened.joined(open_sources(others, config))
    return TrainingData(
        opened=opened,
        trained=tuple(path.relative_to(inputs.images).as_posix() for path in trained),
        held_out=built_in_pairs(held_out, inputs.images),
        sequences=sequences,
    )
