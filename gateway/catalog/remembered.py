"""What each remote last listed, kept on the disk of this node: a gateway that starts lists it at once, remote or no remote.

It is kept as the remote said it: names, switches, hygiene and pins are those of whoever reads it. It counts for the same
connection alone, and until the remote is reached. Nothing waits for the disk: what was heard is written a moment later by a task
of its own, and a disk that is full, a file that is damaged or a list that is too large costs the memory, never the service.
"""

import asyncio
import contextlib
import hashlib
import logging
import os
import time
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from msgspec import Raw

from gateway.catalog.listing import Said
from mcpserver.lib.files import write_atomically
from mcpserver.protocol import jsonrpc
from remotes.config.snapshot import RemoteSpec
from remotes.upstream.connection import Greeting

log = logging.getLogger("mcp.catalog")

# Ten thousand tools with short descriptions take a third of it.
_MAX_BYTES = 8 * 1024 * 1024
_FORMAT = 1
# A remote whose lists never stop changing has this share of the disk.
_REST, _REST_MAX_S = 20, 60.0
_DIGEST_CHARS = 64
_FINISH_S = 5.0
# A file that is being written is younger than this.
_LEFT_S = 3600.0


class Memory(msgspec.Struct, frozen=True):
    """What one remote said. `digest`: of the specification that it was reached by."""

    format: int
    digest: str
    transport: str
    revision: str
    capabilities: dict[str, Raw]
    server_info: Raw
    instructions: str
    lists: dict[str, list[Raw]]
    ttl_ms: int
    public: bool

    @property
    def said(self) -> Said:
        greeting = Greeting(
            self.transport, self.revision, self.capabilities, bytes(self.server_info), self.instructions
        )
        return Said(greeting, self.lists, self.ttl_ms, self.public)


_decoder = msgspec.json.Decoder(Memory)


def memory(spec: RemoteSpec, said: Said) -> Memory:
    told = said.greeting
    return Memory(
        _FORMAT,
        spec.digest,
        told.transport,
        told.revision,
        told.capabilities,
        Raw(told.server_info),
        told.instructions,
        dict(said.lists),
        said.ttl_ms,
        said.public,
    )


def packed(one: Memory) -> bytes:
    """A checksum over every byte, then the document."""
    body = jsonrpc.encode(one)
    return hashlib.sha256(body).hexdigest().encode() + b"\n" + body


def unpacked(content: bytes, digest: str) -> Memory | None:
    """None for what is damaged, of another format, or about another connection."""
    checksum, body = content[:_DIGEST_CHARS], content[_DIGEST_CHARS + 1 :]
    if hashlib.sha256(body).hexdigest().encode() != checksum:
        return None
    try:
        found = _decoder.decode(body)
    except jsonrpc.UNREADABLE:
        return None
    return found if found.format == _FORMAT and found.digest == digest else None


class Remembered:
    def __init__(self, folder: Path | None) -> None:
        """`folder`: None where nothing is to be remembered."""
        self._folder = folder
        self._heard: dict[str, Memory | None] = {}
        """To be written; None: to be forgotten."""
        self._written: dict[str, bytes] = {}
        self._rests: dict[str, float] = {}
        self._names: Collection[str] | None = None
        self._writer: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()
        self._is_failing = False

    async def of(self, spec: RemoteSpec) -> tuple[Said, datetime] | None:
        """What a remote last listed when it was reached as it would be now, and when it did."""
        if self._folder is None:
            return None
        return await asyncio.to_thread(_read, self._path(self._folder, spec.name), spec.digest)

    def heard(self, spec: RemoteSpec, said: Said) -> None:
        """To be kept, in a moment."""
        if self._folder is None:
            return
        is_small = sum(len(raw) for raws in said.lists.values() for raw in raws) <= _MAX_BYTES
        self._heard[spec.name] = memory(spec, said) if is_small else None
        self._begin()

    def keep(self, names: Collection[str]) -> None:
        """Forget remotes that are no longer configured."""
        self._names = names
        if self._folder is not None:
            self._begin()

    async def close(self) -> None:
        """Write what is left, now."""
        self._hurry.set()
        if self._writer is not None and (await asyncio.wait((self._writer,), timeout=_FINISH_S))[1]:
            log.warning("what remotes list was not kept: the disk is too slow")
            self._writer.cancel()

    def _begin(self) -> None:
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_all(), name="remembered lists")

    async def _write_all(self) -> None:
        loop = asyncio.get_running_loop()
        await self._tidy()
        while self._heard:
            name = min(self._heard, key=lambda one: self._rests.get(one, 0.0))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._hurry.wait(), max(0.0, self._rests.get(name, 0.0) - loop.time()))
            began = loop.time()
            await self._write(name)
            self._rests[name] = loop.time() + min(_REST * (loop.time() - began), _REST_MAX_S)
            await self._tidy()

    async def _write(self, name: str) -> None:
        assert self._folder is not None
        one = self._heard.pop(name)
        try:
            known = self._written.pop(name, b"")
            self._written[name] = await asyncio.to_thread(_write, self._path(self._folder, name), one, known)
            self._is_failing = False
        except OSError as error:
            if not self._is_failing:
                log.warning("what remotes list cannot be kept: %s", error.strerror or type(error).__name__)
            self._is_failing = True

    async def _tidy(self) -> None:
        names, self._names = self._names, None
        if names is None or self._folder is None:
            return
        for name in self._written.keys() - set(names):
            del self._written[name]
        for name in self._rests.keys() - set(names):
            del self._rests[name]
        await asyncio.to_thread(_tidy, self._folder, {self._path(self._folder, name).name for name in names})

    @staticmethod
    def _path(folder: Path, name: str) -> Path:
        return folder / f"{name}.json"


def _read(path: Path, digest: str) -> tuple[Said, datetime] | None:
    try:
        about = path.stat()
        found = unpacked(path.read_bytes(), digest) if about.st_size <= 2 * _MAX_BYTES else None
    except OSError:
        return None
    return None if found is None else (found.said, datetime.fromtimestamp(about.st_mtime, UTC))


def _write(path: Path, one: Memory | None, known: bytes) -> bytes:
    """The checksum of what is on the disk now. What is there already is not written again; its time is when it was last heard."""
    content = packed(one) if one is not None else b""
    if not content or len(content) > 2 * _MAX_BYTES:
        path.unlink(missing_ok=True)
        return b""
    checksum = content[:_DIGEST_CHARS]
    if checksum == known and path.exists():
        os.utime(path)
    else:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(path, content)
    return checksum


def _tidy(folder: Path, wanted: Collection[str]) -> None:
    """Remove what is about remotes that went, and what a crash left behind."""
    with contextlib.suppress(OSError):  # it is tidied with the next change of the configuration
        for entry in list(os.scandir(folder)):
            is_left = entry.name.endswith(".tmp") and time.time() - entry.stat().st_mtime > _LEFT_S
            if is_left or (entry.name.endswith(".json") and entry.name not in wanted):
                os.unlink(entry.path)
