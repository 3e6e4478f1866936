"""The report: a map, how it was made and what was localized in it, on one page."""

from r2d2_kapture.stages.report.page import Section, fragment, render

__all__ = ["Section", "fragment", "render"]
