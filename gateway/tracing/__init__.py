"""Spans of OpenTelemetry, where somebody asked for them."""
