"""`mcp doctor`: what is wrong with this installation and what to do, and what an error code means."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser

from mcpserver.lib.command import Answer, Subcommand, nearest, usage_error
from mcpserver.lib.errors import Exit, GatewayError
from mcpserver.lib.explanations import EXPLAINED
from mcpserver.lib.refusals import REFUSALS
from monitoring import bundle as bundles
from monitoring import doctor


class Doctor(Subcommand):
    help = (
        "Look at everything that is known to go wrong, and say what to do. `mcp doctor explain CODE` explains an error."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "words", nargs="*", metavar="explain CODE", help="what an error code means; without CODE, all"
        )
        parser.add_argument("--fix", action="store_true", help="make missing folders, and close files to others")
        parser.add_argument("--bundle", type=Path, metavar="FILE", help="write a redacted archive for a bug report")
        parser.add_argument("--url", default="", help="how clients reach the gateway: looks at the proxy in front")

    def run(self, *, words: list[str], fix: bool, bundle: Path | None, url: str) -> dict[str, Any] | Answer:
        if words:
            return _explained(words)
        fixed = doctor.mend() if fix else []
        checks = doctor.examine(url=url)
        failed = [check for check in checks if check.status == "failed"]
        document: dict[str, Any] = {"checks": [asdict(check) for check in checks]}
        if fix:
            document["fixed"] = fixed
        if bundle is not None:
            document["bundle"] = {"file": str(bundle), "contents": _bundled(bundle, checks)}
        if not failed:
            return document
        named = ", ".join(dict.fromkeys(check.name for check in failed))
        told = {"error": "unhealthy", "message": f"not well: {named}", "hint": "do what is written beside it under fix"}
        return Answer(told | document, Exit.FAILED)


def _bundled(path: Path, checks: list[doctor.Check]) -> list[str]:
    try:
        return bundles.write(path, checks)
    except FileExistsError:
        hint = "name another file"
        raise GatewayError("exists", f"{path} is there already", hint=hint, exit_code=Exit.CONFLICT) from None


def _explained(words: list[str]) -> dict[str, Any]:
    if words[0] != "explain" or len(words) > 2:
        raise usage_error(f"unknown words: {' '.join(words)}", hint="mcp doctor explain CODE")
    if len(words) == 1:
        commands, clients = EXPLAINED.items(), REFUSALS.items()
        return {"codes": {code: asdict(one) for code, one in commands} | {code: asdict(one) for code, one in clients}}
    code = words[1]
    if code in REFUSALS:
        return {"code": code, **asdict(REFUSALS[code])}
    if code not in EXPLAINED:
        meant = nearest(code, EXPLAINED)
        hint = f"did you mean {meant}?" if meant else "see them all with: mcp doctor explain"
        raise GatewayError("not_found", f"there is no error code {code}", hint=hint, exit_code=Exit.NOT_FOUND)
    return {"code": code, **asdict(EXPLAINED[code])}
