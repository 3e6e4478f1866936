"""The report: a map, how it was made and the queries localized in it, on one page."""

from r2d2_kapture.stages.report.stage import PAGE_NAME, run, with_page

__all__ = ["PAGE_NAME", "run", "with_page"]
