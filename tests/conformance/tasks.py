"""The tasks extension of 2026-07-28 for the conformance upstream, which the SDK does not serve: raw, on its lowlevel server.

Tools here that a client without the extension calls run to their end within the call, except those that can only be a
task. Tasks live in this process, for as long as it does.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import mcp_types as types
from mcp.server.lowlevel.server import Server
from mcp.shared.exceptions import MCPError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from tests.conformance.call import TASKS, Answers, Call, Context, Question, finished, missing_capability, text
from tests.conformance.offer import NAME, STRING, elicitation, offered

TTL_MS = 60_000
POLL_MS = 100
LONGEST_CALL_S = 2.0  # for a client that cannot have a task: the tool asks for a minute, and gives up sooner


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass
class Task:
    identifier: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    status: str = "working"
    created: str = field(default_factory=now)
    updated: str = field(default_factory=now)
    outcome: dict[str, Any] = field(default_factory=dict)
    pending: dict[str, Question] = field(default_factory=dict)
    answers: Answers = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    running: asyncio.Task[None] | None = None

    def facts(self) -> dict[str, Any]:
        """What every message about a task has."""
        return {
            "taskId": self.identifier,
            "status": self.status,
            "createdAt": self.created,
            "lastUpdatedAt": self.updated,
            "ttlMs": TTL_MS,
            "pollIntervalMs": POLL_MS,
        }

    def settle(self, status: str, **outcome: Any) -> None:
        self.status, self.outcome, self.updated = status, outcome, now()

    async def ask(self, **questions: Question) -> Answers:
        """Wait until tasks/update has answered every question."""
        self.pending = dict(questions)
        self.settle("input_required")
        while self.pending:
            self.changed.clear()
            await self.changed.wait()
        self.settle("working")
        return self.answers

    def answer(self, responses: Answers) -> None:
        for key, response in responses.items():
            if self.pending.pop(key, None) is not None:
                self.answers[key] = response
        self.updated = now()
        self.changed.set()


TASKS_BY_ID: dict[str, Task] = {}


def started(work: Any, task: Task | None = None) -> dict[str, Any]:
    """Start work as a task, and say so: the result of the call that asked for it."""
    task = task or Task()
    TASKS_BY_ID[task.identifier] = task
    task.running = asyncio.create_task(_carry_out(task, work))
    return {"resultType": "task", **task.facts()}


async def _carry_out(task: Task, work: Any) -> None:
    try:
        task.settle("completed", result=await work)
    except asyncio.CancelledError:
        task.settle("cancelled")
    except MCPError as error:
        task.settle("failed", error=error.error.model_dump(exclude_none=True))


# Tools


@offered(properties={"name": STRING}, required=("name",))
async def greet(call: Call) -> dict[str, Any]:
    """Greet; never a task."""
    return text(f"Hello, {call.arguments['name']}!")


@offered(properties={"seconds": {"type": "number"}, "label": STRING})
async def slow_compute(call: Call) -> dict[str, Any]:
    """Take some seconds."""

    async def work() -> dict[str, Any]:
        wanted = float(call.arguments.get("seconds", 0))
        await asyncio.sleep(wanted if call.takes_tasks else min(wanted, LONGEST_CALL_S))
        return text(f"computed {call.arguments.get('label', '')}")

    return started(work()) if call.takes_tasks else await work()


@offered()
async def failing_job(call: Call) -> dict[str, Any]:
    """A task whose tool fails."""

    async def work() -> dict[str, Any]:
        await asyncio.sleep(0.2)
        return text("the job failed", failed=True)

    return as_task(call, work)


@offered()
async def protocol_error_job(call: Call) -> dict[str, Any]:
    """A task that ends in an error of the protocol."""

    async def work() -> dict[str, Any]:
        raise MCPError(code=types.INTERNAL_ERROR, message="the job broke")

    return as_task(call, work)


@offered(properties={"filename": STRING})
async def confirm_delete(call: Call) -> dict[str, Any]:
    """A task that asks before it goes on."""
    task = Task()

    async def work() -> dict[str, Any]:
        answers = await task.ask(confirm=elicitation("Really delete?", confirm={"type": "boolean"}))
        return text(f"{call.arguments.get('filename', '')}: {answers['confirm'].get('action')}")

    return as_task(call, work, task)


@offered()
async def multi_input(call: Call) -> dict[str, Any]:
    """A task that asks two things at once."""
    task = Task()

    async def work() -> dict[str, Any]:
        answers = await task.ask(first=elicitation("First name?", name=STRING), second=elicitation("And?", name=STRING))
        return text(", ".join(sorted(answers)))

    return as_task(call, work, task)


@offered(remembers=True)
async def test_tool_with_task(call: Call) -> dict[str, Any]:
    """Ask within the call, then go on as a task."""
    if not call.takes_tasks:
        raise missing_capability({"extensions": {TASKS: {}}})
    answer = (await call.ask(user_name=NAME))["user_name"]

    async def work() -> dict[str, Any]:
        return text(f"Hello, {answer['content']['name']}!")

    return started(work())


def as_task(call: Call, work: Any, task: Task | None = None) -> dict[str, Any]:
    if not call.takes_tasks:
        raise missing_capability({"extensions": {TASKS: {}}})
    return started(work(), task)


# Methods


class TaskParams(types.RequestParams):
    task_id: str


class UpdateParams(TaskParams):
    input_responses: dict[str, Any]


async def get(ctx: Context, params: TaskParams) -> dict[str, Any]:
    task = find(ctx, params)
    asked = {"inputRequests": task.pending} if task.status == "input_required" else {}
    return finished(**task.facts(), **task.outcome, **asked)


async def update(ctx: Context, params: UpdateParams) -> dict[str, Any]:
    find(ctx, params).answer(params.input_responses)
    return finished()


async def cancel(ctx: Context, params: TaskParams) -> dict[str, Any]:
    task = find(ctx, params)
    if task.running is not None:
        task.running.cancel()
    return finished()


def find(ctx: Context, params: TaskParams) -> Task:
    if ctx.protocol_version not in MODERN_PROTOCOL_VERSIONS:
        raise MCPError(code=types.METHOD_NOT_FOUND, message="Method not found")
    if not Call(ctx, None, remembers=False).takes_tasks:
        raise missing_capability({"extensions": {TASKS: {}}})
    named = ctx.request.headers.get("mcp-name") if ctx.request is not None else params.task_id
    if named != params.task_id:
        raise MCPError(code=types.HEADER_MISMATCH, message="Mcp-Name does not match the task id")
    if (task := TASKS_BY_ID.get(params.task_id)) is None:
        raise MCPError(code=types.INVALID_PARAMS, message="no such task")
    return task


def serve(server: Server[Any]) -> None:
    """Advertise the extension and answer its methods."""
    server.extensions[TASKS] = {}
    server.add_request_handler("tasks/get", TaskParams, get)
    server.add_request_handler("tasks/update", UpdateParams, update)
    server.add_request_handler("tasks/cancel", TaskParams, cancel)
