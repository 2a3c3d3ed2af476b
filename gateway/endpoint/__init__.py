"""ASGI in, ASGI out. `app` decides who serves a request; each era has a file of its own:
`stateless` (2026-07-28), `streamable` (2025-03-26 to 2025-11-25), `legacy_sse` (2024-11-05)."""
