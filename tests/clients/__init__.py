"""Real MCP clients, each in an environment of its own, that the system tests drive. The gateway imports none of it."""
