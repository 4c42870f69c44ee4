"""What all tests have in common."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# How fast a busy machine makes examples, or runs one, says nothing about what is tested.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")
