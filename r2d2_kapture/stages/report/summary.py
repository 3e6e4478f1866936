"""The first section: inputs, outputs, settings, times and failures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from r2d2_kapture.stages.report import page
from r2d2_kapture.stages.run_record import default_settings
from r2d2_kapture.types import counted, duration

Json = Mapping[str, Any]

MOST_FAILURES = 100
"""Greatest number of failures listed; the others are counted."""
MAP_STAGES = ("map", "colmap")
"""Those whose reports count the images and points of a map."""
VERIFIED = (
    ("verified_pairs", "{:,} pairs verified"),
    ("inliers", "{:,} inliers"),
)
MAPPED = (
    ("registered_images", "{:,} images registered"),
    ("points", "{:,} points"),
    ("mean_reprojection_error", "mean reprojection error {:.2f} px"),
)
COUNTS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "import": (
        ("left_out_as_blurred", "{:,} left out as blurred"),
        ("left_out_as_doubled", "{:,} left out as doubled"),
    ),
    "extract": (
        ("keypoints", "{:,} keypoints"),
        ("keypoints_per_image", "{:,} an image"),
        ("device", "on {}"),
        ("precision", "in {}"),
        ("engine", "by {}"),
    ),
    "pairs": (("method", "chosen by: {}"),),
    "match": (
        ("matches", "{:,} matches"),
        ("matches_per_pair", "{:,} a pair"),
        ("pairs_without_matches", "{:,} pairs without"),
    ),
    "verify": VERIFIED,
    "refine": (
        ("moved", "{:,} keypoints moved"),
        ("step_median", "median step {:.2f} px"),
    ),
    "map": (("method", "{}"), *MAPPED),
    "colmap": (*VERIFIED, *MAPPED),
    "localize": (
        ("localized", "{:,} good"),
        ("doubtful", "{:,} doubtful"),
        ("median_inliers", "median inliers {:,.0f}"),
        ("refined", "{:,} refined"),
    ),
}
"""Texts of the table of stages, by the keys of their reports."""


def summary_section(pipeline: Json) -> page.Section:
    """The section of a pipeline.

    Args:
        pipeline: content of pipeline_report.json; fields that an older one lacks are
            left out.
    """
    stages = pipeline.get("stages", [])
    blocks = [page.numbers(_figures(stages))]
    blocks += _failures(pipeline.get("failed", []))
    blocks += _warnings(pipeline.get("warnings", []))
    blocks += _datasets(pipeline.get("inputs", {}))
    blocks += _model(pipeline.get("model"))
    blocks += _settings(pipeline.get("settings"), pipeline.get("inputs", {}))
    blocks += _stages(stages, pipeline.get("inputs", {}))
    blocks += _environment(pipeline.get("environment", {}))
    return page.Section("summary", "Summary", page.join(blocks))


def _figures(stages: Sequence[Json]) -> dict[str, str]:
    figures: dict[str, str] = {}
    for stage in stages:
        if stage["stage"] in MAP_STAGES and "registered_images" in stage:
            given = f" of {stage['images']:,}" if "images" in stage else ""
            figures["images in the map"] = f"{stage['registered_images']:,}{given}"
            figures["points"] = f"{stage.get('points', 0):,}"
    poses = [stage for stage in stages if stage["stage"] == "localize"]
    if poses:
        good = sum(stage.get("localized", 0) for stage in poses)
        doubtful = sum(stage.get("doubtful", 0) for stage in poses)
        figures["queries localized"] = f"{good + doubtful:,}"
        figures["of them doubtful"] = f"{doubtful:,}"
    figures["time of all stages"] = duration(sum(map(_seconds, stages)))
    return figures


def _seconds(stage: Json) -> float:
    """Time of the run that did the work."""
    return float(stage.get("work", stage).get("seconds", 0.0))


def _failures(failed: Sequence[Json]) -> Iterator[Markup]:
    if failed:
        yield page.heading(f"Failures ({len(failed):,})")
        yield page.bullets(
            _some(f"{one['name']}: {one['reason']}" for one in failed), "failure"
        )


def _warnings(texts: Sequence[str]) -> Iterator[Markup]:
    if texts:
        yield page.heading(f"Warnings ({len(texts):,})")
        yield page.bullets(_some(texts), "warning")


def _some(texts: Iterable[str]) -> list[str]:
    listed = list(texts)
    more = len(listed) - MOST_FAILURES
    return listed[:MOST_FAILURES] + [f"and {more:,} more"] * (more > 0)


def _datasets(inputs: Json) -> Iterator[Markup]:
    described = {name: one for name, one in _by_role(inputs).items() if one}
    if described:
        yield page.heading("Datasets")
        rows: list[Sequence[page.Cell]] = [
            (
                role,
                one["images"],
                one["cameras"],
                one["images_with_pose"],
                one["path"],
            )
            for role, one in described.items()
        ]
        titles = ("dataset", "images", "cameras", "images with a known pose", "folder")
        yield page.table(titles, rows)
    if inputs.get("features"):
        yield page.paragraph(
            f"Existing features: {', '.join(inputs['features'])}", "note"
        )


def _by_role(inputs: Json) -> dict[str, Json]:
    queries = {
        f"queries: {name}": one for name, one in inputs.get("queries", {}).items()
    }
    return {"mapping": inputs.get("mapping", {}), **queries}


def _model(model: Json | None) -> Iterator[Markup]:
    if model is not None:
        licence = model.get("license") or "not stated"
        yield page.heading("Weights")
        checksum = model["sha256"] and f", SHA-256 {model['sha256'][:12]}"
        yield page.paragraph(f"{model['name']}, licence: {licence}{checksum or ''}")


def _settings(settings: Json | None, inputs: Json) -> Iterator[Markup]:
    if settings is None:
        return
    extract = dict(settings.get("extract") or {})
    for part in list(extract.values()):  # reports of older versions have sections
        extract |= part if isinstance(part, Mapping) else {}
    chosen = {
        "matcher": settings.get("match", {}).get("matcher"),
        "extractor": extract.get("extractor"),
    }
    settings = {**settings, "extract": extract}
    changed = {
        name.replace("_", "-"): (inputs[name], default)
        for name, default in (("model_in", None), ("rotations", "off"))
        if name in inputs
    }
    changed |= changed_settings(settings, default_settings(chosen))
    yield page.heading("Settings that differ from the defaults")
    if not changed:
        yield page.paragraph("None: all settings have their defaults.")
    else:
        rows = [
            (name, setting_text(value), setting_text(default))
            for name, (value, default) in changed.items()
        ]
        yield page.table(("setting", "value", "default"), rows)


def changed_settings(
    settings: Json, defaults: Json, prefix: str = ""
) -> dict[str, tuple[Any, Any]]:
    """Value and default of each setting that differs, by its flag's name.

    Settings that only one of them has, because versions differ, are left out.
    """
    changed: dict[str, tuple[Any, Any]] = {}
    for name, default in defaults.items():
        value = settings.get(name, default)
        if isinstance(default, Mapping) and isinstance(value, Mapping):
            changed |= changed_settings(value, default, f"{prefix}{name}.")
        elif value != default:
            changed[prefix + name.replace("_", "-")] = (value, default)
    return changed


def setting_text(value: Any) -> str:
    """A setting as text."""
    if value is None or value == []:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(
            " ".join(map(setting_text, item)) if isinstance(item, list) else str(item)
            for item in value
        )
    return f"{value:g}" if isinstance(value, float) else str(value)


def _stages(stages: Sequence[Json], inputs: Json) -> Iterator[Markup]:
    if not stages:
        return
    rows: list[Sequence[page.Cell]] = []
    for stage, subject in zip(stages, _subjects(stages, inputs)):
        work = stage.get("work", stage)
        count = stage["done"] + stage.get("skipped", 0)
        rows.append(
            (
                stage["stage"],
                subject,
                counted(count, stage["unit"]) if stage.get("unit") else count,
                len(stage.get("failed", [])),
                _seconds(stage),
                _counts({**stage, **work}),
            )
        )
    yield page.heading("Stages")
    yield page.table(
        ("stage", "of", "made", "failed", "time (s)", "what"), rows, digits=2
    )
    if any(not stage["done"] and _seconds(stage) for stage in stages):
        yield page.paragraph(
            "The last run resumed: counts and times of finished stages are those of "
            "the run that did the work.",
            "note",
        )


def _subjects(stages: Sequence[Json], inputs: Json) -> Iterator[str]:
    """The dataset of each stage, in the order of a pipeline."""
    extracted = iter(["mapping", *inputs.get("queries", {})])
    current = "mapping"
    for stage in stages:
        if stage["stage"] == "extract":
            yield next(extracted, "")
            continue
        if stage["stage"] in ("photographs", "pairs") and stage["outputs"]:
            current = Path(stage["outputs"][0]).stem
        yield current


def _counts(stage: Json) -> str:
    shown = [
        text.format(stage[key])
        for key, text in COUNTS.get(stage["stage"], ())
        if stage.get(key)
    ]
    return ", ".join(shown)


def _environment(environment: Json) -> Iterator[Markup]:
    if not environment:
        return
    gpus: Counter[str] = Counter(environment.get("gpus", []))
    rows: list[Sequence[page.Cell]] = [
        (
            "processor",
            f"{environment.get('processor')}, {environment.get('cores')} cores",
        ),
        *(("GPU", f"{count} x {name}") for name, count in gpus.items()),
        *environment.get("versions", {}).items(),
    ]
    yield page.folded(
        "Versions and processor of the last run", page.table(("", ""), rows)
    )
