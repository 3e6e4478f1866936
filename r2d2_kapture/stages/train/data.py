"""What a run is trained and validated on."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r2d2_kapture.config.megadepth import MegadepthPairs
from r2d2_kapture.config.training_pairs import PairConfig
from r2d2_kapture.config.training_sources import SourceConfig, ValidationConfig
from r2d2_kapture.evaluation.sequences import HomographySequence, read_sequences
from r2d2_kapture.io.names import shown
from r2d2_kapture.stages.train.photographs import (
    OpenedSources,
    find_photographs,
    photograph_sources,
    picture_loader,
)
from r2d2_kapture.stages.train.sources import open_sources, open_validation_sources
from r2d2_kapture.stages.train.validation import built_in_pairs
from r2d2_kapture.training.validation import HomographyPair, hold_out
from r2d2_kapture.types import some_names


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingData:
    """What a run is made of.

    Attributes:
        opened: the sources of pairs, and what they leave out.
        trained: names of the photographs of the synthetic pairs, in their folder.
        held_out: pairs to validate on, of photographs that are not trained on.
        sequences: of a folder of the user's to validate on.
        posed: sources of pairs to validate on by their loss, and what they leave out.
    """

    opened: OpenedSources
    trained: tuple[str, ...]
    held_out: tuple[HomographyPair, ...]
    sequences: tuple[HomographySequence, ...]
    posed: OpenedSources

    @property
    def items(self) -> tuple[int, ...]:
        """Photographs or pairs of each source."""
        return tuple(len(item.source) for item in self.opened.sources)

    @property
    def has_validation(self) -> bool:
        """Whether there is anything to validate on."""
        return bool(self.held_out or self.sequences or self.posed.sources)

    @property
    def in_both(self) -> tuple[str, ...]:
        """Names of sources that are both trained and validated on."""
        trained = {item.source.name for item in self.opened.sources}
        validated = {item.source.name for item in self.posed.sources}
        return tuple(sorted(trained & validated))

    @property
    def gone(self) -> tuple[str, ...]:
        """What was there at the start and was met unusable since."""
        both = (*self.opened.sources, *self.posed.sources)
        return tuple(name for item in both for name in item.source.gone)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a report says of the pictures, once they have been trained on."""
        found = [*self.opened.report_warnings()]
        found += self.posed.report_warnings(" of validation")
        if self.in_both:
            found.append(
                f"{len(self.in_both)} sources are both trained and validated on, which "
                f"flatters the weights: {some_names(map(shown, self.in_both))}"
            )
        if self.gone:
            found.append(
                f"{len(self.gone)} pictures or pairs became unusable in training, and "
                f"were replaced by others: {some_names(map(shown, self.gone))}"
            )
        return tuple(found)

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
    inputs: SourceConfig,
    validation: ValidationConfig,
    config: PairConfig,
    selection: MegadepthPairs = MegadepthPairs(),
) -> TrainingData:
    """Open the sources, but for a few photographs that are held out.

    Args:
        inputs: where the pictures are.
        validation: what to validate on.
        config: of the pairs.
        selection: which pairs of MegaDepth.

    Raises:
        ConfigError, DatasetError, ImageError, ReconstructionError: a source cannot be
            used.
    """
    folder = validation.validation
    sequences = tuple(read_sequences(folder)) if folder else ()
    if validation.has_posed:
        # of the memory for pictures, one half is theirs
        config = dataclasses.replace(config, cache_gib=config.cache_gib / 2)
    posed = open_validation_sources(inputs, validation, config, selection)
    if inputs.images is None:
        return TrainingData(
            opened=open_sources(inputs, config, selection),
            trained=(),
            held_out=(),
            sequences=sequences,
            posed=posed,
        )
    load = picture_loader(config)
    paths, skipped = find_photographs(inputs.images, config, inputs.exclude)
    trained, held_out = hold_out(paths, inputs.images)
    sources = photograph_sources(inputs.images, trained, config, load)
    opened = OpenedSources(sources=sources, skipped=skipped)
    if inputs.has_others:
        others = dataclasses.replace(inputs, images=None)
        opened = opened.joined(open_sources(others, config, selection, load))
    return TrainingData(
        opened=opened,
        trained=tuple(path.relative_to(inputs.images).as_posix() for path in trained),
        held_out=built_in_pairs(held_out, inputs.images),
        sequences=sequences,
        posed=posed,
    )
