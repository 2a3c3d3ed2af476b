"""Clients that stay: what is remembered of a session, what its streams say, what it is asked and told."""
