"""Calls of more than one exchange: what a remote asks in between, and tasks that are fetched later."""
