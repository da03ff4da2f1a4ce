"""A pytest plugin of CI: a test that skips there for a reason that is not on the list below fails."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

# What CI does not have, as words of the reasons: a peer library in an environment of its own, and a GPU; and an image that is
# built where its inputs changed only.
EXPECTED = ["kronfluence", "CUDA", "MTSELECT_CONTAINER=1"]
if not (Path(__file__).parents[2] / "shared").is_dir():  # somebody runs it on a machine of their own
    EXPECTED.append("needs the real parallel data")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, Any, Any]:
    return _checked((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, Any, Any]:
    return _checked((yield))


def _checked(report: Any) -> Any:
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not any(word in reason for word in EXPECTED):
            report.outcome = "failed"
            report.longrepr = f"{reason}\nnot an expected skip in CI: install what it needs in .ci/run"
    return report
