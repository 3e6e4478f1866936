"""The training and validation data of a run."""

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
    """The data of a run.

    Attributes:
        opened: the sources of pairs, and items left out.
        trained: names of the photographs of the synthetic pairs, relative to their
            folder.
        held_out: validation pairs of photographs that are not trained on.
        sequences: validation sequences of a folder given by the user.
        posed: sources of pairs for the validation loss, and items left out.
    """

    opened: OpenedSources
    trained: tuple[str, ...]
    held_out: tuple[HomographyPair, ...]
    sequences: tuple[HomographySequence, ...]
    posed: OpenedSources

    @property
    def items(self) -> tuple[int, ...]:
        """Number of photographs or pairs of each source."""
        return tuple(len(item.source) for item in self.opened.sources)

    @property
    def has_validation(self) -> bool:
        """Whether there is validation data."""
        return bool(self.held_out or self.sequences or self.posed.sources)

    @property
    def in_both(self) -> tuple[str, ...]:
        """Names of sources used for both training and validation."""
        trained = {item.source.name for item in self.opened.sources}
        validated = {item.source.name for item in self.posed.sources}
        return tuple(sorted(trained & validated))

    @property
    def gone(self) -> tuple[str, ...]:
        """Items that became unusable during the run."""
        both = (*self.opened.sources, *self.posed.sources)
        return tuple(name for item in both for name in item.source.gone)

    @property
    def warnings(self) -> tuple[str, ...]:
        """The warnings on the data at the end of a run."""
        found = [*self.opened.report_warnings()]
        found += self.posed.report_warnings(" of validation")
        if self.in_both:
            found.append(
                f"{len(self.in_both)} sources are used for both training and "
                "validation, which overestimates accuracy: "
                f"{some_names(map(shown, self.in_both))}"
            )
        if self.gone:
            found.append(
                f"{len(self.gone)} pictures or pairs became unusable during training "
                f"and were replaced: {some_names(map(shown, self.gone))}"
            )
        return tuple(found)

    def summary(self) -> dict[str, Any]:
        """The training data as recorded in a checkpoint, without absolute paths."""
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
    """Open the sources, except for a few photographs that are held out.

    Args:
        inputs: folders of images.
        validation: settings of validation.
        config: of the pairs.
        selection: of pairs of MegaDepth.

    Raises:
        ConfigError, DatasetError, ImageError, ReconstructionError: a source cannot be
            used.
    """
    folder = validation.validation
    sequences = tuple(read_sequences(folder)) if folder else ()
    if validation.has_posed:
        # half of the memory for images
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
