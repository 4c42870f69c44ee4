"""The real authorization servers, each started once for all tests of this folder, and described as users would."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from ..support import hydra_process, keycloak_process, oidc_provider_process
from ..support.hydra_process import HydraProcess
from ..support.keycloak_process import KeycloakProcess
from ..support.oidc_provider_process import OidcProviderProcess
from ..support.process import Process

SECRET = {"name": "authorization-server-registration"}


@dataclass(frozen=True)
class Real:
    """One running server: the spec of its AuthorizationServer, and what is in the registration Secret."""

    kind: str
    process: Process
    spec: dict[str, Any]
    credential: dict[str, str] = field(default_factory=dict, repr=False)
    client_ids: Callable[[], list[str]] | None = None  # None: it cannot list its clients


@pytest.fixture(scope="session", params=["hydra", "keycloak", "oidc-provider"])
def real(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Real]:
    module = {"hydra": hydra_process, "keycloak": keycloak_process, "oidc-provider": oidc_provider_process}
    if (reason := module[request.param].missing()) is not None:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp(request.param)
    match request.param:
        case "hydra":
            with HydraProcess(folder) as hydra:
                spec = {
                    "issuer": hydra.issuer,
                    "allowInsecureHTTP": True,
                    "registration": {"hydra": {"adminUrl": hydra.admin_url}},
                    "endpoints": {"introspection": hydra.introspection_url},
                    "introspection": {"clientAuthentication": "none"},
                }
                yield Real("hydra", hydra, spec, client_ids=hydra.client_ids)
        case "keycloak":
            with KeycloakProcess(folder) as keycloak:
                client_id, secret = keycloak.service_account("operator")
                spec = {
                    "issuer": keycloak.issuer,
                    "allowInsecureHTTP": True,
                    "registration": {
                        "keycloak": {"adminUrl": keycloak.admin_url, "realm": keycloak.realm},
                        "credentialsSecret": SECRET,
                    },
                }
                credential = {"client_id": client_id, "client_secret": secret}
                yield Real("keycloak", keycloak, spec, credential, keycloak.client_ids)
        case _:
            with OidcProviderProcess(folder) as provider:
                spec = {
                    "issuer": provider.issuer,
                    "allowInsecureHTTP": True,
                    "registration": {"dynamicClientRegistration": {}, "credentialsSecret": SECRET},
                }
                yield Real("oidc-provider", provider, spec, {"token": provider.initial_access_token})
