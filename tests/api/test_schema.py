"""The JSON Schema of definitions, for editors that ask for it by its address."""

from __future__ import annotations

from flask.testing import FlaskClient

from pgsig.definition.schema import build


def test_the_schema_is_served(client: FlaskClient) -> None:
    answer = client.get("/schema/workflow.json")
    assert (answer.status_code, answer.mimetype) == (200, "application/schema+json")
    assert answer.get_json(force=True) == build()
