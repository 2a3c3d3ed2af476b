"""MCP as values: what goes over the wire, read and written, for both roles (we serve clients, we call remotes).

Pure: no I/O, no clock, no asyncio, no Django. Each module names the section of the specification it follows.
"""
