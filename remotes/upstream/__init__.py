"""Remotes as one seam: `Upstream.exchange` sends a request to a remote and returns an `Outcome`, whatever the transport.

- `outcome`, `envelope`, `era` are values and decisions;
- `http`, `sse`, `stdio` are the transports (`duplex` is what the last two share);
- `connect` opens a connection and finds out the remote's era; `client` keeps one warm; `pool` has one `Upstream` per remote.
"""
