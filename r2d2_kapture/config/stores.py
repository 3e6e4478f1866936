"""Layouts in which features and matches are stored, see docs/formats.md."""

from __future__ import annotations

from typing import Literal

Store = Literal["files", "tar", "shards"]
"""A file an item; kapture's archive, which grows; or archives of bounded size."""
