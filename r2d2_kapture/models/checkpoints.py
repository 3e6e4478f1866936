"""Checkpoints, published .pt or our own safetensors, loaded without running code.

A published file is a pickled dict ``{'net': str, 'state_dict': dict, ...}``; it goes
through torch's weights-only unpickler with an allow-list. Our own files are safetensors
whose metadata hold ``architecture`` (JSON), ``training`` (JSON) and ``license``.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import json
import pickle
import struct
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_safetensors
from torch import Tensor

from r2d2_kapture.errors import CheckpointError
from r2d2_kapture.models.network import DenseNetwork
from r2d2_kapture.models.registry import (
    Architecture,
    build_network,
    parse_published_name,
)

SUFFIX = ".safetensors"
NUMBER_TYPES = (
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.int64,
)

UNPICKLING_ERRORS = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    struct.error,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What torch's unpickler raises on damaged bytes, which may spell any operation."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A network ready for inference and where it came from.

    Attributes:
        name: the file's name without its ending, the default feature type.
        path: the file.
        sha256: of the file's bytes, hexadecimal.
        architecture: which network it is.
        network: in evaluation mode, on the CPU, float32.
        metadata: text found beside the tensors (training settings, licence).
    """

    name: str
    path: Path
    sha256: str
    architecture: Architecture
    network: DenseNetwork
    metadata: dict[str, str]


def bundled_models() -> dict[str, Path]:
    """Name and path of every checkpoint shipped in the package."""
    folder = Path(str(resources.files("r2d2_kapture.models") / "weights"))
    return {path.stem: path for path in sorted(folder.glob(f"*{SUFFIX}"))}


def resolve_model(model: str) -> Path:
    """Find a checkpoint by path or by the name of a bundled model.

    Raises:
        CheckpointError: neither exists.
    """
    try:
        path = Path(model).expanduser()
        found = "a folder" if path.is_dir() else "no such file"
        if path.is_file():
            return path
    except (OSError, RuntimeError) as error:  # name too long, no such user, ...
        found = _first_line(error)
    bundled = bundled_models()
    if model in bundled:
        return bundled[model]
    names = ", ".join(bundled) or "none"
    raise CheckpointError(
        f"--model {model}: found {found}, expected the path of a .pt or {SUFFIX} "
        f"checkpoint or the name of a bundled model ({names})"
    )


def load_checkpoint(model: str | Path) -> Checkpoint:
    """Load a checkpoint by path or bundled name, on the CPU.

    Raises:
        CheckpointError: the file is missing, truncated, not a checkpoint, of an unknown
            architecture, or its tensors are missing, superfluous or of wrong shape.
    """
    path = resolve_model(str(model))
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        if path.suffix == SUFFIX:
            architecture, tensors, metadata = _read_safetensors(path)
        else:
            architecture, tensors, metadata = _read_published(path)
        with torch.device("meta"):  # shapes first: a width in the file costs no memory
            expected = build_network(architecture).state_dict()
        _check_tensors(expected, tensors)
        network = build_network(architecture)
    except CheckpointError as error:  # it may quote names of the file: one line still
        raise CheckpointError(f"{path}: {' '.join(str(error).split())}") from error
    network.load_state_dict(dict(tensors), strict=False)
    network.eval().requires_grad_(False)
    return Checkpoint(
        name=path.stem,
        path=path,
        sha256=hashlib.sha256(data).hexdigest(),
        architecture=architecture,
        network=network,
        metadata=metadata,
    )


def serialize_checkpoint(
    network: DenseNetwork,
    architecture: Architecture,
    *,
    training: Mapping[str, Any],
    license_name: str,
) -> bytes:
    """Encode a network as safetensors with its architecture, training and licence.

    Write the bytes atomically (io.atomic) under a name that ends in .safetensors.
    """
    tensors = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in network.state_dict().items()
    }
    metadata = {
        "architecture": json.dumps(dataclasses.asdict(architecture), sort_keys=True),
        "training": json.dumps(dict(training), sort_keys=True),
        "license": license_name,
    }
    return bytes(save_safetensors(tensors, metadata=metadata))


def _read_safetensors(
    path: Path,
) -> tuple[Architecture, dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"not a complete safetensors file ({_first_line(error)}); fetch it again"
        ) from error
    if "architecture" not in metadata:
        raise CheckpointError(
            "found no 'architecture' in the metadata, expected a checkpoint written by "
            "r2d2_kapture"
        )
    try:
        architecture = Architecture(**json.loads(metadata["architecture"]))
        widths = (int(architecture.width), int(architecture.descriptor_dim))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise CheckpointError(
            f"architecture metadata cannot be read: {_first_line(error)}"
        ) from error
    return (
        Architecture(
            name=str(architecture.name), width=widths[0], descriptor_dim=widths[1]
        ),
        tensors,
        metadata,
    )


def _plain_dict(*_: object) -> dict[str, Any]:
    """Stand in for the defaultdict that published Fast-R2D2 files hold."""
    return collections.OrderedDict()


def _read_published(
    path: Path,
) -> tuple[Architecture, dict[str, Tensor], dict[str, str]]:
    allowed = [(_plain_dict, "collections.defaultdict"), list]
    try:
        with torch.serialization.safe_globals(allowed):  # type: ignore[arg-type]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                content = torch.load(path, map_location="cpu", weights_only=True)
    except UNPICKLING_ERRORS as error:
        raise CheckpointError(
            f"found no complete checkpoint ({type(error).__name__} while unpickling it "
            "without running code); expected a published .pt of R2D2 or Fast-R2D2, or "
            f"a {SUFFIX} file"
        ) from error
    if not isinstance(content, dict) or not {"net", "state_dict"} <= content.keys():
        raise CheckpointError(
            f"found {_describe(content)}, expected a dict with 'net' and 'state_dict'"
        )
    state = content["state_dict"]
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor)
        for name, value in state.items()
    ):
        raise CheckpointError("'state_dict' is not a dict of named tensors")
    tensors = {name.removeprefix("module."): value for name, value in state.items()}
    return parse_published_name(str(content["net"])), tensors, {}


def _check_tensors(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Compare names and shapes; the batch counters of batch norm may be absent."""
    counters = {name for name in expected if name.endswith("num_batches_tracked")}
    missing = sorted(expected.keys() - found.keys() - counters)
    extra = sorted(found.keys() - expected.keys())
    if missing or extra:
        parts = [
            f"{title} {', '.join(names[:3])}{' ...' * (len(names) > 3)}"
            for title, names in (("misses", missing), ("has unexpected", extra))
            if names
        ]
        raise CheckpointError(f"the state dict {' and '.join(parts)}")
    for name, tensor in found.items():
        if not _is_plain(tensor):
            raise CheckpointError(
                f"tensor {name}: found {tensor.dtype} {tensor.layout}, expected plain "
                "numbers of 16, 32 or 64 bits"
            )
        if tensor.shape != expected[name].shape:
            raise CheckpointError(
                f"tensor {name}: found shape {tuple(tensor.shape)}, "
                f"expected {tuple(expected[name].shape)}"
            )
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"tensor {name} holds values that are not finite")
        if name.endswith("running_var") and bool((tensor < 0).any()):
            raise CheckpointError(f"tensor {name} holds a variance below zero")


def _is_plain(tensor: Tensor) -> bool:
    """Whether a tensor holds each of its numbers, dense, on the CPU."""
    return (
        tensor.layout == torch.strided
        and tensor.device.type == "cpu"
        and tensor.dtype in NUMBER_TYPES
        and tensor.is_contiguous()
        and tensor.untyped_storage().nbytes() >= tensor.numel() * tensor.itemsize
    )


def _describe(content: object) -> str:
    if isinstance(content, dict):
        return f"a dict with keys {', '.join(map(repr, list(content)[:5]))}"
    return f"a {type(content).__name__}"


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]
