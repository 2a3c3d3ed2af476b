"""Whom a person's errand belongs to: a remote sent a client to a URL, and says later that all is done there.

`notifications/elicitation/complete` comes outside any request, often after the call has ended, so what was asked of which session
is remembered, the latest so many. It goes to that session alone; a 2026-07-28 client knows no such notification.

Source: specification 2025-11-25, client/elicitation "Completion Notifications for URL Mode Elicitation".
"""

from collections import OrderedDict
from typing import TYPE_CHECKING

import msgspec
from msgspec import Raw

from gateway.sessions.subscriptions import Subscriber
from mcpserver.protocol import codes, jsonrpc
from remotes.upstream.envelope import Notify
from remotes.upstream.pool import Pool

if TYPE_CHECKING:
    from gateway.calls import Visit

_REMEMBERED = 1024
_METHOD = "notifications/elicitation/complete"


class Errand(msgspec.Struct, eq=False):
    """Who was sent. `notify` reaches the client on the call's own stream, while the call is open."""

    subscriber: Subscriber
    notify: Notify | None


class _Elicitation(msgspec.Struct, rename="camel"):
    elicitation_id: str = ""


class _Required(msgspec.Struct):
    elicitations: list[_Elicitation] = []


class Elicitations:
    def __init__(self, pool: Pool) -> None:
        self._errands: OrderedDict[tuple[str, str], Errand] = OrderedDict()
        pool.on_completed = self.completed

    def asked(self, visit: "Visit", params: bytes | None) -> None:
        """A remote put a question to the client of this request."""
        if visit.subscriber is None or params is None or b'"elicitationId"' not in params:
            return
        try:
            self._remember(visit, visit.subscriber, msgspec.json.decode(params, type=_Elicitation))
        except jsonrpc.UNREADABLE:
            return  # whoever answers the question says what is wrong with it

    def required(self, visit: "Visit", error: jsonrpc.ErrorBody) -> None:
        """A remote refused this request until its client has run errands (-32042)."""
        if visit.subscriber is None or error.code != codes.URL_ELICITATION_REQUIRED or not isinstance(error.data, Raw):
            return
        try:
            listed = msgspec.json.decode(error.data, type=_Required).elicitations
        except jsonrpc.UNREADABLE:
            return
        for elicitation in listed:
            self._remember(visit, visit.subscriber, elicitation)

    def completed(self, remote: str, elicitation_id: str) -> None:
        """Tell whoever was sent: on the session's own stream or, where nobody reads that, on that of the open call."""
        errand = self._errands.pop((remote, elicitation_id), None)
        if errand is None:
            return
        params = jsonrpc.encode({"elicitationId": elicitation_id})
        if not errand.subscriber.put(jsonrpc.notification(_METHOD, params)) and errand.notify is not None:
            errand.notify(_METHOD, params)

    def _remember(self, visit: "Visit", subscriber: Subscriber, elicitation: _Elicitation) -> None:
        if not elicitation.elicitation_id:
            return
        errand = Errand(subscriber, visit.notify)
        visit.errands.append(errand)
        self._errands[visit.remote, elicitation.elicitation_id] = errand
        if len(self._errands) > _REMEMBERED:
            self._errands.popitem(last=False)
