"""Export of networks to ONNX, OpenVINO and TorchScript."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from r2d2_kapture.config.checks import require
from r2d2_kapture.config.export_model import (
    ModelForm,
    ModelFormat,
    ModelTarget,
    PixelType,
    read_size,
)
from r2d2_kapture.config.extract import DEFAULT_MODEL, R2D2Config
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.errors import CheckpointError
from r2d2_kapture.extractors.int8 import int8_weights
from r2d2_kapture.io.outputs.ledger import STAGE
from r2d2_kapture.io.outputs.manifest import Manifest, package_versions
from r2d2_kapture.models.checkpoints import Checkpoint, load_checkpoint
from r2d2_kapture.models.network import DenseNetwork
from r2d2_kapture.stages.export_model.description import (
    as_texts,
    describe,
    licence_warnings,
)
from r2d2_kapture.stages.export_model.formats import SUFFIXES, ExportedModel
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
        int8: convolutions in 8-bit integers, for onnx and openvino: about twice as fast
            where the processor has VNNI; keypoints are nearly the same.
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
    target = ModelTarget(
        to=to,
        form=form,
        size=None if size is None else read_size(size),
        pixels=pixels,
        int8=int8,
        half=half,
    )
    checkpoint = load_checkpoint(model)
    network = _dense_network(checkpoint)
    plan = _plan(target, config, network)
    settings = target.record | ({} if plan is None else dataclasses.asdict(config))
    described = describe(checkpoint, settings)
    place = ModelOutput(
        path=_file(output, target, checkpoint.name),
        suffixes=SUFFIXES[to],
        options=options,
    )

    def make() -> Made:
        quantization, notes = int8_weights(network) if int8 else (None, ())
        exported = ExportedModel(
            network=network,
            plan=plan,
            quantization=quantization,
            metadata=as_texts(described),
        )
        files = exported.to_bytes(target)
        levels = [] if plan is None else plan.searched
        report = Report(
            stage=STAGE_NAME,
            unit="model",
            done=1,
            skipped=0,
            failed=(),
            seconds=0,
            outputs=place.files,
            details={
                "licence": described["license"],
                "megabytes": round(sum(map(len, files.values())) / 1e6, 2),
                "scales": [round(level.scale, 3) for level in levels],
            },
            warnings=(*licence_warnings(checkpoint), *notes),
        )
        return files, report, {"metadata": described}

    manifest = Manifest(
        model=checkpoint.record,
        settings={STAGE: STAGE_NAME, **settings},
        versions=package_versions(),
    )
    return place.write(manifest, [checkpoint.path], make)


def _plan(
    target: ModelTarget, config: R2D2Config, network: DenseNetwork
) -> ExtractorPlan | None:
    """The plan of a whole extractor; None for dense maps.

    Raises:
        ConfigError: the size is too small, or settings are of no use to dense maps.
    """
    if target.form == "extractor" and target.size is not None:
        return ExtractorPlan.of(target.size, network.pixel_stride, config)
    changed = [
        f"--{field.name.replace('_', '-')}"
        for field in dataclasses.fields(config)
        if getattr(config, field.name) != field.default
    ]
    require(
        not changed,
        f"{', '.join(changed)}: found for --form dense, expected only for --form "
        "extractor; remove it, or choose that form",
    )
    return None


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


def _file(output: Path, target: ModelTarget, model: str) -> Path:
    """The file of a model, named after it where a folder is given.

    Raises:
        ConfigError: a name that ends otherwise than files of the format.
    """
    suffix = SUFFIXES[target.to][-1]
    if output.is_dir() or not output.suffix:
        return output / f"{target.file_name(model)}{suffix}"
    require(
        output.suffix == suffix,
        f"--output {output}: found the ending {output.suffix}, expected {suffix} for "
        f"--to {target.to}, or a folder",
    )
    return output
