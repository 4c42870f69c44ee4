# mypy: allow-subclassing-any
"""What the toolkit's tables have no room for."""

from __future__ import annotations

from django.db import models


class ClientPolicy(models.Model):
    """What one client may ask for. A client without a row may ask for nothing.

    A side table, because swapping the toolkit's Application model ties the order of migrations for good.
    """

    application = models.OneToOneField("oauth2_provider.Application", models.CASCADE, related_name="policy")
    scope = models.TextField(blank=True, default="")  # separated by blanks, RFC 6749 section 3.3
    audience = models.JSONField(default=list)  # absolute URIs it may name as `resource`, RFC 8707
    token_endpoint_auth_method = models.CharField(max_length=32, default="client_secret_basic")

    class Meta:
        db_table = "client_policy"


class StoredAnswer(models.Model):
    """A successful answer kept for repeats under the same `Idempotency-Key`, see idempotency.py."""

    operation = models.CharField(max_length=300)
    key = models.CharField(max_length=255)
    credential = models.CharField(max_length=64, default="")  # hex digest of the bearer token the key is bound to
    fingerprint = models.CharField(max_length=64)  # hex digest of the request's meaning
    status = models.PositiveSmallIntegerField(default=0)
    sealed = models.BinaryField(default=bytes)  # the body, encrypted: it holds a secret
    stored_at = models.DateTimeField(db_index=True)

    class Meta:
        db_table = "stored_answer"
        constraints = [  # noqa: RUF012 (Django's way)
            models.UniqueConstraint(fields=["operation", "key", "credential"], name="one_answer_per_key"),
        ]
