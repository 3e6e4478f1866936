"""The end of a map: all of it adjusted, its tracks completed and filtered."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pycolmap


def adjust(
    model: pycolmap.Reconstruction,
    database: Path,
    pipeline: pycolmap.IncrementalPipelineOptions,
) -> None:
    """Adjust all, complete tracks and filter them in turn, as COLMAP ends a map."""
    with closing(pycolmap.Database.open(str(database))) as opened:
        cache = pycolmap.DatabaseCache.create(
            opened,
            pycolmap.DatabaseCacheOptions(min_num_matches=pipeline.min_num_matches),
        )
    mapper = pycolmap.IncrementalMapper(cache)
    mapper.begin_reconstruction(model)
    mapper.iterative_global_refinement(
        pipeline.ba_global_max_refinements,
        pipeline.ba_global_max_refinement_change,
        pipeline.get_mapper(),
        pipeline.get_global_bundle_adjustment(),
        pipeline.get_triangulation(),
        normalize_reconstruction=False,
    )
    mapper.end_reconstruction(discard=False)
    model.update_point_3d_errors()
