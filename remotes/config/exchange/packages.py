"""Servers that are described as packages (the official registry's server.json, Docker's catalogue) as the command that starts
them, or the URL where they run. The command is written down, never run.

Pure.
"""

from collections.abc import Iterator
from typing import Any, Protocol

from remotes.config.exchange.variables import named

Entry = dict[str, Any]


class Report(Protocol):
    refused: str

    def drop(self, name: str, reason: str) -> None: ...


# Docker's catalogue


def unfold_image(raw: Entry) -> None:
    """`image`, `volumes`, `env` and `secrets` as one `docker run`; `remote` as its URL."""
    remote = raw.pop("remote", None)
    if isinstance(remote, dict):
        raw.update(url=remote.get("url"), type=remote.get("transport_type", "http"), headers=remote.get("headers"))
        return
    image = raw.pop("image", None)
    if not isinstance(image, str):
        return
    variables = dict(_docker_variables(raw.pop("env", None), raw.pop("secrets", None)))
    volumes = [word for volume in _list(raw.pop("volumes", None)) for word in ("-v", str(volume))]
    inner = _list(raw.pop("command", None))
    flags = [word for name in variables for word in ("-e", name)]
    raw.update(
        type="stdio",
        command="docker",
        args=["run", "-i", "--rm", *flags, *volumes, image, *map(str, inner)],
        env=variables,
    )


def _docker_variables(env: Any, secrets: Any) -> Iterator[tuple[str, str]]:
    for one in _tables(env):
        yield str(one.get("name")), str(one.get("value", ""))
    for one in _tables(secrets):
        yield str(one.get("env") or one.get("name")), "{{" + str(one.get("env") or one.get("name")) + "}}"


# The registry's server.json

_RUNNERS = {"npm": ("npx", ["-y"]), "pypi": ("uvx", []), "oci": ("docker", ["run", "-i", "--rm"]), "nuget": ("dnx", [])}
_VERSION = {"npm": "@", "pypi": "==", "oci": ":", "nuget": "@"}
_DESCRIBING = (
    "name",
    "description",
    "title",
    "version",
    "repository",
    "websiteUrl",
    "icons",
    "$schema",
    "_meta",
    "status",
)


def unfold_package(raw: Entry, report: Report) -> None:
    """Where it runs already, if it does; else the first package that can be started over stdio."""
    packages, remotes = list(_tables(raw.pop("packages", None))), list(_tables(raw.pop("remotes", None)))
    for name in _DESCRIBING:
        raw.pop(name, None)
    startable = [one for one in packages if _is_startable(one)]
    if remotes:
        _unfold_remote(raw, remotes[0])
    elif startable:
        _unfold_startable(raw, startable[0])
    else:
        kinds = ", ".join(str(one.get("registryType")) for one in packages)
        report.refused = f"its packages ({kinds or 'none'}) cannot be started with npx, uvx, docker or dnx"
    for name, others in (("remotes", remotes[1:]), ("packages", packages if remotes else startable[1:])):
        if others:
            report.drop(name, f"one way to reach it is enough; {len(others)} more in the file")


def _is_startable(package: Entry) -> bool:
    if str(package.get("registryType")) not in _RUNNERS:
        return False
    transport = package.get("transport")
    return not isinstance(transport, dict) or transport.get("type", "stdio") == "stdio"


def _unfold_remote(raw: Entry, remote: Entry) -> None:
    raw.update(url=remote.get("url"), type=remote.get("type", "http"))
    raw["headers"] = {str(one.get("name")): _input(one, str(one.get("name"))) for one in _tables(remote.get("headers"))}


def _unfold_startable(raw: Entry, package: Entry) -> None:
    kind = package["registryType"]
    runner, flags = _RUNNERS[kind]
    version = package.get("version")
    identifier = str(package.get("identifier", ""))
    is_versioned = not version or version == "latest" or (kind == "oci" and ":" in identifier.rpartition("/")[2])
    variables = {str(one.get("name")): one for one in _tables(package.get("environmentVariables"))}
    env = {name: _input(one, name) for name, one in variables.items() if _is_needed(one)}
    passed = [word for name in env for word in ("-e", name)] if kind == "oci" else []
    raw.update(
        type="stdio",
        command=package.get("runtimeHint") or runner,
        args=[
            *flags, *passed, *_arguments(package.get("runtimeArguments")),
            identifier if is_versioned else f"{identifier}{_VERSION[kind]}{version}",
            *(["--yes"] if kind == "nuget" else []), *_arguments(package.get("packageArguments")),
        ],
        env=env,
    )  # fmt: skip


def _is_needed(variable: Entry) -> bool:
    """An optional variable without a value stays unset."""
    return any(variable.get(key) for key in ("isRequired", "isSecret", "default", "value"))


def _arguments(given: Any) -> Iterator[str]:
    for one in _tables(given):
        name = str(one.get("name") or one.get("valueHint") or "argument")
        value = _input(one, name)
        if not (one.get("value") or one.get("default") or one.get("isRequired")):
            continue
        yield from [name, value] if one.get("type") == "named" else [value]


def _input(described: Entry, name: str) -> str:
    """The value that is given, or a variable to be set. `{curly}` in it is replaced with all other variables."""
    value = described.get("value") or described.get("default")
    return str(value) if value not in (None, "") else "{" + named(name.lstrip("-")) + "}"


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _tables(value: Any) -> Iterator[Entry]:
    """What somebody else wrote may hold anything: only what can be read is."""
    return (one for one in _list(value) if isinstance(one, dict))
