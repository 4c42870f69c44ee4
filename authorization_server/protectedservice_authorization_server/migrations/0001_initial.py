# mypy: allow-subclassing-any

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        migrations.swappable_dependency(settings.OAUTH2_PROVIDER_APPLICATION_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="ClientPolicy",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("scope", models.TextField(blank=True, default="")),
                ("audience", models.JSONField(default=list)),
                ("token_endpoint_auth_method", models.CharField(default="client_secret_basic", max_length=32)),
                (
                    "application",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="policy",
                        to=settings.OAUTH2_PROVIDER_APPLICATION_MODEL,
                    ),
                ),
            ],
            options={
                "db_table": "client_policy",
            },
        ),
        migrations.CreateModel(
            name="StoredAnswer",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("operation", models.CharField(max_length=300)),
                ("key", models.CharField(max_length=255)),
                ("credential", models.CharField(default="", max_length=64)),
                ("fingerprint", models.CharField(max_length=64)),
                ("status", models.PositiveSmallIntegerField(default=0)),
                ("sealed", models.BinaryField(default=bytes)),
                ("stored_at", models.DateTimeField(db_index=True)),
            ],
            options={
                "db_table": "stored_answer",
                "constraints": [
                    models.UniqueConstraint(fields=("operation", "key", "credential"), name="one_answer_per_key")
                ],
            },
        ),
    ]
