"""One private Slurm cluster for all tests here."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

spec = importlib.util.spec_from_file_location("slurm_cluster", Path(__file__).parent / "cluster.py")
assert spec is not None
assert spec.loader is not None
cluster_module = importlib.util.module_from_spec(spec)
sys.modules["slurm_cluster"] = cluster_module
spec.loader.exec_module(cluster_module)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator["cluster_module.Cluster"]:
    """Two nodes of two processors; skipped, with the reason, where there can be none."""
    if reason := cluster_module.missing():
        pytest.skip(reason)
    found = cluster_module.Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        found.start()
        yield found
    finally:
        found.stop()
