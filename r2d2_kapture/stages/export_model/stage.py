"""Export of networks to ONNX, OpenVINO and TorchScript."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, get_args

from r2d2_kapture.config.checks import require
from r2d2_kapture.config.export_model import (
    ModelForm,
    ModelFormat,
    PixelType,
    read_size,
)
from r2d2_kapture.config.extract import DEFAULT_MODEL, R2D2Config
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.errors import CheckpointError
from r2d2_kapture.io.outputs.ledger import STAGE
from r2d2_kapture.io.outputs.manifest import Manifest, package_versions
from r2d2_kapture.models.checkpoints import Checkpoint, load_checkpoint
from r2d2_kapture.models.network import DenseNetwork
from r2d2_kapture.stages.export_model.description import (
    as_texts,
    describe,
    licence_warnings,
)
from r2d2_kapture.stages.export_model.formats import SUFFIXES, to_bytes
from r2d2_kapture.stages.export_model.outputs import STAGE_NAME, Made, ModelOutput
from r2d2_kapture.stages.export_model.plan import ExtractorPlan
from r2d2_kapture.types import Report


def run(
    config: R2D2Config = R2D2Config(),
    *,
    model: str = DEFAULT_MODEL,
    to: ModelFormat,
    form: ModelForm = "dense",
    size: str | None = None,
    pixels: PixelType = "uint8",
    int8: bool = False,
    half: bool = False,
    output: Path,
    options: RunOptions = RunOptions(),
) -> Report:
    """Export R2D2 or Fast-R2D2 for other runtimes: C++, mobile devices, robots.

    The input is RGB of 0 to 255 as decoders give it, rows of interleaved pixels; the
    model normalises it. Dense maps are descriptors of unit norm, reliability and
    repeatability of images of any number and size. The whole extractor, for images of
    one size, gives the keypoints of kapture_r2d2_extract with the same settings, best
    first, in rows of which the first ``count`` are keypoints. Licence and settings are
    in the metadata of the model, and in a .json file next to it.

    Args:
        config: scales and keypoints of the whole extractor.
        model: checkpoint: path of a .pt, .pth or .safetensors file, or the name of a
            bundled model.
        to: ``onnx``: one .onnx file of standard operators, for ONNX Runtime, OpenVINO
            and TensorRT; ``openvino``: .xml and .bin; ``torchscript``: a .pt file for
            LibTorch.
        form: ``dense``: maps of images of any size; ``extractor``: keypoints, scales,
            scores and descriptors of an image of one size.
        size: WIDTHxHEIGHT of the image in pixels, such as 640x480; required for the
            extractor; dense maps are of any size without it.
        pixels: type of the values of the image, for onnx and openvino.
        int8: quantise the network, for onnx and openvino.
        half: store weights of openvino in float16, at half the size.
        output: file, or folder for a file that is named after the model.
        options: force is used.

    Raises:
        ConfigError: a size that is no size or too small, flags that do not belong
            together, or a package that is not installed.
        CheckpointError: the weights cannot be loaded, or are of D2-Net.
        OutputError: nothing is written. A file that no export wrote, or one made with
            other settings, stays without force.
    """
    for name, value, choices in (
        ("to", to, ModelFormat),
        ("form", form, ModelForm),
        ("pixels", pixels, PixelType),
    ):
        listed = get_args(choices)
        expected = f"expected one of {', '.join(listed)}"
        require(value in listed, f"--{name}: found {value!r}, {expected}")
    _check_flags(config, to, form, size, int8=int8, half=half)
    only = None if size is None else read_size(size)
    checkpoint = load_checkpoint(model)
    network = _dense_network(checkpoint)
    plan = (
        ExtractorPlan.of(only, network.pixel_stride, config)
        if form == "extractor" and only is not None
        else None
    )
    settings: dict[str, Any] = {
        "to": to,
        "form": form,
        "size": None if only is None else only.text,
        "pixels": pixels,
        "int8": int8,
        "half": half,
        **({} if plan is None else dataclasses.asdict(config)),
    }
    described = describe(checkpoint, settings)
    place = ModelOutput(
        path=_file(output, to, [checkpoint.name, form, settings["size"]], int8=int8),
        suffixes=SUFFIXES[to],
        options=options,
    )

    def make() -> Made:
        files = to_bytes(
            network,
            plan or only,
            to,
            pixels=pixels,
            half=half,
            metadata=as_texts(described),
        )
        report = Report(
            stage=STAGE_NAME,
            unit="model",
            done=1,
            skipped=0,
            failed=(),
            seconds=0,
            outputs=place.files,
            details={
                "license": described["license"],
                "megabytes": round(sum(map(len, files.values())) / 1e6, 2),
                "scales": (
                    [round(level.scale, 3) for level in plan.searched] if plan else []
                ),
            },
            warnings=licence_warnings(checkpoint),
        )
        return files, report, {"metadata": described}

    manifest = Manifest(
        model=checkpoint.record,
        settings={STAGE: STAGE_NAME, **settings},
        versions=package_versions(),
    )
    return place.write(manifest, [checkpoint.path], make)


def _check_flags(
    config: R2D2Config,
    to: ModelFormat,
    form: ModelForm,
    size: str | None,
    *,
    int8: bool,
    half: bool,
) -> None:
    """Refuse flags that do not belong together.

    Raises:
        ConfigError: naming them.
    """
    if form == "extractor":
        require(
            size is not None,
            "--form extractor: found no --size, expected that of the images, such as "
            "--size 640x480",
        )
    else:
        given = [
            f"--{field.name.replace('_', '-')}"
            for field in dataclasses.fields(config)
            if getattr(config, field.name) != field.default
        ]
        require(
            not given,
            f"{', '.join(given)}: found for --form dense, expected only for --form "
            "extractor; remove it, or choose that form",
        )
    require(
        not half or to == "openvino",
        f"--half: found --to {to}, expected --to openvino",
    )
    require(
        not int8 or to != "torchscript",
        "--int8: found --to torchscript, expected --to onnx or openvino",
    )


def _dense_network(checkpoint: Checkpoint) -> DenseNetwork:
    """The network of a checkpoint.

    Raises:
        CheckpointError: it is D2-Net.
    """
    network = checkpoint.network
    if not isinstance(network, DenseNetwork):
        raise CheckpointError(
            f"{checkpoint.path}: found weights of {type(network).__name__}, expected "
            "R2D2 or Fast-R2D2; only these can be exported"
        )
    return network


def _file(
    output: Path, to: ModelFormat, parts: list[str | None], *, int8: bool
) -> Path:
    """The file of a model, named after it where a folder is given.

    Raises:
        ConfigError: a name that ends otherwise than files of the format.
    """
    suffix = SUFFIXES[to][-1]
    if output.is_dir() or not output.suffix:
        name = "_".join(filter(None, [*parts, "int8" if int8 else None]))
        return output / f"{name}{suffix}"
    require(
        output.suffix == suffix,
        f"--output {output}: found the ending {output.suffix}, expected {suffix} for "
        f"--to {to}, or a folder",
    )
    return output
