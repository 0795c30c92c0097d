"""What stands beside every figure of a document."""

from __future__ import annotations

from datetime import datetime, timezone

from kenpin.commit import git_commit
from kenpin.machine_state import processor


def stamp() -> str:
    """Processor, day and commit of what is measured here and now."""
    return f"{processor()}, {datetime.now(tz=timezone.utc):%Y-%m-%d}, commit {git_commit()}"
