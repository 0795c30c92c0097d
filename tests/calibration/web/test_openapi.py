"""Whatever the OpenAPI document of the page allows, and what not, is answered without an error of ours."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error

from kenpin.calibration.web.visitor import SESSION_COOKIE
from kenpin.station_folder import StationFolder
from tests.calibration.web.page_station import MakeVisit, add_parts, show_live

EXAMPLES = 12


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_no_request_makes_the_page_fail(visit: MakeVisit, folder: StationFolder) -> None:
    add_parts(folder, ["OK", "NG", "REVIEW"])
    show_live(folder)
    browser = visit()
    browser.log_in("abe")
    token = browser.token()
    host = {"Host": "localhost"}
    cookie = f"{SESSION_COOKIE}={browser.cookies[SESSION_COOKIE]}"
    headers = {**host, "Origin": "http://localhost", "Cookie": cookie}
    app: Any = browser.app
    schema = schemathesis.openapi.from_dict(app.openapi())
    schema.app = app
    operations = [found.ok() for found in schema.get_all_operations()]
    operations.sort(key=lambda operation: operation.path == "/logout")  # the last one: it ends the login
    assert len(operations) >= 12

    seen: dict[str, set[int]] = {}
    once = settings(
        max_examples=EXAMPLES, phases=[Phase.generate], database=None, suppress_health_check=list(HealthCheck)
    )
    for operation in operations:

        @once
        @given(case=operation.as_strategy(), ours=st.booleans())
        def ask(case: Any, *, ours: bool) -> None:
            if ours and case.method == "POST":
                sent = case.body if isinstance(case.body, dict) else {}
                case.body = {**sent, "token": token}
                case.media_type = "application/x-www-form-urlencoded"
            answer = case.call(headers=headers if ours else host)
            case.validate_response(answer, checks=[not_a_server_error])
            seen.setdefault(case.operation.label, set()).add(answer.status_code)

        ask()
    # Every operation was reached: the guard in front did not answer for it.
    for label, statuses in seen.items():
        assert statuses - {403, 421}, label
