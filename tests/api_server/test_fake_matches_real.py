"""The fake cluster of the fast tests against a real API server: the same conversation, the same answers.

`tests/data/kubernetes_conversation.txt` is what Kubernetes 1.34 said. To record it anew: run the cluster test with
PROTECTEDSERVICE_UPDATE_TEST_DATA=1 and review the difference.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import pytest

from protectedservice_operator.cluster import Cluster
from protectedservice_operator.metrics import Metrics
from protectedservice_operator.resource import NAMESPACE

from ..support.fake_cluster import FakeCluster
from .conversation import all_of_it

RECORD = Path(__file__).parent.parent / "data" / "kubernetes_conversation.txt"


async def test_the_fake_answers_as_the_record_of_a_real_api_server_does() -> None:
    assert await all_of_it(FakeCluster(), "tenant") == RECORD.read_text().splitlines()


@pytest.mark.cluster
@pytest.mark.skipif("PROTECTEDSERVICE_E2E_CLUSTER" not in os.environ, reason="run scripts/e2e_kind.sh")
async def test_the_real_api_server_still_answers_as_recorded() -> None:
    real = await Cluster.connect(Metrics())
    namespace = f"conversation-{uuid.uuid4().hex[:8]}"
    try:
        said = await all_of_it(real, namespace)
    finally:
        await real.delete(NAMESPACE, None, namespace)
        await real.close()
    if "PROTECTEDSERVICE_UPDATE_TEST_DATA" in os.environ:
        RECORD.write_text("\n".join(said) + "\n")

    assert said == RECORD.read_text().splitlines()
