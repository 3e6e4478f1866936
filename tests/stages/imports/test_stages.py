"""What comes after an import: the stages run on its features, and add others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pycolmap
import pytest
from PIL import Image

import r2d2_kapture as rk
from r2d2_kapture.io.kapture.feature_table import find_feature_folders
from r2d2_kapture.io.kapture.local_features import open_local_features
from tests.scenes.reconstruction import Made, synthesize

WIDTH, HEIGHT = 64, 48


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    made = synthesize(
        tmp_path_factory.mktemp("made"),
        camera_width=WIDTH,
        camera_height=HEIGHT,
        camera_params=[80.0, WIDTH / 2, HEIGHT / 2, 0.0],
    )
    rng = np.random.default_rng(0)
    for image in made.model.images.values():
        noise = rng.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        Image.fromarray(noise).save(made.images / image.name)
    return made


@pytest.fixture
def dataset(made: Made, tmp_path: Path) -> Path:
    rk.import_dataset(
        database=str(made.database),
        model=made.sparse,
        images=made.images,
        output=tmp_path / "dataset",
        progress=False,
    )
    return tmp_path / "dataset"


def test_imported_features_are_matched_verified_and_mapped(
    dataset: Path, made: Made, tmp_path: Path
) -> None:
    pairs, again = tmp_path / "pairs.txt", tmp_path / "matches"
    quiet = {"progress": False}
    rk.choose_pairs(mapping=dataset, method="exhaustive", output=pairs, **quiet)
    matched = rk.match_pairs(features=dataset, pairs=pairs, output=again, **quiet)
    assert (matched.done, matched.failed) == (66, ())
    verified = rk.verify_pairs(
        mapping=dataset,
        features=dataset,
        matches=dataset,
        database=tmp_path / "map.db",
        output=tmp_path / "verified",
        **quiet,
    )
    assert verified.details["verified_pairs"] == 66
    assert not any("origin" in text for text in verified.warnings)
    rk.build_map(
        mapping=dataset,
        features=dataset,
        database=tmp_path / "map.db",
        output=tmp_path / "map",
        **quiet,
    )
    model = pycolmap.Reconstruction(str(tmp_path / "map" / "sparse"))
    assert model.num_points3D() == made.model.num_points3D()
    assert model.compute_mean_reprojection_error() < 1e-3
    found = np.array(sorted(p.xyz.tolist() for p in model.points3D.values()))
    true = sorted(p.xyz.tolist() for p in made.model.points3D.values())
    np.testing.assert_allclose(found, true, atol=1e-3)


def test_other_features_are_extracted_beside_and_survive(
    dataset: Path, made: Made, checkpoint_path: Path, tmp_path: Path
) -> None:
    sift = (dataset / "reconstruction/keypoints/sift").rglob("*.kpt")
    before = {path: path.read_bytes() for path in sift}
    report = rk.extract(
        kapture_root=dataset, model=checkpoint_path, gpu=-1, min_size=32, progress=False
    )
    assert (report.done, report.failed) == (12, ())
    types = {folder.type_name for folder in find_feature_folders(dataset, "keypoints")}
    assert "sift" in types and len(types) == 2
    (ours,) = types - {"sift"}
    name = min(image.name for image in made.model.images.values())
    features = open_local_features([dataset], ours).read(name, (WIDTH, HEIGHT))
    again = rk.import_dataset(
        database=made.database,
        model=made.sparse,
        images=made.images,
        output=dataset,
        force=True,
        progress=False,
    )
    assert again.done == 12
    assert {path: path.read_bytes() for path in before} == before
    kept = open_local_features([dataset], ours).read(name, (WIDTH, HEIGHT))
    assert np.array_equal(kept.keypoints, features.keypoints)
    assert all((made.images / i.name).is_file() for i in made.model.images.values())
