"""Fixtures that several files of component tests share."""

from tests.component.real_gateway import _tight_gateway, _whole_gateway, gateway, tight

__all__ = ["_tight_gateway", "_whole_gateway", "gateway", "tight"]
