"""Flags of the sources of training pairs."""

from __future__ import annotations

import dataclasses

from jsonargparse import Namespace

from r2d2_kapture.cli.common import add_settings, settings_from
from r2d2_kapture.cli.extraction_flags import add_exclude_flag
from r2d2_kapture.cli.parser import INPUTS, CommandParser
from r2d2_kapture.config.training_sources import SourceConfig


def add_source_flags(parser: CommandParser) -> None:
    """Add the fields of SourceConfig."""
    add_settings(parser, SourceConfig, taken=("exclude",), group=INPUTS)
    add_exclude_flag(parser)


def source_config(namespace: Namespace) -> SourceConfig:
    """Settings from these flags.

    Raises:
        ConfigError: no source is given, or flags contradict each other.
    """
    config = settings_from(namespace, SourceConfig)
    return dataclasses.replace(config, exclude=tuple(config.exclude))
