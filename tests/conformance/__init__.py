"""The public MCP conformance tool, run against the gateway: `python -m tests.conformance` (see __main__.py)."""
