"""A client of the API for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask.testing import FlaskClient

from tests.webapp import serving


@pytest.fixture
def client(database: str) -> Iterator[FlaskClient]:
    with serving(database) as client:
        yield client
