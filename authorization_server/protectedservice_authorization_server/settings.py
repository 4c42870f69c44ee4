"""Django's settings, all derived from the environment. Importing this raises ConfigurationError on a bad one."""

from __future__ import annotations

import os

from . import configuration, databases

_configuration = configuration.load(os.environ)

ISSUER = _configuration.issuer
INITIAL_ACCESS_TOKEN = _configuration.initial_access_token
SECRET_KEY = configuration.secret_key(_configuration)
DEBUG = False
ALLOWED_HOSTS = list(_configuration.allowed_hosts)
# False would make `exp` wrong: the toolkit reads naive local time as UTC.
USE_TZ = True
TIME_ZONE = "UTC"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
ROOT_URLCONF = "protectedservice_authorization_server.urls"
INSTALLED_APPS = [
    "django.contrib.auth",  # the toolkit's tables point at a user, though nobody logs in here
    "django.contrib.contenttypes",
    "oauth2_provider",
    "protectedservice_authorization_server",
]
MIDDLEWARE = [
    "django.middleware.common.CommonMiddleware",  # Content-Length; without it every answer is chunked
    "protectedservice_authorization_server.middleware.Answers",
]
APPEND_SLASH = False
DATA_UPLOAD_MAX_MEMORY_SIZE = 65_536  # bytes; the longest honest request is a registration with a few audiences

DATABASES = {"default": databases.settings_of(_configuration.database)}

# The only hasher, so the default one too: no secret can ever be stored slowly, see hashers.py.
PASSWORD_HASHERS = ["protectedservice_authorization_server.hashers.FastHasher"]
OAUTH2_PROVIDER_APPLICATION_MODEL = "oauth2_provider.Application"  # the default, which makemigrations wants spelled out
OAUTH2_PROVIDER = {
    "SCOPES": {scope: scope for scope in _configuration.scopes},
    "SCOPES_BACKEND_CLASS": "protectedservice_authorization_server.policy.PerClientScopes",
    "OAUTH2_VALIDATOR_CLASS": "protectedservice_authorization_server.policy.Validator",
    "OAUTH2_SERVER_CLASS": "oauthlib.oauth2.BackendApplicationServer",  # client_credentials and nothing else
    "ACCESS_TOKEN_EXPIRE_SECONDS": _configuration.token_ttl,
    "OIDC_ISS_ENDPOINT": ISSUER,
    "DCR_ENABLED": True,
    "DCR_REGISTRATION_SCOPE": configuration.REGISTRATION_SCOPE,
    "DCR_REGISTRATION_PERMISSION_CLASSES": ("protectedservice_authorization_server.policy.InitialAccessToken",),
    "DCR_ROTATE_REGISTRATION_TOKEN_ON_UPDATE": True,
    "CLEAR_EXPIRED_TOKENS_BATCH_INTERVAL": 0,  # seconds to sleep between batches
    # RFC 9700, off by default in 3.x. TOKEN_STORAGE: tokens are stored as digests.
    "COMPLIANT_BCP_RFC9700_TOKEN_STORAGE": True,
    "COMPLIANT_BCP_RFC9700_ACCESS_TOKEN_TRANSPORT": True,
    "COMPLIANT_BCP_RFC9700_IMPLICIT_GRANT": True,
    "COMPLIANT_BCP_RFC9700_PASSWORD_GRANT": True,
    "COMPLIANT_BCP_RFC9700_PKCE_METHOD": True,
    "COMPLIANT_BCP_RFC9700_AUTHZ_RESPONSE_ISS": True,
}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "root": {"handlers": ["stderr"], "level": "WARNING"},
    # Refused requests are in the access log already; the rest goes to the root logger once.
    "loggers": {"django.request": {"level": "ERROR"}, "django": {"handlers": [], "propagate": True}},
}
