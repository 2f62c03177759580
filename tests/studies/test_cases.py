"""The studies list the cases that their drivers have."""

from __future__ import annotations

from residentkv.runtimes.dynamo import cases as dynamo
from residentkv.runtimes.dynamo.study import STUDY as DYNAMO
from residentkv.runtimes.kvcr import cases as kvcr
from residentkv.runtimes.kvcr.study import STUDY as KVCR


def test_every_case_of_a_driver_is_listed_in_its_order_and_no_other() -> None:
    """The core lists cases without the runtime; the driver has them; both are the same."""
    assert [c.name for c in DYNAMO.cases] == list(dynamo.CASES)
    assert [c.name for c in KVCR.cases] == list(kvcr.CASES)
