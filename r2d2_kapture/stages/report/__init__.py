"""The report: a map, how it was made and what was localized in it, on one page."""

from r2d2_kapture.stages.report.page import Section, fragment, render
from r2d2_kapture.stages.report.subject import (
    QuerySet,
    Subject,
    map_subject,
    pipeline_subject,
)

__all__ = [
    "QuerySet",
    "Section",
    "Subject",
    "fragment",
    "map_subject",
    "pipeline_subject",
    "render",
]
