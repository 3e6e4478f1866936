"""What an exported model says of itself, and what becomes of files that are there."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import r2d2_kapture as rk
from r2d2_kapture.cli.export_model import main
from r2d2_kapture.config.export_model import ModelFormat
from r2d2_kapture.models.checkpoints import load_checkpoint, serialize_checkpoint
from r2d2_kapture.stages import export_model
from r2d2_kapture.stages.export_model.formats import SUFFIXES
from tests.commands import one_error_line
from tests.engines import library
from tests.scenes.images import textured_image
from tests.stages.export_model.models import run_model

FORMATS: tuple[ModelFormat, ...] = ("onnx", "openvino", "torchscript")
SIZED = ["--form", "extractor", "--size", "64x48", "--min-size", "40", "--top-k", "20"]


def read_onnx(path: Path) -> dict[str, str]:
    onnx = pytest.importorskip("onnx", reason="needs the extra onnx")
    return {item.key: item.value for item in onnx.load(path).metadata_props}


def read_openvino(path: Path) -> dict[str, str]:
    openvino = library("openvino")
    model = openvino.Core().read_model(path)
    return {
        name: model.get_rt_info(["r2d2_kapture", name]).astype(str)
        for name in model.get_rt_info("r2d2_kapture").astype(dict)
    }


def read_torch(path: Path) -> dict[str, str]:
    files = {"metadata.json": ""}
    torch.jit.load(path, _extra_files=files)  # type: ignore[no-untyped-call]
    texts: dict[str, str] = json.loads(files["metadata.json"])
    return texts


@pytest.mark.parametrize(
    "to, read",
    (("onnx", read_onnx), ("openvino", read_openvino), ("torchscript", read_torch)),
)
def test_the_file_says_what_it_is_and_under_which_licence(
    to: ModelFormat,
    read: Callable[[Path], dict[str, str]],
    checkpoint_path: Path,
    tmp_path: Path,
) -> None:
    pytest.importorskip("onnx", reason="needs the extra onnx")
    path = tmp_path / f"é {to}{SUFFIXES[to][-1]}"
    flags = ["--model", str(checkpoint_path), "--to", to, "--output", str(path)]
    assert main([*flags, *SIZED]) == 0
    found = read(path)
    assert found["license"] == "Apache-2.0"
    assert found["model"] == "tiny"
    assert found["sha256"] == load_checkpoint(checkpoint_path).sha256
    assert found["made_by"] == f"r2d2_kapture {rk.__version__}"
    assert found["pixel_origin"] == "(0, 0) is the centre of the top-left pixel"
    settings = json.loads(found["settings"])
    assert settings["size"] == "64x48" and settings["top_k"] == 20
    beside = json.loads(path.with_name(f"{path.name}.json").read_text("utf-8"))
    assert beside["done"] == 1 and beside["metadata"]["settings"] == settings


@pytest.mark.parametrize("to", FORMATS)
def test_exports_of_the_same_are_equal(
    to: ModelFormat, checkpoint_path: Path, tmp_path: Path
) -> None:
    pytest.importorskip("onnx", reason="needs the extra onnx")
    reports = [
        export_model.run(
            model=str(checkpoint_path), to=to, output=tmp_path / str(number) / "m"
        )
        for number in range(2)
    ]
    first, second = ([p.read_bytes() for p in report.outputs] for report in reports)
    assert first == second
    paths = [path.name for path in reports[0].outputs]
    assert paths[0].startswith("tiny_dense.")
    # no path of this computer goes along
    assert not any(str(Path(__file__).parents[3]).encode() in data for data in first)


def test_a_second_run_restores_what_is_missing(
    checkpoint_path: Path, tmp_path: Path
) -> None:
    library("openvino")
    values: dict[str, Any] = {"model": str(checkpoint_path), "to": "openvino"}
    first = export_model.run(**values, output=tmp_path / "a b.xml")
    weights = tmp_path / "a b.bin"
    before = weights.read_bytes()
    assert export_model.run(**values, output=tmp_path / "a b.xml").skipped == 1
    weights.unlink()
    assert export_model.run(**values, output=tmp_path / "a b.xml").done == 1
    assert weights.read_bytes() == before
    assert set(first.outputs) == {tmp_path / "a b.xml", weights}


def test_a_file_that_was_changed_stays_without_force(
    checkpoint_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.pt"
    command = ["--model", str(checkpoint_path), "--to", "torchscript", "--output"]
    assert main([*command, str(path)]) == 0
    made = path.read_bytes()
    path.write_bytes(b"mine")
    capsys.readouterr()
    assert main([*command, str(path)]) == 2
    assert "has been changed since" in one_error_line(capsys)
    assert path.read_bytes() == b"mine"
    assert main([*command, str(path), "--force"]) == 0
    assert path.read_bytes() == made


def test_half_weights_take_half_the_space(
    checkpoint_path: Path, tmp_path: Path
) -> None:
    library("openvino")
    image = textured_image(40, 48)[None]
    found = []
    for half in (False, True):
        report = export_model.run(
            model=str(checkpoint_path),
            to="openvino",
            half=half,
            output=tmp_path,
        )
        size = report.outputs[1].stat().st_size
        found.append((size, run_model(report.outputs[0], image, "dense")))
    (whole, exact), (halved, near) = found
    assert 0.45 < halved / whole < 0.55
    assert abs(exact["descriptors"] - near["descriptors"]).max() < 0.01


@pytest.mark.parametrize(
    "licence, said",
    [
        ("Apache-2.0", None),
        ("CC BY-NC-SA 3.0", "under CC BY-NC-SA 3.0, .* no commercial use"),
        ("", "does not state the licence"),
    ],
)
def test_licences_that_bind_the_model_are_said(
    licence: str, said: str | None, checkpoint_path: Path, tmp_path: Path
) -> None:
    found = load_checkpoint(checkpoint_path)
    path = tmp_path / "weights.safetensors"
    path.write_bytes(
        serialize_checkpoint(
            found.network, found.architecture, training={}, license_name=licence
        )
    )
    report = export_model.run(model=str(path), to="torchscript", output=tmp_path)
    assert len(report.warnings) == (said is not None)
    if said is not None:
        assert re.search(said, report.to_text())


@pytest.mark.shared
def test_published_weights_carry_their_licence(shared: Path) -> None:
    path = shared / "data" / "weights" / "r2d2_WASF_N16.pt"
    assert load_checkpoint(path).license == "CC BY-NC-SA 3.0"


@pytest.mark.parametrize(
    "flags, said",
    [
        ("--to onnx --form extractor", "--form extractor: found no --size, expected"),
        ("--to onnx --size 640", "--size 640: expected WIDTHxHEIGHT"),
        ("--to onnx --size 640x20000", "--size 640x20000: expected WIDTHxHEIGHT"),
        ("--to onnx --size 0x48", "--size 0x48: expected WIDTHxHEIGHT"),
        ("--to onnx --form extractor --size 1x9", "found no level of 2 or more pixels"),
        (
            "--to onnx --form extractor --size 64x48",
            "--top-k 5000: found 3072 pixels on all levels of --size 64x48, expected 1",
        ),
        (
            "--to onnx --form extractor --size 64x48 --top-k 0",
            "--top-k 0: found 3072 pixels",
        ),
        ("--to onnx --top-k 9", "--top-k: found for --form dense, expected only for"),
        ("--to onnx --half", "--half: found --to onnx, expected --to openvino"),
        ("--to torchscript --int8", "--int8: found --to torchscript, expected --to"),
        ("--to onnx --output {tmp}/m.xml", "found the ending .xml, expected .onnx"),
        ("--to onnx --model {d2net}", "found weights of D2Net, expected R2D2"),
        ("--to onnx --model none.pt", "--model none.pt: found no such file"),
        ("--to onnx --config none", "--config none: no such file, and no preset"),
        ("--to onnx --preset turba", "turbo; did you mean turbo?"),
        ("--to onnx --preset fast", "found for --form dense, expected only for"),
    ],
)
def test_wrong_input_is_one_line_and_nothing_is_written(
    flags: str,
    said: str,
    checkpoint_path: Path,
    d2net_path: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [word.format(tmp=tmp_path, d2net=d2net_path) for word in flags.split()]
    if "--model" not in words:
        words += ["--model", str(checkpoint_path)]
    if "--output" not in words:
        words += ["--output", str(tmp_path / "model")]
    assert main(words) == 2
    assert said in one_error_line(capsys)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "to, missing",
    (
        ("onnx", ["onnx"]),
        ("openvino", ["openvino"]),
        ("openvino", ["openvino", "onnx"]),
    ),
)
def test_a_missing_package_is_one_line(
    to: str,
    missing: list[str],
    checkpoint_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("onnx", reason="needs the extra onnx")
    for package in missing:
        monkeypatch.setitem(sys.modules, package, None)
    output = tmp_path / "model"
    command = ["--model", str(checkpoint_path), "--to", to, "--output", str(output)]
    assert main(command) == 2
    assert one_error_line(capsys) == (
        f"error: --to {to}: needs the package {to}, which is not installed; "
        f"pip install 'r2d2-kapture[{to}]'"
    )
    assert not output.exists()


@pytest.mark.parametrize("flag", ["--config", "--preset"])
def test_presets_of_extraction_are_taken_without_their_computation(
    flag: str, checkpoint_path: Path, tmp_path: Path
) -> None:
    command = ["--model", str(checkpoint_path), "--to", "torchscript"]
    output = tmp_path / "model.pt"
    flags = ["--form", "extractor", "--size", "96x64", flag, "paper"]
    assert main([*command, *flags, "--output", str(output), "--top-k", "30"]) == 0
    settings = json.loads(read_torch(output)["settings"])
    assert settings["coordinates"] == "published" and not settings["subpixel"]
    assert settings["top_k"] == 30 and "precision" not in settings


def test_python_exports_as_the_command_does(
    checkpoint_path: Path, tmp_path: Path
) -> None:
    values = {"form": "extractor", "size": "64x48", "min_size": 40, "top_k": 20}
    flags = ["--model", str(checkpoint_path), "--to", "torchscript"]
    assert main([*flags, *SIZED, "--output", str(tmp_path / "a.pt")]) == 0
    report = rk.export_model(
        model=checkpoint_path, to="torchscript", output=tmp_path / "b.pt", **values
    )
    assert report.outputs[0].read_bytes() == (tmp_path / "a.pt").read_bytes()
    with pytest.raises(rk.R2D2KaptureError, match="--to: found 'tflite', expected one"):
        rk.export_model(model=checkpoint_path, to="tflite", output=tmp_path)
