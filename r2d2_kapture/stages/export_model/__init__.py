"""Export of networks for other runtimes than this package."""

from r2d2_kapture.stages.export_model.stage import run

__all__ = ["run"]
