"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest
from hypothesis import settings

# A loaded machine is slow now and then; that is not what these tests are about. The same examples each time, so
# that only a change of the code can fail a run; `make fuzz` draws anew.
settings.register_profile("kenpin", deadline=None, derandomize=not os.environ.get("KENPIN_FUZZ"))
settings.load_profile("kenpin")

_STRICT = os.environ.get("KENPIN_STRICT") == "1"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With KENPIN_STRICT=1 a skipped test has failed, unless it is marked `gpu`."""
    report = yield
    expected = hasattr(report, "wasxfail") or item.get_closest_marker("gpu") is not None
    if _STRICT and report.skipped and not expected:
        report.outcome = "failed"
        report.longrepr = f"skipped in a strict run: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """With KENPIN_STRICT=1 a module that skips itself has failed."""
    report = yield
    if _STRICT and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"skipped in a strict run: {report.longrepr}"
    return report
