"""A web server of this machine that sends files whole, in parts, or not to the end."""

from __future__ import annotations

import io
import re
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class FileServer:
    """What the server does.

    Attributes:
        files: path -> content.
        version: the ETag of all files.
        ranges: whether parts are sent when asked for.
        break_after: bytes after which the connection is cut; None never.
        requests: (path, Range header) in order.
        sent: bytes of content sent.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    version: str | None = '"1"'
    ranges: bool = True
    break_after: int | None = None
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    sent: int = 0
    address: str = ""

    def url(self, name: str) -> str:
        return f"{self.address}/{name}"


@contextmanager
def running() -> Iterator[FileServer]:
    state = FileServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            state.requests.append((self.path, wanted))
            content = state.files.get(self.path.lstrip("/"))
            if content is None:
                self.send_error(404)
                return
            condition = self.headers.get("If-Range")
            usable = state.ranges and (condition is None or condition == state.version)
            start = int(re.findall(r"\d+", wanted)[0]) if wanted and usable else 0
            if start and start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            if start:
                last = len(content) - 1
                self.send_header(
                    "Content-Range", f"bytes {start}-{last}/{len(content)}"
                )
            self.send_header("Content-Length", str(len(content) - start))
            if state.version:
                self.send_header("ETag", state.version)
            self.end_headers()
            body = content[start:][: state.break_after]
            state.sent += len(body)
            self.wfile.write(body)
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    state.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def zipped(files: dict[str, bytes]) -> bytes:
    """An archive of files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()
