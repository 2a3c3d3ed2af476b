"""What the conformance tool expects a server to offer, by the names it calls: tools, prompts, resources.

The names and the essence of each answer are the tool's (its scenario descriptions); nothing here knows a transport.
Tasks are in tasks.py.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from tests.conformance.call import Call, Question, finished, missing_capability, text

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
SILENCE = base64.b64encode(
    b"RIFF" + (36).to_bytes(4, "little") + b"WAVEfmt " + (16).to_bytes(4, "little")
    + b"\x01\x00\x01\x00" + (8000).to_bytes(4, "little") + (8000).to_bytes(4, "little") + b"\x01\x00\x08\x00"
    + b"data" + bytes(4)
).decode()  # fmt: skip
PAUSE_S = 0.05  # between two notifications, as the tool's descriptions have it

Run = Callable[[Call], Awaitable[dict[str, Any]]]


@dataclass(frozen=True)
class Tool:
    name: str
    run: Run
    description: str
    properties: dict[str, Any] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    schema: dict[str, Any] | None = None
    remembers: bool = False

    def listed(self) -> dict[str, Any]:
        schema = self.schema or {"type": "object", "properties": self.properties, "required": list(self.required)}
        tool: dict[str, Any] = {"name": self.name, "description": self.description, "inputSchema": schema}
        return tool


TOOLS: dict[str, Tool] = {}


def offered(**facts: Any) -> Callable[[Run], Run]:
    """Offer a function as the tool of its name."""

    def register(run: Run) -> Run:
        name = run.__name__
        TOOLS[name] = Tool(name, run, (run.__doc__ or name).strip(), **facts)
        return run

    return register


# Results of every kind


@offered()
async def test_simple_text(call: Call) -> dict[str, Any]:
    """One text block."""
    return text("This is a simple text response for testing.")


@offered()
async def test_image_content(call: Call) -> dict[str, Any]:
    """A picture of one pixel."""
    return finished(content=[{"type": "image", "data": PIXEL, "mimeType": "image/png"}])


@offered()
async def test_audio_content(call: Call) -> dict[str, Any]:
    """A recording of nothing."""
    return finished(content=[{"type": "audio", "data": SILENCE, "mimeType": "audio/wav"}])


@offered()
async def test_embedded_resource(call: Call) -> dict[str, Any]:
    """A resource inside the result."""
    return finished(
        content=[embedded("test://embedded-resource", "text/plain", "This is an embedded resource content.")]
    )


@offered()
async def test_multiple_content_types(call: Call) -> dict[str, Any]:
    """Text, a picture and a resource in one result."""
    words = {"type": "text", "text": "Multiple content types test:"}
    picture = {"type": "image", "data": PIXEL, "mimeType": "image/png"}
    document = json.dumps({"test": "data", "value": 123})
    return finished(content=[words, picture, embedded("test://mixed-content-resource", "application/json", document)])


@offered()
async def test_error_handling(call: Call) -> dict[str, Any]:
    """A tool that fails."""
    return text("This tool intentionally returns an error for testing", failed=True)


def embedded(uri: str, mime_type: str, words: str) -> dict[str, Any]:
    return {"type": "resource", "resource": {"uri": uri, "mimeType": mime_type, "text": words}}


# Notifications on the way


@offered()
async def test_tool_with_logging(call: Call) -> dict[str, Any]:
    """Three log messages, then the result."""
    for words in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        await call.log(words)
        await asyncio.sleep(PAUSE_S)
    return text("logged")


@offered()
async def test_logging_tool(call: Call) -> dict[str, Any]:
    """One log message, which only a client that asked for it may see."""
    await call.log("one message")
    return text("logged")


@offered()
async def test_tool_with_progress(call: Call) -> dict[str, Any]:
    """Three progress notifications, then the result."""
    for value in (0, 50, 100):
        await call.progress(value, 100)
        await asyncio.sleep(PAUSE_S)
    return text("done")


@offered()
async def test_reconnection(call: Call) -> dict[str, Any]:
    """Close the stream in mid-call; the result waits for the client that comes back."""
    await call.log("before the stream closes")
    if call.ctx.close_sse_stream is not None:
        await call.ctx.close_sse_stream()
    await asyncio.sleep(0.3)  # longer than the `retry` it was told, so that the result is really fetched later
    await call.log("after the stream closed")
    return text("resumed")


# Questions to the client


def elicitation(message: str, **properties: Any) -> Question:
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return {"method": "elicitation/create", "params": {"message": message, "requestedSchema": schema}}


def sampling(prompt: str, max_tokens: int = 100) -> Question:
    message = {"role": "user", "content": {"type": "text", "text": prompt}}
    return {"method": "sampling/createMessage", "params": {"messages": [message], "maxTokens": max_tokens}}


ROOTS: Question = {"method": "roots/list", "params": {}}
STRING = {"type": "string"}
NAME = elicitation("What is your name?", name=STRING)
CONFIRM = elicitation("Please confirm", ok={"type": "boolean"})


def answered(answer: dict[str, Any], before: str) -> dict[str, Any]:
    """The result of a tool that asked one thing: what was answered, in text."""
    content = json.dumps(answer.get("content", {}))
    return text(f"{before}: action={answer.get('action')}, content={content}")


@offered(properties={"prompt": STRING}, required=("prompt",))
async def test_sampling(call: Call) -> dict[str, Any]:
    """Ask the client's model."""
    answers = await call.ask(sample=sampling(call.arguments["prompt"]))
    return text(f"LLM response: {answers['sample']['content']['text']}")


@offered(properties={"message": STRING}, required=("message",))
async def test_elicitation(call: Call) -> dict[str, Any]:
    """Ask the user."""
    question = elicitation(call.arguments["message"], username=STRING, email=STRING)
    return answered((await call.ask(user=question))["user"], "User response")


@offered()
async def test_elicitation_sep1034_defaults(call: Call) -> dict[str, Any]:
    """Ask the user, with a default for every primitive type."""
    question = elicitation(
        "Please check these values",
        name={"type": "string", "default": "John Doe"},
        age={"type": "integer", "default": 30},
        score={"type": "number", "default": 95.5},
        status={"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
        verified={"type": "boolean", "default": True},
    )
    return answered((await call.ask(values=question))["values"], "Elicitation completed")


@offered()
async def test_elicitation_sep1330_enums(call: Call) -> dict[str, Any]:
    """Ask the user to choose, in each of the five forms of an enumeration."""
    plain = [f"option{number}" for number in (1, 2, 3)]
    titled = [{"const": f"value{n}", "title": f"Choice {n}"} for n in (1, 2, 3)]
    question = elicitation(
        "Please choose",
        untitledSingle={"type": "string", "enum": plain},
        titledSingle={"type": "string", "oneOf": titled},
        legacyEnum={"type": "string", "enum": ["opt1", "opt2"], "enumNames": ["Option one", "Option two"]},
        untitledMulti={"type": "array", "items": {"type": "string", "enum": plain}},
        titledMulti={"type": "array", "items": {"anyOf": titled}},
    )
    return answered((await call.ask(choice=question))["choice"], "Elicitation completed")


@offered()
async def test_streaming_elicitation(call: Call) -> dict[str, Any]:
    """Progress, then a question."""
    await call.progress(1, 2)
    return answered((await call.ask(user=NAME))["user"], "User response")


@offered()
async def test_missing_capability(call: Call) -> dict[str, Any]:
    """Refuse a client that has no sampling."""
    if call.capabilities.sampling is None:
        raise missing_capability({"sampling": {}})
    return text("the client can sample")


@offered()
async def test_input_required_result_elicitation(call: Call) -> dict[str, Any]:
    """Ask for a name and greet."""
    answer = (await call.ask(user_name=NAME))["user_name"]
    return text(f"Hello, {answer.get('content', {}).get('name', 'stranger')}!")


@offered()
async def test_input_required_result_sampling(call: Call) -> dict[str, Any]:
    """Ask the client's model for a capital."""
    answers = await call.ask(capital_question=sampling("What is the capital of France?"))
    return text(answers["capital_question"]["content"]["text"])


@offered()
async def test_input_required_result_list_roots(call: Call) -> dict[str, Any]:
    """Ask for the client's roots."""
    roots = (await call.ask(client_roots=ROOTS))["client_roots"]["roots"]
    return text(", ".join(root["uri"] for root in roots))


@offered(remembers=True)
async def test_input_required_result_request_state(call: Call) -> dict[str, Any]:
    """Ask for confirmation, with state that the client carries."""
    await call.ask(confirm=CONFIRM)
    return text("state-ok")


@offered(remembers=True)
async def test_input_required_result_tampered_state(call: Call) -> dict[str, Any]:
    """Ask for confirmation, with state that nobody may change."""
    await call.ask(confirm=CONFIRM)
    return text("the state is intact")


@offered(remembers=True)
async def test_input_required_result_multiple_inputs(call: Call) -> dict[str, Any]:
    """Ask the user, the model and for the roots, all at once."""
    answers = await call.ask(user_name=NAME, greeting=sampling("Generate a greeting", 50), client_roots=ROOTS)
    return text(json.dumps(answers))


@offered(remembers=True)
async def test_input_required_result_multi_round(call: Call) -> dict[str, Any]:
    """Ask for a name, then for a colour."""
    first = await call.ask(step1=elicitation("Step 1: What is your name?", name=STRING))
    second = await call.ask(step2=elicitation("Step 2: What is your favorite color?", color=STRING))
    return text(json.dumps([first["step1"], second["step2"]]))


@offered()
async def test_input_required_result_capabilities(call: Call) -> dict[str, Any]:
    """Ask everything that this client can answer, and nothing else."""
    questions = {"user_name": NAME, "greeting": sampling("Generate a greeting", 50), "client_roots": ROOTS}
    answers = await call.ask(**{key: question for key, question in questions.items() if call.supports(question)})
    return text(json.dumps(answers))


# Schemas and headers


@offered(
    schema={
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "$defs": {
            "address": {
                "$anchor": "addressDef",
                "type": "object",
                "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
            }
        },
        "properties": {
            "name": {"type": "string"},
            "address": {"$ref": "#/$defs/address"},
            "contactMethod": {"type": "string", "enum": ["phone", "email"]},
            "phone": {"type": "string"},
            "email": {"type": "string"},
        },
        "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
        "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
        "then": {"required": ["phone"]},
        "else": {"required": ["email"]},
        "additionalProperties": False,
    }
)
async def json_schema_2020_12_tool(call: Call) -> dict[str, Any]:
    """A schema of the 2020-12 draft."""
    return text(json.dumps(dict(call.arguments)))


@offered(
    properties={"region": {"type": "string", "x-mcp-header": "Region"}, "query": STRING},
)
async def test_header_parameter(call: Call) -> dict[str, Any]:
    """An argument that must come as a header too."""
    return text(json.dumps(dict(call.arguments)))


# Prompts

PROMPTS: dict[str, Tool] = {}


def prompt(*arguments: str) -> Callable[[Run], Run]:
    """Offer a function as the prompt of its name."""

    def register(run: Run) -> Run:
        name = run.__name__
        PROMPTS[name] = Tool(name, run, (run.__doc__ or name).strip(), required=arguments)
        return run

    return register


def listed_prompt(offer: Tool) -> dict[str, Any]:
    arguments = [{"name": name, "description": f"The {name}", "required": True} for name in offer.required]
    return {"name": offer.name, "description": offer.description, "arguments": arguments}


def said(*blocks: dict[str, Any]) -> dict[str, Any]:
    return finished(messages=[{"role": "user", "content": block} for block in blocks])


def words(content: str) -> dict[str, Any]:
    return {"type": "text", "text": content}


@prompt()
async def test_simple_prompt(call: Call) -> dict[str, Any]:
    """One message."""
    return said(words("This is a simple prompt for testing."))


@prompt("arg1", "arg2")
async def test_prompt_with_arguments(call: Call) -> dict[str, Any]:
    """One message with two arguments in it."""
    return said(words(f"arg1='{call.arguments['arg1']}', arg2='{call.arguments['arg2']}'"))


@prompt("resourceUri")
async def test_prompt_with_embedded_resource(call: Call) -> dict[str, Any]:
    """A message that is a resource."""
    resource = embedded(call.arguments["resourceUri"], "text/plain", "Embedded resource content for testing.")
    return said(resource, words("Please process the embedded resource above."))


@prompt()
async def test_prompt_with_image(call: Call) -> dict[str, Any]:
    """A message that is a picture."""
    return said({"type": "image", "data": PIXEL, "mimeType": "image/png"}, words("Please analyze the image above."))


@prompt()
async def test_input_required_result_prompt(call: Call) -> dict[str, Any]:
    """A message about what the user answered."""
    question = elicitation("What context should the prompt use?", context=STRING)
    answer = (await call.ask(user_context=question))["user_context"]
    return said(words(json.dumps(answer)))


# Resources

TEXT_RESOURCE = "This is the content of the static text resource."
RESOURCES: dict[str, dict[str, Any]] = {
    "test://static-text": {"mimeType": "text/plain", "text": TEXT_RESOURCE},
    "test://static-binary": {"mimeType": "image/png", "blob": PIXEL},
    "test://watched-resource": {"mimeType": "text/plain", "text": "Watched resource content"},
}
TEMPLATE = "test://template/{id}/data"


def listed_resources() -> list[dict[str, Any]]:
    return [
        {
            "uri": uri,
            "name": uri.partition("://")[2],
            "description": f"The resource {uri}",
            "mimeType": facts["mimeType"],
        }
        for uri, facts in RESOURCES.items()
    ]


def listed_template() -> dict[str, Any]:
    facts = {"name": "template", "description": "A resource for every id", "mimeType": "application/json"}
    return {"uriTemplate": TEMPLATE} | facts


def resource(uri: str) -> dict[str, Any] | None:
    """The contents of a resource, or None when there is no such resource."""
    before, _, after = TEMPLATE.partition("{id}")
    if uri in RESOURCES:
        return {"uri": uri} | RESOURCES[uri]
    if uri.startswith(before) and uri.endswith(after) and len(uri) > len(before) + len(after):
        number = uri.removeprefix(before).removesuffix(after)
        document = {"id": number, "templateTest": True, "data": f"Data for ID: {number}"}
        return {"uri": uri, "mimeType": "application/json", "text": json.dumps(document)}
    return None
