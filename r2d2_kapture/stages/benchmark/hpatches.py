"""The benchmark on homography sequences, in the layout and protocol of HPatches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from matplotlib.figure import Figure

from r2d2_kapture.config.hpatches import HomographyConfig
from r2d2_kapture.errors import DatasetError
from r2d2_kapture.evaluation.homography import (
    THRESHOLDS,
    MatchedPair,
    evaluate_sequence,
)
from r2d2_kapture.evaluation.results import (
    HomographyResults,
    load_sequence,
    save_results,
    save_sequence,
)
from r2d2_kapture.evaluation.sequences import (
    HomographySequence,
    Kind,
    find_sequences,
    read_sequence,
)
from r2d2_kapture.evaluation.summary import MMA, OVERALL, RunSummary, read_summary
from r2d2_kapture.evaluation.tables import Row
from r2d2_kapture.io.outputs.manifest import Manifest
from r2d2_kapture.matching.matcher import build_matcher
from r2d2_kapture.pictures.homography import AccuracyCurves, accuracy_figure
from r2d2_kapture.stages.benchmark.benchmark import (
    CORRECT_PIXELS,
    Benchmark,
    Item,
    LoadFeatures,
)
from r2d2_kapture.stages.benchmark.presentation import Presentation
from r2d2_kapture.types import Failure, some_names

COLUMN = THRESHOLDS.index(CORRECT_PIXELS)
GROUPS = (OVERALL, "illumination", "viewpoint")


def shown_groups(runs: Sequence[RunSummary]) -> list[str]:
    """Groups of pairs of any run; overall only where it differs from the others."""
    found = {group for run in runs for group in run.groups}
    groups = [group for group in (OVERALL, *get_args(Kind)) if group in found]
    if len(groups) == 2:
        # all pairs are of one kind: overall would repeat it
        groups.remove(OVERALL)
    return groups


def _means(runs: Sequence[RunSummary]) -> list[Row]:
    return [
        Row(names=(group, run.label), values=run.groups[group].values)
        for group in shown_groups(runs)
        for run in runs
        if group in run.groups
    ]


def _sequences(runs: Sequence[RunSummary]) -> list[Row]:
    return [
        Row(names=(run.label, name), values=group.values)
        for run in runs
        for name, group in run.sequences.items()
    ]


def _all(runs: Sequence[RunSummary]) -> list[Row]:
    groups = [
        Row(names=(run.label, name), values=group.values)
        for run in runs
        for name, group in run.groups.items()
    ]
    return groups + _sequences(runs)


def _to_json(run: RunSummary) -> dict[str, Any]:
    """A run with its weights, settings, seed and versions as plain values."""
    return {
        "label": run.label,
        "source": str(run.source),
        "published": run.published,
        "manifest": dict(run.manifest),
        "groups": {name: group.values for name, group in run.groups.items()},
        "sequences": {name: group.values for name, group in run.sequences.items()},
    }


def _figure(runs: Sequence[RunSummary]) -> Figure:
    """The accuracy of all runs: overall, illumination, viewpoint."""
    methods = [
        AccuracyCurves(
            label=f"{run.label} ({run.groups[OVERALL].pairs} pairs)",
            published=run.published,
            curves={name: group.curves[MMA] for name, group in run.groups.items()},
        )
        for run in runs
    ]
    return accuracy_figure(methods, GROUPS)


PRESENTATION = Presentation(
    name="hpatches",
    suffix=".npz",
    expected=".npz files or published caches",
    read=read_summary,
    titles=("pairs of", "features of"),
    columns=(
        {
            "pairs": "pairs",
            "features": "features",
            "matches": "matches",
            **{f"MMA@{t}": f"MMA@{t}" for t in (1, 2, 3, 5, 10)},
        },
        {
            "repeatability@3": "rep@3",
            "M-score@3": "M-s@3",
            **{f"homography@{t}": f"H@{t}" for t in (1, 3, 5)},
            **{f"AUC@{t}": f"AUC@{t}" for t in (1, 3, 5)},
        },
    ),
    legend="Means over pairs: MMA@t matches within t px of the truth; rep@t "
    "repeatability; M-s@t matching score; H@t homographies with a corner error within "
    "t px, AUC@t the area below that share. docs/evaluation.md defines them.\n",
    means=_means,
    item_titles=("features of", "sequence"),
    items=_sequences,
    csv_titles=("label", "group"),
    csv=_all,
    to_json=_to_json,
    figure=_figure,
    plot_name="mma.png",
)
"""Numbers of the printed tables and their titles; CSV and JSON hold all."""


def open_benchmark(
    config: HomographyConfig, *, root: Path
) -> Benchmark[HomographySequence, MatchedPair]:
    """Evaluate local features on homography sequences in the layout of HPatches.

    The protocol is that of D2-Net and R2D2: matching accuracy, repeatability, matching
    score, homography accuracy. Run it again to resume.

    Args:
        config: what is measured.
        root: folder with sequences at any depth: images 1 to n and files H_1_2 to H_1_n
            in folders i_... and v_...

    Raises:
        DatasetError: there is no sequence.
    """
    everything = find_sequences(root, leave_out=())
    folders = everything if config.all_sequences else find_sequences(root)
    sequences, failed = [], []
    for name, folder in folders.items():
        try:
            sequences.append(read_sequence(folder, name))
        except DatasetError as error:
            failed.append(Failure(name=name, reason=str(error)))
    matcher = build_matcher(config.matcher)

    def measure(
        sequence: HomographySequence, load: LoadFeatures
    ) -> tuple[list[MatchedPair], list[Failure]]:
        pairs = evaluate_sequence(
            sequence,
            load,
            THRESHOLDS,
            matcher=matcher,
            ransac_error=config.ransac_error,
            seed=config.seed,
        )
        return pairs, []

    return Benchmark(
        presentation=PRESENTATION,
        unit="sequence",
        items=tuple(map(_item, sequences)),
        root=root,
        matcher=matcher,
        protocol={
            "thresholds": list(THRESHOLDS),
            "homography_ransac_error": config.ransac_error,
            "seed": config.seed,
        },
        details=lambda pairs: {
            "sequences": len(folders),
            "left_out": sorted(everything.keys() - folders.keys()),
            "pairs": pairs,
        },
        failed=tuple(failed),
        warnings=_shorter(sequences),
        keeps_features=False,
        measure=measure,
        item_suffix=".npz",
        load_item=load_sequence,
        save_item=save_sequence,
        save_run=_save_run,
        worst_pairs=config.worst_pairs,
        rank=lambda pair: (pair.mma[COLUMN], pair.sequence, pair.image),
        shown=_shown,
        matched=lambda sequence, pair, load: pair,
    )


def _item(sequence: HomographySequence) -> Item[HomographySequence]:
    return Item(
        name=sequence.name,
        images=sequence.images,
        truth=b"".join(matrix.tobytes() for matrix in sequence.homographies),
        subject=sequence,
    )


def _save_run(
    path: Path, label: str, manifest: Manifest, pairs: Sequence[MatchedPair]
) -> None:
    text = manifest.to_text()
    results = HomographyResults(
        label=label, manifest=text, thresholds=THRESHOLDS, pairs=tuple(pairs)
    )
    save_results(path, results)


def _shown(
    sequence: HomographySequence, pair: MatchedPair
) -> tuple[str, tuple[Path, Path]]:
    images = sequence.images[0], sequence.images[pair.image - 1]
    return f"{pair.sequence}, 1 and {pair.image}", images


def _shorter(sequences: Sequence[HomographySequence]) -> tuple[str, ...]:
    """The warning on sequences with fewer images than others."""
    most = max((len(sequence.images) for sequence in sequences), default=0)
    names = [one.name for one in sequences if len(one.images) < most]
    if not names:
        return ()
    return (
        f"{len(names)} of {len(sequences)} sequences have fewer than {most} images: "
        f"{some_names(names)}; they contribute fewer pairs to the means",
    )
