"""Opens everything that a run makes pairs of."""

from __future__ import annotations

from r2d2_kapture.config.training_pairs import PairConfig
from r2d2_kapture.config.training_sources import SourceConfig
from r2d2_kapture.stages.posed_views import open_depth_views, open_model_views
from r2d2_kapture.stages.training_views import (
    OpenedSources,
    find_photographs,
    open_named_sources,
    photograph_sources,
    picture_loader,
)


def open_sources(inputs: SourceConfig, config: PairConfig) -> OpenedSources:
    """Open all sources, with one memory for their pictures.

    Raises:
        ConfigError, DatasetError, ReconstructionError: one of them cannot be used.
    """
    load = picture_loader(config)
    opened = OpenedSources(sources=(), skipped=())
    if inputs.images is not None:
        paths, skipped = find_photographs(inputs.images, config)
        sources = photograph_sources(inputs.images, paths, config, load)
        opened = opened.joined(OpenedSources(sources=sources, skipped=skipped))
    if inputs.data_root is not None:
        opened = opened.joined(
            open_named_sources(inputs.data_root, inputs.sources, config, load)
        )
    if inputs.depth_dataset is not None:
        opened = opened.joined(
            open_depth_views(inputs.depth_dataset, config, load, inputs.camera_origin)
        )
    if inputs.sfm_model is not None:
        opened = opened.joined(
            open_model_views(
                inputs.sfm_model, config, load, inputs.sfm_images, inputs.camera_origin
            )
        )
    return opened
