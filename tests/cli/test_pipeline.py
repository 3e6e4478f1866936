"""kapture_r2d2_pipeline and the recipes: settings that do not fit the model."""

from __future__ import annotations

from pathlib import Path

import pytest
from jsonargparse import Namespace

from pipelines import aachen_day_night_v1_1, demo, images_to_map
from r2d2_kapture.cli.pipeline import Recipe, choose_extraction, main, pipeline_config
from r2d2_kapture.config.extract import D2NetConfig, ExtractConfig, R2D2Config
from r2d2_kapture.io.kapture.local_features import open_local_features
from r2d2_kapture.io.outputs.manifest import FILE_NAME as MANIFEST
from r2d2_kapture.io.outputs.manifest import read_manifest
from tests.commands import one_error_line, work_in
from tests.scenes.pipeline import PipelineScene


@pytest.mark.parametrize(
    "typed, message",
    [
        (["--extract.top_k", "9"], "--extract.top-k: found for a model of d2net"),
        (["--extract.no-subpixel"], "--extract.no-subpixel: found for a model of d2"),
        (["--config", "demo"], "--extract.top-k: found for a model of d2net"),
        (["--config", "mine.yaml"], "--extract.no-subpixel: found for a model of d2"),
    ],
)
def test_settings_of_r2d2_are_refused_for_d2net(
    kapture_root: Path,
    d2net_path: Path,
    typed: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("extract:\n  subpixel: false\n", "utf-8")
    output = kapture_root.parent / "work"
    command = ["--mapping", str(kapture_root), "--output", str(output)]
    assert main([*command, "--model", str(d2net_path), *typed]) == 2
    assert message in one_error_line(capsys)
    assert not output.exists()


@pytest.mark.parametrize("model", ["tiny", None])
def test_settings_of_d2net_are_refused_for_r2d2(
    kapture_root: Path,
    checkpoint_path: Path,
    model: str | None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of the model asked for, and of the bundled one where none is."""
    output = kapture_root.parent / "work"
    command = ["--mapping", str(kapture_root), "--output", str(output)]
    command += [] if model is None else ["--model", str(checkpoint_path)]
    command += ["--extract.multiscale", "--extract.max-edge", "800"]
    assert main(command) == 2
    error = one_error_line(capsys)
    assert "--extract.max-edge, --extract.multiscale: found for a model of r" in error
    assert not output.exists()


def test_settings_of_d2net_reach_a_d2net(
    kapture_root: Path, d2net_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = kapture_root.parent / "work"
    command = ["--mapping", str(kapture_root), "--output", str(output), "--quiet"]
    command += ["--model", str(d2net_path), "--extract.gpu", "-1"]
    main([*command, "--extract.max-keypoints", "3"])  # noise has no map
    features = open_local_features([output / "features"], "d2")
    assert len(features.read("a.png", (64, 48))) == 3
    assert work_in(capsys.readouterr().out, "extract") == "5 photographs, N keypoints"


def test_a_preset_sets_extraction_alone_and_flags_win(
    kapture_root: Path, checkpoint_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = kapture_root.parent / "work"
    command = ["--mapping", str(kapture_root), "--output", str(output), "--quiet"]
    command += ["--model", str(checkpoint_path), "--extract.gpu", "-1"]
    command += ["--extract.max-size", "512", "--preset", "fast", "--config", "demo"]
    main(command)  # noise has no map
    found = read_manifest(output / "features/reconstruction/keypoints/tiny" / MANIFEST)
    assert found is not None
    assert (found.settings["max_size"], found.settings["top_k"]) == (512, 2000)
    assert found.settings["scale_f"] == pytest.approx(2**0.5)
    capsys.readouterr()
    for typed, hint in (
        (["--preset", "fsat"], "did you mean fast?"),
        (["--config", "fast"], "--preset fast"),
    ):
        assert main([*command, *typed]) == 2
        assert hint in one_error_line(capsys)


def test_a_preset_without_extraction_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = PipelineScene(tmp_path)
    assert main([*scene.command(tmp_path / "work"), "--preset", "fast"]) == 2
    assert "--preset fast: found existing features" in one_error_line(capsys)


@pytest.mark.parametrize(
    "typed, error",
    [
        (["--refine", "of"], "--refine of: expected on or off; did you mean off?"),
        (["--refine=maybe"], "--refine maybe: expected on or off"),
        (["--refine"], "--refine: found no value, expected on or off"),
        (["--refien", "off"], "unrecognized argument --refien; did you mean --refine?"),
        (["--refine.max-step", "x"], "--refine.max-step x: expected a number of pixel"),
        (
            ["--config", "section.yaml"],
            "refine: found False, expected settings by name",
        ),
    ],
)
def test_a_switch_of_refinement_that_cannot_be(
    typed: list[str],
    error: str,
    kapture_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("section.yaml").write_text("refine: off\n", "utf-8")
    output = kapture_root.parent / "work"
    command = ["--mapping", str(kapture_root), "--output", str(output), *typed]
    try:
        assert main(command) == 2
    except SystemExit as stopped:
        assert stopped.code == 2
    assert one_error_line(capsys).startswith(f"error: {error}")
    assert not output.exists()


@pytest.mark.parametrize(
    "typed",
    [["--refine", "off"], ["--refine=off"], ["--refine.use", "off"], ["--config", "c"]],
    ids=" ".join,
)
def test_refinement_is_switched_off(
    typed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c").write_text("refine:\n  use: off\n", "utf-8")
    found: list[bool] = []

    def flow(flags: Namespace) -> int:
        found.append(pipeline_config(flags).refine.use)
        return 0

    recipe = Recipe(name="recipe", flow=flow, example="")
    for flags in ([], typed, [*typed, "--refine", "on"]):
        assert recipe(["--output", "work", *flags]) == 0
    assert found == [True, False, True]


def test_the_help_shows_the_switch(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert "--refine {on,off}" in text and "(default: on)" in text
    assert "--refine.max-step" not in text
    with pytest.raises(SystemExit):
        main(["--help", "refine"])
    assert "--refine.max-step PX" in capsys.readouterr().out


def settings_of(preset: str, model: Path) -> ExtractConfig | None:
    """Of a recipe with a preset; None if it refuses the model."""
    found: list[ExtractConfig | None] = [None]

    def flow(flags: Namespace) -> int:
        pipeline_config(flags)
        found[0], _ = choose_extraction(flags, [])
        return 0

    recipe = Recipe(name="recipe", flow=flow, example="", preset=preset)
    code = recipe(["--output", "work", "--model", str(model)])
    assert code == (2 if found[0] is None else 0)
    return found[0]


def test_this_preset_takes_any_model(d2net_path: Path, checkpoint_path: Path) -> None:
    for path in (d2net_path, checkpoint_path):
        assert settings_of("virtual_gallery", path).extractor in (
            R2D2Config(),
            D2NetConfig(),
        )


@pytest.mark.parametrize("name", ["demo", "aachen_day_night_v1_1"])
def test_these_presets_are_for_r2d2(
    name: str,
    d2net_path: Path,
    checkpoint_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = settings_of(name, checkpoint_path)
    assert config.extractor.top_k != R2D2Config().top_k
    assert settings_of(name, d2net_path) is None
    assert "--extract.top-k: found" in one_error_line(capsys)


def test_recipes_refuse_a_model_before_anything_is_made(
    d2net_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "work"
    command = ["--model", str(d2net_path), "--output", str(output)]
    assert demo.main(command) == 2
    assert "--extract.top-k: found" in one_error_line(capsys)
    assert aachen_day_night_v1_1.main([*command, "--dataset", str(tmp_path)]) == 2
    assert "--extract.min-scale, --extract.top-k: found" in one_error_line(capsys)
    assert not output.exists()


def test_a_recipe_takes_the_flags_of_the_pipeline(
    kapture_root: Path, checkpoint_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = kapture_root / "sensors" / "records_data"
    output = kapture_root.parent / "work"
    command = ["--images", str(photos), "--output", str(output), "--quiet"]
    command += ["--model", str(checkpoint_path), "--extract.gpu", "-1"]
    assert images_to_map.main([*command, "--preset", "fast"]) == 2  # noise has no map
    assert "no verified pair" in one_error_line(capsys)
    kept = output / "features/reconstruction/keypoints/tiny" / MANIFEST
    found = read_manifest(kept)
    assert found is not None and found.settings["top_k"] == 2000
    with pytest.raises(SystemExit) as stopped:
        images_to_map.main([*command, "--imagse", "x"])
    assert stopped.value.code == 2
    assert one_error_line(capsys)
