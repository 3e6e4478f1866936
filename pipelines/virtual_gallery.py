"""Virtual Gallery: a map of 12 images with known poses, and 4 queries localized in it.

    python -m r2d2_kapture.pipelines.virtual_gallery --dataset folder --output work

takes the authors' features (r2d2_500) and global features (AP-GeM). With
``--model r2d2_WASF_N16.pt`` the local features are ours. It takes all other flags of
kapture_r2d2_pipeline.
"""

from __future__ import annotations

from jsonargparse import Namespace

from r2d2_kapture.cli.pipeline import Recipe, add_folder, run_pipeline
from r2d2_kapture.config.extract import AUTO


def virtual_gallery(flags: Namespace) -> int:
    """Map the Virtual Gallery sample and localize its queries."""
    dataset = flags.dataset
    if flags.model is None and flags.extractor == AUTO:
        flags.features.append(dataset / "local_features" / "r2d2_500")
    flags.features.append(dataset / "global_features" / "AP-GeM-LM18")
    return run_pipeline(
        flags, mapping=dataset / "mapping", queries={"query": dataset / "query"}
    )


main = Recipe(
    name="virtual_gallery",
    flow=virtual_gallery,
    example="python -m r2d2_kapture.pipelines.virtual_gallery --dataset "
    "virtual_gallery --output work",
    preset="virtual_gallery",
    add_inputs=add_folder("--dataset", "folder of the sample"),
)

if __name__ == "__main__":
    raise SystemExit(main())
