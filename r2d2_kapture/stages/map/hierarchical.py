"""Large maps of unknown poses: clusters of images, mapped one by one and joined.

COLMAP cuts the graph of verified pairs into clusters that share images, and maps each
incrementally (Schoenberger et al., hierarchical_mapper). It joins clusters by the
positions of the images that they share, which along a street lie on a line and leave
the rotation about it open; such clusters are joined by their common points.
"""

from __future__ import annotations

import re
from pathlib import Path

import pycolmap

from r2d2_kapture.config.map import MapConfig
from r2d2_kapture.io.colmap.log import pycolmap_log
from r2d2_kapture.stages.map.adjust import adjust
from r2d2_kapture.stages.map.calibration import Models
from r2d2_kapture.stages.map.join import join_models
from r2d2_kapture.stages.map.workspace import Workspace, read_verified

OVERLAP = 0.1
"""Images that clusters share with others, relative to those of a cluster: COLMAP's."""
CLUSTER = re.compile(r"\] +Cluster \d+ with \d+ images$")
"""COLMAP's message on each cluster."""


def map_in_clusters(
    config: MapConfig,
    workspace: Workspace,
    pipeline: pycolmap.IncrementalPipelineOptions,
) -> tuple[Models, int]:
    """Map clusters of ``config.cluster_images`` images, join and adjust them.

    Args:
        config: size of clusters, and threads: as many clusters are mapped at a time.
        workspace: database and folders.
        pipeline: how each cluster is mapped.

    Returns:
        Models that have no part in common, none if no pair has ``min_matches``; and the
        number of clusters, 0 where COLMAP does not say.
    """
    content = read_verified(workspace.database)
    if max(content.most_inliers.values()) < config.min_matches:
        return [], 0  # COLMAP raises an error without a reason
    options = pycolmap.HierarchicalPipelineOptions(
        incremental_options=pipeline,
        num_threads=config.threads,
        num_workers=config.threads,
    )
    clusters = options.clustering_options
    clusters.leaf_max_num_images = config.cluster_images
    clusters.image_overlap = round(OVERLAP * config.cluster_images)
    pycolmap.set_random_seed(config.seed)  # COLMAP joins clusters by another one
    with pycolmap_log(workspace.scratch):
        found = pycolmap.hierarchical_mapping(
            str(workspace.database),
            str(workspace.image_folder),
            str(workspace.scratch),
            options=options,
        )
    models = join_models(found.values(), config.max_reprojection_error)
    for model in models:
        adjust(model, workspace.database, pipeline)
    return models, _count_clusters(workspace.scratch)


def _count_clusters(log_folder: Path) -> int:
    """The clusters that COLMAP made, which only its log names."""
    count = 0
    for path in log_folder.glob("*.log*"):
        with open(path, encoding="utf-8", errors="replace") as lines:
            count += sum(CLUSTER.search(line) is not None for line in lines)
    return count
