"""Reports of slices, added up in that of the run that puts them together."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from r2d2_kapture.types import Report, counted


@dataclass(frozen=True, kw_only=True)
class OwnWork:
    """The numbers of a report that are of what its run did itself.

    Attributes:
        sums: over the items.
        averages: numbers that are one of these by the items done.
        noun: of the first sum, of which the summary is.
    """

    sums: Sequence[str] = ()
    averages: Mapping[str, str] = field(default_factory=dict)
    noun: str = ""

    def without(self, report: Report) -> Report:
        """A report of the same items by a run that finds them done."""
        none = dict.fromkeys((*self.sums, *self.averages), 0)
        return dataclasses.replace(
            report, summary="", details={**report.details, **none}
        )


def with_work_of(
    slices: Sequence[Mapping[str, Any]], report: Report, own: OwnWork
) -> Report:
    """A report with the work of slices, whose items the run found done.

    Args:
        slices: their reports as JSON.
        report: of the run.
        own: numbers of the run's own work.
    """
    details = dict(report.details)
    done = sum(int(one["done"]) for one in slices)
    for name in own.sums:
        details[name] += sum(int(one[name]) for one in slices)
    for name, of in own.averages.items():
        details[name] = round(details[of] / max(done + report.done, 1))
    seconds = sum(float(one["seconds"]) for one in slices)
    return dataclasses.replace(
        report,
        warnings=(*report.warnings, *_warnings(slices, report)),
        done=report.done + done,
        skipped=max(report.skipped - done, 0),
        summary=counted(details[own.sums[0]], own.noun) if own.sums else report.summary,
        details=details
        | {"slices": len(slices), "seconds_of_slices": round(seconds, 3)},
    )


def _warnings(slices: Sequence[Mapping[str, Any]], report: Report) -> Iterator[str]:
    """What slices warned of and the report does not, in one sentence."""
    found = [
        f"slice {one['slice']}: {text}"
        for one in slices
        for text in one["warnings"]
        if text not in report.warnings
    ]
    if found:
        yield f"{counted(len(found), 'warning')} of slices, such as {found[0]}"
