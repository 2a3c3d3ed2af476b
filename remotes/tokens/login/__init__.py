"""Getting the first token for a remote, with a person: who issues it, which client we are, and the person's consent.

- `discovery` follows the remote's own words to its authorization server and judges every step;
- `client` finds out which client we are there: configured, a metadata document of our own, or registered now;
- `code` and `device` are the two ways to a person's consent; `redirect` is where the first one comes back.

Only `mcp remote login` and `logout` import this, and with it the official SDK, which takes a second.
"""
