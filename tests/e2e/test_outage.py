"""The authorization server is away, or refuses the operator: an outage is no answer about a token, and all heals."""

from __future__ import annotations

import secrets
import time

import pytest

from .conftest import MakeNamespace
from .product import SERVER_NAMESPACE, SYSTEM, Product

pytestmark = pytest.mark.cluster

BOUND = 5.0  # seconds: the default of spec.validation.maxRevocationDelay


def test_while_the_authorization_server_is_down_callers_get_503_and_then_all_heals(
    product: Product, make_namespace: MakeNamespace
) -> None:
    namespace = make_namespace()
    product.protect(namespace)
    product.ready(namespace)
    credentials = product.credentials(namespace)
    token, unused = product.token(credentials), product.token(credentials)
    url = product.url(namespace) + "/protected"
    assert product.caller.ask("GET", url, token=token).status == 200

    product.stop_server()
    down = time.monotonic()
    try:
        assert product.caller.ask("GET", url, token=unused).status == 503
        refused = product.caller.ask("GET", url, token=token, until=503, patience=BOUND + 3)
        assert refused.status == 503
        assert refused.seconds <= BOUND
        assert refused.header("retry-after")
        assert product.caller.ask("GET", url).status == 401  # nobody needs to be asked about that
        answers = {product.caller.ask("GET", url, token=token).status for _ in range(10)}
        assert answers == {503}
        seconds = product.until(
            lambda: product.server_condition("Reachable").get("status") == "False",
            60,
            "the AuthorizationServer says so",
        )
        print(f"the AuthorizationServer said so {time.monotonic() - down:.1f} s after it was gone ({seconds:.1f} s)")
        product.until(
            lambda: product.condition(namespace, type_="AuthorizationServerReady").get("status") == "False", 20, "told"
        )
    finally:
        product.start_server()
    product.until(lambda: product.server_condition("Ready").get("status") == "True", 70, "it is reachable again")
    product.ready(namespace)
    answer = product.caller.ask("GET", url, token=token, until=200, patience=40)
    assert answer.status == 200


def test_a_changed_initial_access_token_stops_only_new_services_until_the_secret_is_corrected(
    product: Product, make_namespace: MakeNamespace
) -> None:
    namespace = make_namespace()
    product.protect(namespace, "existing")
    product.ready(namespace, "existing")
    old, new = product.initial_access_token(), secrets.token_urlsafe(32)
    try:
        product.set_initial_access_token(SERVER_NAMESPACE, new)
        product.stop_server()
        product.start_server()
        product.until(lambda: product.server_condition("Reachable").get("status") == "True", 70, "reachable")
        product.protect(namespace, "late")

        def is_refused() -> bool:
            found = product.condition(namespace, "late", "ClientRegistered")
            return (found.get("status"), found.get("reason")) == ("False", "RegistrationRefused")

        product.until(is_refused, 60, "ClientRegistered=False, RegistrationRefused")
        product.until(lambda: product.server_condition("Ready").get("status") == "False", 30, "Ready=False")
        token = product.token(product.credentials(namespace, "existing"))
        url = product.url(namespace, "existing") + "/protected"
        assert product.caller.ask("GET", url, token=token, until=200, patience=30).status == 200

        product.set_initial_access_token(SYSTEM, new)
        seconds = product.until(
            lambda: product.condition(namespace, "late").get("status") == "True", 70, "late is Ready"
        )
        print(f"a corrected Secret healed the new service after {seconds:.1f} s")
        product.until(lambda: product.server_condition("Ready").get("status") == "True", 70 - seconds, "Ready=True")
    finally:
        product.set_initial_access_token(SERVER_NAMESPACE, old)
        product.set_initial_access_token(SYSTEM, old)
        product.stop_server()
        product.start_server()
        product.until(lambda: product.server_condition("Ready").get("status") == "True", 90, "as it was")
