"""Requests made up from the server's own description: whatever they are, none is an error of the server."""

import warnings

import pytest

schemathesis = pytest.importorskip("schemathesis", reason="no schemathesis here: `pip install schemathesis`")

from hypothesis import HealthCheck, given, settings  # noqa: E402

from genmatch.serve import Limits, create_app  # noqa: E402


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_no_request_is_an_error_of_the_server():
    app = create_app(limits=Limits(length=80, steps=4, particles=8), hosts=["*"])
    asked = []
    for found in schemathesis.openapi.from_asgi("/openapi.json", app).get_all_operations():
        _ask(found.ok(), asked)
    assert len(set(asked)) >= 9


def _ask(operation, asked):
    @given(case=operation.as_strategy())
    @settings(max_examples=10, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    def ask(case):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            answer = case.call()
        asked.append(operation.label)
        assert answer.status_code < 500, (operation.label, answer.text)

    ask()
