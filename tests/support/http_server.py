"""A real HTTP server that can misbehave, for the download tests."""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Site:
    """What the server serves at every path, and how.

    cuts: for each request in turn, after how many body bytes to cut the connection (None: never).
    statuses: for each request in turn, an error status to answer instead (None: none).
    seen: the Range header of every request, None where there was none.
    conditions: whether it looks at If-Range. target: the address that it points to instead. silence: seconds before it
    answers. gate: what it waits for after the first 100 bytes of a body. headers: further ones of each answer.
    """

    body: bytes
    ranges: bool = True
    length: bool = True
    etag: str | None = '"v1"'
    cuts: list[int | None] = field(default_factory=list)
    statuses: list[int | None] = field(default_factory=list)
    delay: float = 0.0
    seen: list[str | None] = field(default_factory=list)
    conditions: bool = True
    target: str | None = None
    silence: float = 0.0
    gate: threading.Event | None = None
    headers: dict[str, str] = field(default_factory=dict)
    url: str = ""


def handler(site: Site) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.head(0)

        def do_GET(self) -> None:
            asked = self.headers["Range"]
            site.seen.append(asked)
            if site.statuses and (status := site.statuses.pop(0)):
                self.send_error(status)
                return
            time.sleep(site.silence)
            if site.target:
                self.send_response(302)
                self.send_header("Location", site.target)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            cut = site.cuts.pop(0) if site.cuts else None
            start = self.start_of(asked)
            if start >= len(site.body) > 0:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(site.body)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.head(start)
            body = site.body[start:][:cut]
            if site.gate:
                self.wfile.write(body[:100])
                body = body[100:]
                site.gate.wait(60)
            for first in range(0, len(body), 1 << 14):
                self.wfile.write(body[first : first + (1 << 14)])
                time.sleep(site.delay)

        def start_of(self, asked: str | None) -> int:
            condition = self.headers["If-Range"]
            if not asked or not site.ranges or (site.conditions and condition and condition != site.etag):
                return 0
            return int(re.fullmatch(r"bytes=(\d+)-", asked)[1])

        def head(self, start: int) -> None:
            self.send_response(206 if start else 200)
            if start:
                last = len(site.body) - 1
                self.send_header("Content-Range", f"bytes {start}-{last}/{len(site.body)}")
            if site.length:
                self.send_header("Content-Length", str(len(site.body) - start))
            if site.etag:
                self.send_header("ETag", site.etag)
            for name, value in site.headers.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@contextmanager
def serve(site: Site, host: str = "127.0.0.1") -> Iterator[Site]:
    """Serve `site` on a free local port and set its `url`."""
    server = ThreadingHTTPServer((host, 0), handler(site))
    server.handle_error = lambda *_: None  # a killed client is part of the tests
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    site.url = f"http://{host}:{server.server_port}/data.zip"
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
