"""The parts of the service as the tests of the service start them."""

from __future__ import annotations
