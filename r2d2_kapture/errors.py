"""The exceptions that a user of the package may meet, and those of broken files."""

import lzma
import pickle
import struct
import tokenize
import zipfile
import zlib

UNREADABLE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    lzma.LZMAError,
    pickle.UnpicklingError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What NumPy, torch and Python raise on a file that is truncated, is something else or
promises too much: they have no root in common."""


class R2D2KaptureError(Exception):
    """Base class of all expected failures, with a one-line message."""


class ConfigError(R2D2KaptureError, ValueError):
    """A setting is out of range, unknown, or contradicts another."""


class DatasetError(R2D2KaptureError):
    """A kapture dataset is missing, malformed, unsafe or in use."""


class ImageError(R2D2KaptureError):
    """An image cannot be read."""


class FeatureFormatError(R2D2KaptureError):
    """A feature file does not match its format."""


class CheckpointError(R2D2KaptureError):
    """A file is not a checkpoint supported by this package."""


class OutputError(R2D2KaptureError):
    """An output cannot be written: read-only, full, or claimed by other settings."""


class ReconstructionError(R2D2KaptureError):
    """Mapping or localization cannot proceed on the given input."""


class LostWorkersError(R2D2KaptureError):
    """Workers of a cluster were lost; the same run again goes on."""


class StoppedRunError(R2D2KaptureError):
    """A strict run stopped at an item that failed; the same run again goes on."""
