"""A small search."""

import pytest
from search_bench import Bench, by_formula

from tocsin.search.plan import Plan


@pytest.fixture
def plan() -> Plan:
    return Plan(
        swept={"++model.d": ["1", "2", "3"], "seed": ["7", "8"]},
        fixed=["model=pca"],
        quick=["data.n=10"],
        full=["data.n=100"],
        promote=2,
        per_value=1,
    )


@pytest.fixture
def bench() -> Bench:
    return Bench(by_formula)
