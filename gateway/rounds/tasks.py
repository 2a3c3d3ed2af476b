"""Tasks: work that a remote goes on with after it has answered, fetched later by its id.

An id given to a client names the remote and belongs to the key that began the task: with another key, or changed, it does not
exist. It carries its own proof and is the same each time, so nothing needs to be stored to serve it; what is remembered, bounded,
is only which tasks a key has, for `tasks/list` (among several workers: on a shelf that all see).

Source: specification 2025-11-25, basic/utilities/tasks; the extension io.modelcontextprotocol/tasks of 2026-07-28.
"""

import base64
import binascii
import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec import Raw

from gateway.cluster.shelf import Shelf
from gateway.sessions.subscriptions import Subscriber
from mcpserver.protocol import jsonrpc

RELATED = "io.modelcontextprotocol/related-task"
EXTENSION = "io.modelcontextprotocol/tasks"
# What a session client is told of them (2025-11-25).
CAPABILITY: dict[str, Any] = {"list": {}, "cancel": {}, "requests": {"tools": {"call": {}}}}
STATUS = "notifications/tasks/status"
_MAC_BYTES = 12
_REMEMBERED = 10_000
_RECALLED_MAX = 1000


class _Owner(msgspec.Struct, frozen=True):
    """Whose task it is, and how its client hears of it; 2026-07-28 clients ask instead."""

    key_id: str
    subscriber: Subscriber | None = None


class TaskIds:
    def __init__(self, secret: bytes) -> None:
        self._secret = hmac.new(secret, b"mcp task", hashlib.sha256).digest()
        self._minted: OrderedDict[tuple[str, str], _Owner] = OrderedDict()
        self.shelf: Shelf | None = None
        """Where workers know whose tasks are that any of them saw."""
        self._fresh: list[tuple[str, str]] = []

    def mint(self, remote: str, key_id: str, own: str, subscriber: Subscriber | None = None) -> str:
        """The id under which one key knows a remote's task; `subscriber` hears of its changes from now on."""
        facts = msgspec.json.encode([remote, own])
        id = base64.urlsafe_b64encode(self._mac(facts, key_id) + facts).decode().rstrip("=")
        known = self._minted.get((remote, own))
        if known is None and self.shelf is not None and len(self._fresh) < _REMEMBERED:
            self._fresh.append((key_id, _name(remote, own)))
        if known is None or known.key_id != key_id or subscriber is not None:
            self._minted[remote, own] = _Owner(key_id, subscriber)
        self._minted.move_to_end((remote, own))
        if len(self._minted) > _REMEMBERED:
            self._minted.popitem(last=False)
        return id

    def read(self, id: str, key_id: str) -> tuple[str, str] | None:
        """The remote and its own id behind an id, for the key that it was minted for."""
        try:
            sealed = base64.b64decode(id + "=" * (-len(id) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        mac, facts = sealed[:_MAC_BYTES], sealed[_MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(facts, key_id)):
            return None
        remote, own = msgspec.json.decode(facts, type=tuple[str, str])
        return remote, own

    async def share(self) -> None:
        """After a task was given to a client: any worker may be asked for a list of its key's tasks."""
        fresh, self._fresh = self._fresh, []
        for key_id, name in fresh:
            if self.shelf is not None:
                await self.shelf.put(key_id, [(name, "")])

    async def recall(self, listed: Sequence[Raw], remote: str) -> None:
        """Before a remote's tasks are told apart: whose those are that this worker never saw."""
        if self.shelf is None:
            return
        ids = [jsonrpc.text(jsonrpc.fields(raw, "a task").get("taskId")) for raw in listed]
        unknown = [id for id in ids if id is not None and (remote, id) not in self._minted][:_RECALLED_MAX]
        found = await self.shelf.get([_name(remote, id) for id in unknown])
        for id, standing in zip(unknown, found, strict=True):
            if standing is not None:
                self._minted[remote, id] = _Owner(standing.owner)

    def belongs(self, remote: str, own: str, key_id: str) -> bool:
        """Whether a remote's task was begun by this key, as far as it is remembered."""
        owner = self._minted.get((remote, own))
        return owner is not None and owner.key_id == key_id

    def changed(self, remote: str, params: bytes) -> None:
        """A remote says how one of its tasks is: pass it on to the session that began it, under the id it knows."""
        task = jsonrpc.fields(params)
        own = jsonrpc.text(task.get("taskId"))
        owner = self._minted.get((remote, own)) if own is not None else None
        if owner is None or owner.subscriber is None:
            return
        self._rename(task, "taskId", remote, owner.key_id)
        owner.subscriber.put(jsonrpc.notification(STATUS, jsonrpc.encode(task)))

    def exposed(self, raw: bytes, remote: str, key_id: str, subscriber: Subscriber | None = None) -> bytes:
        """A result with the ids that clients know: its own task, the task it created, the one it relates to."""
        result = jsonrpc.fields(raw, "result")
        self._rename(result, "taskId", remote, key_id)
        if "task" in result:
            task = jsonrpc.fields(result["task"], "task")
            self._rename(task, "taskId", remote, key_id, subscriber)
            result["task"] = Raw(jsonrpc.encode(task))
        if "_meta" in result:
            result["_meta"] = Raw(self._related(bytes(result["_meta"]), lambda own: self.mint(remote, key_id, own)))
        return jsonrpc.encode(result)

    def question(self, params: bytes | None, remote: str, key_id: str) -> bytes | None:
        """A question's params that name the task it belongs to, with the client's id for it."""
        return self._with_meta(params, lambda own: self.mint(remote, key_id, own))

    def reply(self, result: bytes, key_id: str) -> bytes:
        """A client's answer that names a task, with the remote's own id for it."""
        return self._with_meta(result, lambda id: (self.read(id, key_id) or ("", id))[1]) or result

    def listed(self, raw: Raw, remote: str, key_id: str) -> bytes | None:
        """One entry of a remote's task list as this key sees it; None for another key's."""
        task = jsonrpc.fields(raw, "a task")
        own = jsonrpc.text(task.get("taskId"))
        if own is None or not self.belongs(remote, own, key_id):
            return None
        self._rename(task, "taskId", remote, key_id)
        return jsonrpc.encode(task)

    def _rename(
        self, fields: jsonrpc.Fields, name: str, remote: str, key_id: str, subscriber: Subscriber | None = None
    ) -> None:
        own = jsonrpc.text(fields.get(name))
        if own is not None:
            fields[name] = Raw(jsonrpc.encode(self.mint(remote, key_id, own, subscriber)))

    def _with_meta(self, raw: bytes | None, renamed: Callable[[str], str]) -> bytes | None:
        if raw is None or RELATED.encode() not in raw:
            return raw
        fields = jsonrpc.fields(raw)
        fields["_meta"] = Raw(self._related(bytes(fields.get("_meta") or b"{}"), renamed))
        return jsonrpc.encode(fields)

    @staticmethod
    def _related(raw: bytes, renamed: Callable[[str], str]) -> bytes:
        meta = jsonrpc.fields(raw, "_meta")
        if RELATED not in meta:
            return raw
        related = jsonrpc.fields(meta[RELATED], RELATED)
        id = jsonrpc.text(related.get("taskId"))
        if id is not None:
            related["taskId"] = Raw(jsonrpc.encode(renamed(id)))
        meta[RELATED] = Raw(jsonrpc.encode(related))
        return jsonrpc.encode(meta)

    def _mac(self, facts: bytes, key_id: str) -> bytes:
        return hmac.new(self._secret, key_id.encode() + b"\0" + facts, hashlib.sha256).digest()[:_MAC_BYTES]


def _name(remote: str, own: str) -> str:
    return f"{remote}\n{own}"
