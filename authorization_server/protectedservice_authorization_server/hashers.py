# mypy: allow-subclassing-any
"""How client secrets are stored."""

from __future__ import annotations

from django.contrib.auth.hashers import PBKDF2PasswordHasher


class FastHasher(PBKDF2PasswordHasher):
    """PBKDF2 with one round: a salted digest.

    Client secrets are 128 random characters, so stretching protects nothing; the stock 1,000,000 rounds would cost
    0.3 s of CPU at every introspection. Nobody has a password here.
    """

    algorithm = "fast"
    iterations = 1
