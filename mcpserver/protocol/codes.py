"""JSON-RPC and MCP error codes, and the HTTP status each carries towards a client of revision 2026-07-28.

Source: specification 2026-07-28, basic/index "Error Codes" and basic/transports/streamable-http.
"""

from types import MappingProxyType

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603

# Handshake revisions only; towards a 2026-07-28 client these become INVALID_PARAMS.
RESOURCE_NOT_FOUND = -32002
URL_ELICITATION_REQUIRED = -32042

# 2026-07-28 only.
HEADER_MISMATCH = -32020
MISSING_CAPABILITY = -32021
UNSUPPORTED_VERSION = -32022

MODERN_STATUS = MappingProxyType(
    {
        PARSE_ERROR: 400,
        INVALID_REQUEST: 400,
        METHOD_NOT_FOUND: 404,
        INVALID_PARAMS: 400,
        HEADER_MISMATCH: 400,
        MISSING_CAPABILITY: 400,
        UNSUPPORTED_VERSION: 400,
    }
)
"""HTTP status by error code; a code that is not listed travels in a 200."""
