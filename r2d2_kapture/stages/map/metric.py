"""Maps with the positions of their images: in metres, or with the way to metres."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import pycolmap

from r2d2_kapture.config.map import MapConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.io.georeference import Georeference
from r2d2_kapture.stages.map.calibration import Models
from r2d2_kapture.stages.map.priors import FACTORS, Fit, Priors, fit_priors
from r2d2_kapture.stages.map.reconstruct import map_unknown_poses
from r2d2_kapture.stages.map.workspace import Workspace

ADJUSTED = "bundle adjustment"
ALIGNED = "alignment"
GEOREFERENCE = "georeference, poses as they are"
"""How positions were used."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """What became of the positions of a map's images.

    Attributes:
        georeference: where the map lies; None if that is not known.
        used: how positions were used, for the report.
        warnings: sentences on them.
    """

    georeference: Georeference | None = None
    used: str = ""
    warnings: tuple[str, ...] = ()

    def details(self) -> dict[str, Any]:
        """Numbers for a report; none without positions that fit."""
        found = self.georeference
        if found is None:
            return {}
        numbers: dict[str, Any] = {
            "used": self.used,
            "images": found.images,
            "outliers": found.outliers,
            "residual_median": found.residual_median,
            "residual_95": found.residual_95,
        }
        if self.used == GEOREFERENCE:
            numbers["metres_per_unit"] = round(float(found.metric_from_map.scale), 6)
        if found.frame is not None:
            numbers["origin"] = str(found.frame)
        return {"priors": numbers}


def map_with_priors(
    config: MapConfig,
    workspace: Workspace,
    options: RunOptions,
    priors: Priors | None,
) -> tuple[Models, dict[str, Any], Metric]:
    """Estimate poses and points, in metres where positions allow it.

    Positions that most of the map disagrees with are not used, and the map is made
    again without them.

    Returns:
        See map_unknown_poses; and what became of the positions.

    Raises:
        ReconstructionError: see map_unknown_poses.
    """
    if priors is None:
        return (*map_unknown_poses(config, workspace, options), Metric())
    if config.priors == "auto" and config.method == "incremental":
        priors.write(workspace.database)
        with_priors = dataclasses.replace(workspace, use_priors=True)
        models, calibration = map_unknown_poses(config, with_priors, options)
        fit = fit_priors(models[0], priors, moved=True)
        if fit is not None and fit.problem is None:
            return models, calibration, _metric(fit, priors, ADJUSTED)
        workspace = workspace.in_phase("once more without positions")
    models, calibration = map_unknown_poses(config, workspace, options)
    return models, calibration, align(models, priors)


def align(models: Models, priors: Priors | None) -> Metric:
    """Move maps onto the positions of their images, where these fit."""
    metric = Metric()
    if priors is None:
        return metric
    for model in reversed(models):
        fit = _align(model, priors)
        if fit is not None and fit.problem is None:
            model.transform(fit.similarity)
        metric = _metric(fit, priors, ALIGNED)
    return metric


def georeference(model: pycolmap.Reconstruction, priors: Priors | None) -> Metric:
    """Where a map of known poses lies, which stays as it is."""
    if priors is None:
        return Metric()
    return _metric(_align(model, priors), priors, GEOREFERENCE)


def _align(model: pycolmap.Reconstruction, priors: Priors) -> Fit | None:
    """The similarity onto the positions, which may be less accurate than they say."""
    for factor in FACTORS:
        fit = fit_priors(model, priors, factor=factor)
        if fit is None or fit.most_agree:
            break
    return fit


def _metric(fit: Fit | None, priors: Priors, used: str) -> Metric:
    if fit is None or fit.problem is not None:
        problem = (
            "too few images of the map have a position" if fit is None else fit.problem
        )
        return Metric(warnings=(f"{problem}: the map is not in metres",))
    moved = fit.similarity if used == GEOREFERENCE else pycolmap.Sim3d()
    return Metric(
        georeference=fit.georeference(priors.frame, moved),
        used=used,
        warnings=fit.warnings(),
    )
