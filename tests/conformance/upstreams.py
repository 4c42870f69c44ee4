"""What stands behind a front end and remembers which requests it saw, byte by byte.

Each kind tells the same: `since(mark, target)` are the requests that came after `mark`, up to the one for `target`. A
request that the kind could not read is among them as UNREADABLE: a front that lets such a one through has failed.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from ..support.process import free_port
from .background import Background

UNREADABLE: Final = "(unreadable)"
DEADLINE: Final = 20.0  # seconds until a request that was answered stands in a log

_NUMBERS: Final = itertools.count(1)


@dataclass(frozen=True)
class Seen:
    """One request as it came out of the front end."""

    method: str
    target: str
    body: bytes
    fields: tuple[tuple[str, str], ...] = ()
    """Names in lower case. Empty where the kind keeps none."""

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key == name]


class Upstream(Protocol):
    """A memory of requests."""

    def mark(self) -> int:
        """Where the memory ends now."""

    def since(self, mark: int, target: str) -> list[Seen]:
        """The requests after `mark` and before the one for `target`, which must come. Raises: TimeoutError."""


def fresh_target(name: str) -> str:
    """A target that no other request has."""
    return f"/{name}-{os.getpid()}-{next(_NUMBERS)}"


_REQUEST_LINE: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) (/[\x21-\x7e]*) HTTP/1\.1")
_FIELD: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\t\x20-\x7e\x80-\xff]*?)[ \t]*")
_SIZE: Final = re.compile(rb"[0-9A-Fa-f]{1,8}")
_LENGTH: Final = re.compile(rb"[0-9]{1,100}")


class _Unreadable(Exception):
    pass


class Recorder:
    """A raw server that reads as strictly as RFC 9112 allows and answers `METHOD TARGET LENGTH`.

    The path chooses the behaviour: `/early` is answered before its body is read, `/big` with BIG bytes, `/hints` with
    103 first, `/trailers` with trailers, `/silent` never.
    """

    BIG: Final = 256 * 1024 * 1024

    def __init__(self) -> None:
        self.requests: list[Seen] = []
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def open_connections(self) -> int:
        return len(self._tasks)

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._connection, "127.0.0.1", 0, limit=256 * 1024)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close what listens, and every connection."""
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def mark(self) -> int:
        return len(self.requests)

    def since(self, mark: int, target: str) -> list[Seen]:
        def found() -> list[Seen] | None:
            return _before(self.requests[mark:], target)

        return _awaited(found)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while await self._request(reader, writer):
                pass
        except _Unreadable as fault:
            self.requests.append(Seen(UNREADABLE, str(fault), b""))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # it was given up: nothing that counts as a request
        except asyncio.LimitOverrunError:
            self.requests.append(Seen(UNREADABLE, "a head without an end", b""))
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        first, *lines = (await reader.readuntil(b"\r\n\r\n"))[:-4].split(b"\r\n")
        matched = _REQUEST_LINE.fullmatch(first)
        fields = [_FIELD.fullmatch(line) for line in lines]
        if matched is None or None in fields:
            raise _Unreadable(repr((first, lines)))
        named = [(field[1].decode().lower(), field[2].decode("latin-1")) for field in fields if field]
        method, target = matched[1].decode(), matched[2].decode()
        early = target.startswith("/early")
        if early:
            writer.write(_answer(method, f"{method} {target} early\n".encode()))
            await writer.drain()
        body = await self._body(reader, named)
        self.requests.append(Seen(method, target, body, tuple(named)))
        if target.startswith("/silent"):
            await reader.read()
            return False
        if target.startswith("/big"):
            await self._big(writer)
        elif not early:
            writer.write(_preface(target) + _answer(method, f"{method} {target} {len(body)}\n".encode(), target))
        await writer.drain()
        return True

    async def _big(self, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % self.BIG)
        piece = bytes(1024 * 1024)
        for _ in range(self.BIG // len(piece)):
            writer.write(piece)
            await writer.drain()

    async def _body(self, reader: asyncio.StreamReader, fields: list[tuple[str, str]]) -> bytes:
        codings = [value for name, value in fields if name == "transfer-encoding"]
        lengths = [value for name, value in fields if name == "content-length"]
        if len(codings) + len(lengths) > 1:
            raise _Unreadable("two framings")
        if lengths:
            if not _LENGTH.fullmatch(lengths[0].encode()):
                raise _Unreadable(f"length {lengths[0]!r}")
            return await reader.readexactly(int(lengths[0]))
        if not codings:
            return b""
        if codings != ["chunked"]:
            raise _Unreadable(f"coding {codings[0]!r}")
        body = b""
        while True:
            line = (await reader.readuntil(b"\r\n"))[:-2]
            if not _SIZE.fullmatch(line):
                raise _Unreadable(f"chunk size {line!r}")
            if not (size := int(line, 16)):
                break
            body += await reader.readexactly(size)
            if await reader.readexactly(2) != b"\r\n":
                raise _Unreadable("a chunk without its end")
        while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
            if not _FIELD.fullmatch(line[:-2]):
                raise _Unreadable(f"trailer {line!r}")
            name, _, value = line[:-2].decode("latin-1").partition(":")
            fields.append((f"trailer {name.lower()}", value.strip()))
        return body


def _preface(target: str) -> bytes:
    return b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" if target.startswith("/hints") else b""


def _answer(method: str, body: bytes, target: str = "") -> bytes:
    if target.startswith("/trailers"):
        return (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
            b"%x\r\n%b\r\n0\r\nX-Sum: 42\r\n\r\n" % (len(body), body)
        )
    shown = b"" if method == "HEAD" else body
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nContent-Type: text/plain\r\n\r\n%b" % (len(body), shown)


def _before(requests: list[Seen], target: str) -> list[Seen] | None:
    for place, seen in enumerate(requests):
        if seen.target == target:
            return requests[:place]
    return None


def _awaited(found: Callable[[], list[Seen] | None]) -> list[Seen]:
    """What `found()` brings once it is not None. It waits for another process to write down what it has answered."""
    until = time.monotonic() + DEADLINE
    while time.monotonic() < until:
        requests = found()
        if requests is not None:
            return requests
        time.sleep(0.002)
    raise TimeoutError("the request that was answered was never written down")


@contextmanager
def recorder(background: Background) -> Iterator[Recorder]:
    """A Recorder on a free port."""
    made = Recorder()
    background.run(made.start())
    try:
        yield made
    finally:
        background.run(made.stop())


class JSONLines:
    """A memory that another process writes, one request a line: `{"method", "target", "body", "fields"}`."""

    def __init__(self, file: Path, port: int = 0) -> None:
        self.port = port
        self._file = file
        file.touch()

    def _lines(self) -> list[str]:
        return self._file.read_text("latin-1").split("\n")[:-1]

    def mark(self) -> int:
        return len(self._lines())

    def since(self, mark: int, target: str) -> list[Seen]:
        def found() -> list[Seen] | None:
            return _before([_seen(line) for line in self._lines()[mark:]], target)

        return _awaited(found)


def _seen(line: str) -> Seen:
    record = json.loads(line)
    fields = tuple((name, value) for name, value in record.get("fields", ()))
    return Seen(record["method"], record["target"], record["body"].encode("latin-1"), fields)


class Nginx(JSONLines):
    """nginx reads the body because it passes it on to itself. What it calls invalid is UNREADABLE."""

    def __init__(self, folder: Path, port: int) -> None:
        super().__init__(folder / "access.log", port)
        self._errors = folder / "error.log"

    def mark(self) -> int:
        self._complaints = self._complaints_now()
        return super().mark()

    def since(self, mark: int, target: str) -> list[Seen]:
        # An aborted request is logged too, as 400 or 499 with what was read of it: the record has those left out.
        seen = [request for request in super().since(mark, target) if request.method]
        complaints = self._complaints_now()[len(self._complaints) :]
        return seen + [Seen(UNREADABLE, complaint, b"") for complaint in complaints]

    def _complaints_now(self) -> list[str]:
        return re.findall(r"client sent .*", self._errors.read_text("utf-8", "replace"))


_NGINX: Final = """
{user}daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log info;
events {{ worker_connections 256; }}
http {{
  map $status $told {{ 400 0; 499 0; default 1; }}
  log_format seen escape=json '{{"method": "$request_method", "target": "$request_uri", "body": "$request_body"}}';
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  client_body_buffer_size 1m; client_body_in_single_buffer on; client_max_body_size 8m; keepalive_timeout 60;
  large_client_header_buffers 8 128k; ignore_invalid_headers off; merge_slashes off;
  server {{
    listen 127.0.0.1:{port}; access_log {folder}/access.log seen if=$told;
    location / {{ proxy_pass http://unix:{folder}/inner.sock; proxy_http_version 1.1; }}
  }}
  server {{
    listen unix:{folder}/inner.sock;
    location / {{ default_type text/plain; return 200 "$request_method $request_uri\\n"; }}
  }}
}}
"""


def nginx_missing() -> str | None:
    """Why nginx cannot be had; None: it is there. As root on Debian it is installed if need be."""
    if _nginx() is None and shutil.which("apt-get") and os.geteuid() == 0:
        install = "apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq nginx-light"
        subprocess.run(["sh", "-c", install], capture_output=True, check=False)
    return None if _nginx() else "there is no nginx; remedy: apt-get install nginx-light"


def _nginx() -> str | None:
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")


@contextmanager
def nginx(folder: Path) -> Iterator[Nginx]:
    """A real nginx on a free port."""
    program = _nginx()
    assert program is not None
    port = free_port()
    user = "user root;\n" if os.geteuid() == 0 else ""  # its workers write into a folder that only we may enter
    (folder / "nginx.conf").write_text(_NGINX.format(folder=folder, port=port, user=user))
    (folder / "error.log").touch()
    made = Nginx(folder, port)
    with _running(
        [program, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")], port
    ):
        yield made


def node_missing() -> str | None:
    """Why Node cannot be had; None: it is there."""
    return None if shutil.which("node") else "there is no node; remedy: install Node.js 18 or newer"


@contextmanager
def node(folder: Path) -> Iterator[JSONLines]:
    """A real Node server on a free port."""
    port = free_port()
    made = JSONLines(folder / "seen.jsonl", port)
    program = Path(__file__).with_name("node_upstream.mjs")
    with _running(["node", str(program), str(port), str(folder / "seen.jsonl")], port):
        yield made


@contextmanager
def _running(command: list[str], port: int) -> Iterator[None]:
    """A process until the block ends, from the moment at which its port answers."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        try:
            await_port(process, port)
            yield
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            if process.poll() is None:
                process.kill()


def await_port(process: subprocess.Popen[bytes], port: int) -> None:
    """Return when somebody listens on `port`. Raises: RuntimeError: the process ended; TimeoutError."""
    until = time.monotonic() + DEADLINE
    while time.monotonic() < until:
        if process.poll() is not None:
            assert process.stderr is not None
            raise RuntimeError(f"it ended with {process.returncode}: {process.stderr.read().decode(errors='replace')}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.01)
    raise TimeoutError(f"nobody listens on {port}")
