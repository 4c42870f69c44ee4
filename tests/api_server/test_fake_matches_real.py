"""The fake cluster of the fast tests against a real API server: the same conversation, the same answers."""

from __future__ import annotations

import os
import uuid

import pytest

from protectedservice_operator.cluster import Cluster
from protectedservice_operator.metrics import Metrics
from protectedservice_operator.resource import NAMESPACE

from ..support.fake_cluster import FakeCluster
from .conversation import all_of_it


@pytest.mark.cluster
@pytest.mark.skipif("PROTECTEDSERVICE_E2E_CLUSTER" not in os.environ, reason="run scripts/e2e_kind.sh")
async def test_the_fake_answers_as_the_real_api_server_does() -> None:
    real = await Cluster.connect(Metrics())
    namespace = f"conversation-{uuid.uuid4().hex[:8]}"
    try:
        expected = await all_of_it(real, namespace)
    finally:
        await real.delete(NAMESPACE, None, namespace)
        await real.close()

    assert await all_of_it(FakeCluster(), namespace) == expected
