"""Downloads that go on where they broke off, and prove what they got."""

from __future__ import annotations

import http.client
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from r2d2_kapture.errors import ConfigError, DatasetError
from r2d2_kapture.io.outputs.atomic import output_error, read_json, write_json_atomic
from r2d2_kapture.io.outputs.image_records import sha256_of
from r2d2_kapture.io.progress import BYTES, Progress

CHUNK = 1 << 20
TIMEOUT_SECONDS = 60
USER_AGENT = "r2d2_kapture"


@dataclass(frozen=True, kw_only=True)
class Download:
    """What was downloaded: its SHA-256 in hexadecimal digits, and its bytes."""

    sha256: str
    bytes: int


def download(
    url: str, path: Path, *, sha256: str | None = None, progress: bool | None = None
) -> Download:
    """Download a file over HTTP, resuming a partial download.

    Bytes go to ``<name>.part`` next to ``path``, which takes its name when complete and
    checked. A server that has another file by now, or cannot send parts, makes it start
    over.

    Args:
        url: http or https.
        path: of the file.
        sha256: expected; None accepts anything.
        progress: show a bar; None shows it on a terminal only.

    Raises:
        ConfigError: the URL is of another kind.
        DatasetError: the server cannot be reached, refuses, breaks off, or sends
            something else than expected, which is deleted.
        OutputError: the file cannot be written.
    """
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise ConfigError(f"{url}: expected an http or https address")
    part = path.with_name(path.name + ".part")
    with _writing(part):
        path.parent.mkdir(parents=True, exist_ok=True)
    _fetch(url, part, progress)
    found = sha256_of(part)
    if sha256 is not None and found != sha256.lower():
        part.unlink()
        _notes_path(part).unlink(missing_ok=True)
        raise DatasetError(
            f"{url}: found SHA-256 {found}, expected {sha256}; deleted it; run again, "
            "or check where the checksum comes from"
        )
    size = part.stat().st_size
    with _writing(path):
        part.replace(path)
        _notes_path(part).unlink(missing_ok=True)
    return Download(sha256=found, bytes=size)


def _fetch(url: str, part: Path, progress: bool | None) -> None:
    start = _bytes_to_keep(url, part)
    with _asking(url), _open(
        url, start, read_json(_notes_path(part)).get("version")
    ) as response:
        if response.status == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            complete = response.headers.get("Content-Range") == f"bytes */{start}"
            if complete:
                return
            raise DatasetError(
                f"{url}: the server cannot resume at byte {start}; delete {part} "
                "and run again"
            )
        start = _resumed_at(response, start)
        length = response.headers.get("Content-Length")
        total = start + int(length) if length is not None else None
        version = response.headers.get("ETag") or response.headers.get("Last-Modified")
        write_json_atomic(_notes_path(part), {"url": url, "version": version})
        with Progress(part.stem, BYTES, total, done=start, shown=progress) as bar:
            _copy(response, part, start, bar)
    size = part.stat().st_size
    if total is not None and size != total:
        raise DatasetError(
            f"{url}: was interrupted after {size} of {total} bytes; run again to resume"
        )


def _copy(
    response: http.client.HTTPResponse, part: Path, start: int, bar: Progress
) -> None:
    with _writing(part):
        file = part.open("ab" if start else "wb")
    with file:
        while chunk := response.read(CHUNK):
            with _writing(part):
                file.write(chunk)
                file.flush()
            bar.update(len(chunk))


def _bytes_to_keep(url: str, part: Path) -> int:
    """What an earlier try of the same address left."""
    if not part.is_file() or read_json(_notes_path(part)).get("url") != url:
        return 0
    return part.stat().st_size


def _open(url: str, start: int, version: str | None) -> http.client.HTTPResponse:
    headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        # the part belongs to this version of the file only; weak tags prove nothing
        if version and not version.startswith("W/"):
            headers["If-Range"] = version
    request = urllib.request.Request(url, headers=headers)
    try:
        response: http.client.HTTPResponse = urllib.request.urlopen(
            request, timeout=TIMEOUT_SECONDS
        )
    except urllib.error.HTTPError as error:
        if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        return error  # type: ignore[return-value]  # it has status and headers
    return response


def _resumed_at(response: http.client.HTTPResponse, start: int) -> int:
    """The byte that the answer begins with: 0 where the server sends everything."""
    if response.status != http.client.PARTIAL_CONTENT:
        return 0
    found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    if found is None or int(found[1]) != start:
        raise DatasetError(
            f"{response.url}: returned another byte range than requested"
        )
    return start


def _notes_path(part: Path) -> Path:
    """File of the address and version that the bytes of a part are of."""
    return part.with_name(part.name + ".json")


@contextmanager
def _asking(url: str) -> Iterator[None]:
    """What the network or the server does is reported in one line."""
    way_out = "run again to resume"
    try:
        yield
    except urllib.error.HTTPError as error:
        raise DatasetError(
            f"{url}: the server answers {error.code} {error.reason}; check the address"
        ) from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise DatasetError(f"{url}: {reason}; {way_out}") from error


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise output_error(path, error) from error
