"""A map from a folder of photographs, with cameras from EXIF.

    python -m r2d2_kapture.pipelines.images_to_map --images photos --output work

It is kapture_r2d2_pipeline without queries, and takes all of its other flags.
"""

from __future__ import annotations

from jsonargparse import Namespace

from r2d2_kapture.cli.pipeline import Recipe, add_folder, run_pipeline


def images_to_map(flags: Namespace) -> int:
    """From a folder of photographs to a map, with cameras from EXIF."""
    return run_pipeline(flags, queries={})


main = Recipe(
    name="images_to_map",
    flow=images_to_map,
    example="python -m r2d2_kapture.pipelines.images_to_map --images photos "
    "--output work",
    add_inputs=add_folder("--images", "folder of photographs"),
)

if __name__ == "__main__":
    raise SystemExit(main())
