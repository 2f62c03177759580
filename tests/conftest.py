"""Settings of all tests."""

from __future__ import annotations

from hypothesis import settings

# How long an example takes says how busy the machine is, so no test passes or fails by it.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
