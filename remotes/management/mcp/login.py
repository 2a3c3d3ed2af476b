"""`mcp remote login` and `logout`: a token for a remote that wants one. What a person is to open goes to stderr."""

import argparse
import asyncio
import sys
import webbrowser
from typing import Any

from django.core.management.base import CommandParser

from mcpserver.lib.command import Subcommand, actor
from remotes.management.mcp.sources import configured, named
from remotes.tokens import store

_REDIRECT = "http://127.0.0.1:0/callback"
_TIMEOUT_MAX_S = 3600.0


class RemoteLogin(Subcommand):
    help = (
        "Get a token for a remote (OAuth 2.1): prints an address to open, waits for the consent, stores it encrypted."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", metavar="NAME", help="a remote of the configuration that is reached over HTTP")
        way = parser.add_mutually_exclusive_group()
        way.add_argument("--device", action="store_true", help="agree on any machine with a short code (RFC 8628)")
        way.add_argument(
            "--no-browser", action="store_true", help="no port waits here: paste the address the browser ends at (SSH)"
        )
        way.add_argument("--browser", action="store_true", help="open the address in this machine's browser")
        parser.add_argument("--scope", default="", metavar="'A B'", help="ask for these, besides those granted before")
        parser.add_argument(
            "--redirect-uri", default=_REDIRECT, metavar="URI", help=f"what the client is registered with; {_REDIRECT}"
        )
        parser.add_argument(
            "--client-metadata-url", default="", metavar="URL",
            help="https address where you host this client's metadata document, which is its id",
        )  # fmt: skip
        parser.add_argument("--timeout", type=_seconds, default=300.0, metavar="SECONDS", help="for the consent; 300")

    def run(
        self,
        *,
        name: str,
        device: bool,
        no_browser: bool,
        browser: bool,
        scope: str,
        redirect_uri: str,
        client_metadata_url: str,
        timeout: float,
    ) -> dict[str, Any]:
        spec = named(name, configured())
        from remotes.tokens.login import services  # the official SDK comes with it, and takes a second

        how = services.How(
            redirect_uri=redirect_uri,
            by_device=device,
            listens=not no_browser,
            pastes=no_browser or sys.stdin.isatty(),
            scope=scope,
            metadata_url=client_metadata_url,
            timeout_s=timeout,
        )

        def show(address: str) -> None:
            self.say(f"open this address and agree:\n\n{address}\n")
            if how.pastes:
                self.say("then paste here the address that the browser ends at, if that page does not load:")
            if browser:
                webbrowser.open(address.partition("\n")[0])

        return asyncio.run(services.login(spec, how, show=show, actor=actor()))


class RemoteLogout(Subcommand):
    help = "Forget the token of a remote, and ask its authorization server to end it."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "name", metavar="NAME", help="a remote; one that was removed since can be logged out of, too"
        )

    def run(self, *, name: str) -> dict[str, Any]:
        snapshot = configured()
        if not store.read(name).sealed:
            named(name, snapshot)
        from remotes.tokens.login import services

        return asyncio.run(services.logout(name, snapshot.remotes.get(name), actor=actor()))


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= _TIMEOUT_MAX_S:
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds between 0 and {_TIMEOUT_MAX_S:g}")
    return seconds
