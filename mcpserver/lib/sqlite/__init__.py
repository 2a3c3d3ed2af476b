"""Django's SQLite backend that looks at the disk before each connection (mcpserver.lib.ballast). Otherwise it is Django's."""
