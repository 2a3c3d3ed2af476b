"""One request to the conformance upstream, seen alike in both eras: ask the client, log, report progress.

A question goes out as a request in the handshake eras and comes back in the same call; from 2026-07-28 on it is an
`input_required` result, and the client repeats the call with the answers. A tool written against `Call` need not know:
it runs from its start again each time, and `ask` returns what is answered already.
"""

from __future__ import annotations

import asyncio
import json
import warnings
from collections.abc import Mapping
from typing import Any

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp.shared.message import ServerMessageMetadata
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

Context = ServerRequestContext[Any, Any]
Question = dict[str, Any]  # {"method": …, "params": …}, as it is on the wire
Answers = dict[str, dict[str, Any]]

MISSING_CLIENT_CAPABILITY = -32021
TASKS = "io.modelcontextprotocol/tasks"

REQUESTS: Mapping[str, tuple[type[types.Request[Any, Any]], type[types.Result]]] = {
    "elicitation/create": (types.ElicitRequest, types.ElicitResult),
    "sampling/createMessage": (types.CreateMessageRequest, types.CreateMessageResult),
    "roots/list": (types.ListRootsRequest, types.ListRootsResult),
}


class Unanswered(Exception):
    """The client must answer these first; carries the whole `input_required` result."""

    def __init__(self, questions: Mapping[str, Question], state: str | None) -> None:
        super().__init__(", ".join(questions))
        self.result: dict[str, Any] = {"resultType": "input_required", "inputRequests": dict(questions)}
        if state is not None:
            self.result["requestState"] = state


class Call:
    """One tools/call or prompts/get."""

    def __init__(self, ctx: Context, arguments: Mapping[str, Any] | None, *, remembers: bool) -> None:
        self.ctx = ctx
        self.arguments = arguments or {}
        self.modern = ctx.protocol_version in MODERN_PROTOCOL_VERSIONS
        self._remembers = remembers

    @property
    def capabilities(self) -> types.ClientCapabilities:
        return self.ctx.session.client_capabilities or types.ClientCapabilities()

    @property
    def takes_tasks(self) -> bool:
        return self.modern and TASKS in (self.capabilities.extensions or {})

    def supports(self, question: Question) -> bool:
        return getattr(self.capabilities, question["method"].partition("/")[0]) is not None

    async def ask(self, **questions: Question) -> Answers:
        """The client's answer to each; every question needs a capability the client has declared."""
        for question in questions.values():
            if not self.supports(question):
                raise missing_capability({question["method"].partition("/")[0]: {}})
        if not self.modern:
            answers = await asyncio.gather(*(self._request(question) for question in questions.values()))
            return dict(zip(questions, answers, strict=True))
        known = self._known()
        missing = {key: question for key, question in questions.items() if key not in known}
        if missing:
            raise Unanswered(missing, json.dumps(known) if self._remembers else None)
        return known

    async def log(self, data: str, level: types.LoggingLevel = "info") -> None:
        with warnings.catch_warnings(action="ignore"):  # deprecated since 2026-07-28, and to be carried all the same
            await self.ctx.session.send_log_message(level, data, "conformance", related_request_id=self.ctx.request_id)

    async def progress(self, value: float, total: float) -> None:
        await self.ctx.session.report_progress(value, total, f"step {value:g} of {total:g}")

    async def _request(self, question: Question) -> dict[str, Any]:
        request, result = REQUESTS[question["method"]]
        related = ServerMessageMetadata(related_request_id=self.ctx.request_id)
        typed: Any = request.model_validate(question)
        answer = await self.ctx.session.send_request(typed, result, metadata=related)
        return answer.model_dump(mode="json", by_alias=True, exclude_none=True)

    def _known(self) -> Answers:
        """Answers of this round and, from the state that the client carried back, of the rounds before."""
        params = self.ctx.params or {}
        before: Answers = json.loads(params.get("requestState") or "{}")
        return before | (params.get("inputResponses") or {})


def missing_capability(required: dict[str, Any]) -> MCPError:
    return MCPError(
        code=MISSING_CLIENT_CAPABILITY,
        message="the client has not declared a capability that this needs",
        data={"requiredCapabilities": required},
    )


def text(words: str, *, failed: bool = False) -> dict[str, Any]:
    """A tool's result of one text block."""
    return finished(content=[{"type": "text", "text": words}], isError=failed)


def finished(**result: Any) -> dict[str, Any]:
    """A complete result; the SDK takes `resultType` out again for sessions of the handshake eras."""
    return {"resultType": "complete", **result}
