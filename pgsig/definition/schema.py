"""The JSON Schema (draft 2020-12) of a definition: for editors, and for programs that write definitions.

It says which keys there are, of what type, and which go together. What depends on more than one place (references, contradictions,
loops) or on Postgres (paths, functions) only `pgsig validate` and `pgsig apply` say. `schema.json` beside this file is what `build`
returns; `python -m pgsig.definition.schema` writes it anew.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pgsig.condition.cron import FIELDS as CRON_FIELDS
from pgsig.condition.parse import BESIDE, FORMS, MOST_PARTS, OF_A_TICK, TICKS
from pgsig.condition.schedule import MOST_PARTS as MOST_TIMES
from pgsig.definition.accepts import NAME as PARAMETER
from pgsig.definition.accepts import TYPES
from pgsig.definition.document import ACTIONS, MOST_OPERATORS, MOST_RULES
from pgsig.definition.options import THEN
from pgsig.definition.probes import LIVE, READY
from pgsig.definition.programs import TARGET, VARIABLE
from pgsig.definition.spec import COMMON, FIELDS
from pgsig.definition.values import NAME
from pgsig.model import Kind

FILE = Path(__file__).with_name("schema.json")
Schema = dict[str, Any]

SEGMENT = r"(?:[a-z0-9_:-]+|\*)"
LENGTH = r"(?: *[0-9]+(?:\.[0-9]+)? *(?:ms|[smhdw]))+ *"


def text() -> str:
    """The schema as it is published."""
    return FILE.read_text(encoding="utf-8")


def build() -> Schema:
    """The schema, made of what the parser knows."""
    operator: Schema = {
        "type": "object",
        "properties": {
            **{kind.value: _ref(kind.value) for kind in Kind},
            **{action: _ref("rules") for action in ACTIONS},
            "description": _text(10_000, about="what it is for"),
            "order": {"type": "array", "items": {"enum": list(ACTIONS)}, "uniqueItems": True},
        },
        "additionalProperties": False,
        "oneOf": [{"required": [kind.value]} for kind in Kind],
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:pgsig:workflow",
        "title": "pgsig workflow",
        "type": "object",
        "properties": {
            "workflow": _ref("name"),
            "namespace": _ref("name"),
            "description": _text(10_000, about="what it is for"),
            "operators": {
                "type": "object",
                "minProperties": 1,
                "maxProperties": MOST_OPERATORS,
                "propertyNames": _ref("name"),
                "additionalProperties": _ref("operator"),
            },
        },
        "required": ["workflow", "operators"],
        "additionalProperties": False,
        "$defs": {
            "name": {"type": "string", "pattern": f"^{NAME.pattern}$"},
            "operator": operator,
            **{kind.value: _spec(kind) for kind in Kind},
            "rules": {
                "anyOf": [
                    _ref("rule"),
                    {"type": "array", "items": _ref("rule"), "minItems": 1, "maxItems": MOST_RULES},
                ]
            },
            "rule": {
                "description": "a condition, and beside its form the options of the rule",
                "$ref": "#/$defs/form",
                "properties": _options(),
                "dependentRequired": {"then": ["max"]},
                "unevaluatedProperties": False,
            },
            "condition": {"$ref": "#/$defs/form", "unevaluatedProperties": False},
            "form": {"type": "object", "oneOf": [_ref(f"form-{form}") for form in FORMS]},
            **{f"form-{form}": _form(form) for form in FORMS},
            "part": {
                "description": "a trigger that is a part of others",
                "type": "object",
                "oneOf": [_ref(f"form-{form}") for form in TICKS],
                "properties": dict.fromkeys(sorted(OF_A_TICK - {"tz"}), False),
                "unevaluatedProperties": False,
            },
            "key": {
                "description": "segments joined by dots; * stands for one, ** at the end for any number",
                "type": "string",
                "maxLength": 200,
                "pattern": rf"^(?=.*[a-z0-9_:-]){SEGMENT}(?:\.{SEGMENT})*(?:\.\*\*)?$",
            },
            "duration": {
                "description": "like 500ms, 30s, 10m, 2h, 1d or 1h30m, or a number of seconds",
                "anyOf": [{"type": "string", "pattern": f"^{LENGTH}$"}, {"type": "number", "exclusiveMinimum": 0}],
            },
        },
    }


def _form(form: str) -> Schema:
    several: Schema = {"type": "array", "items": _ref("condition"), "minItems": 1, "maxItems": MOST_PARTS}
    own: dict[str, Schema] = {
        "signal": _ref("key"),
        "all": several,
        "any": several,
        "seq": several,
        "at_least": {"type": "integer", "minimum": 1, "maximum": MOST_PARTS},
        "not": _ref("condition"),
        "absent": _ref("key"),
        "cron": {
            "description": "five fields, six with seconds first, @daily, or APScheduler's fields by name",
            "anyOf": [
                {"type": "string"},
                {
                    "type": "object",
                    "minProperties": 1,
                    "propertyNames": {"enum": list(CRON_FIELDS)},
                    "additionalProperties": {"type": ["string", "integer"]},
                },
            ],
        },
        "every": _ref("duration"),
        "calendar": {
            "description": "the same time of day every so many days, weeks, months or years, like 2 weeks",
            "type": "string",
            "pattern": r"^ *[0-9]{1,4} *(?:day|week|month|year)s? *$",
        },
        "at": {"type": "string", "description": "a date and time"},
        "times": {
            "description": "any: when one of several is due; all: when all are due at once",
            "enum": ["any", "all"],
        },
        "trigger": {
            "description": "module:name of an APScheduler trigger, imported by the clock",
            "type": "string",
            "pattern": f"^{TARGET.pattern}$",
        },
    }
    beside: dict[str, Schema] = {
        "eq": {"description": "the value that it has"},
        "where": _text(about="a SQL/JSON path predicate on the value"),
        "source": _text(),
        "subject": _text(),
        "latest": {"type": "boolean"},
        "changed": {"type": "boolean"},
        "sticky": {"type": "boolean"},
        "count": {"type": "integer", "minimum": 1, "maximum": 10_000},
        "distinct": _text(about="a SQL/JSON path"),
        "sum": {
            "type": "object",
            "properties": {"of": _text(about="a SQL/JSON path"), "reaches": {"type": "number", "exclusiveMinimum": 0}},
            "required": ["of", "reaches"],
            "additionalProperties": False,
        },
        "met_by": {"type": "string", "pattern": r"^[a-z_][a-z0-9_]*\.[a-z_][a-z0-9_]*$"},
        "of": several,
        "after": _ref("key"),
        "anchor": _text(about="a date and time from which it is counted"),
        "time": {
            "description": "the time of day, like 02:30",
            "type": "string",
            "pattern": r"^[0-9]{1,2}:[0-9]{2}(?::[0-9]{2})?$",
        },
        "begin": _text(about="a date, or a date and time; no tick is due before"),
        "end": _text(about="a date, or a date and time; no tick is due after"),
        "missed": {
            "description": "which of the times that nobody fired come late: none, the latest (default), or all, the latest n of them",
            "type": "string",
            "pattern": r"^(?:none|latest|all|all\( *[0-9]{1,6} *\))$",
        },
        "params": {"description": "parameters of the run that it starts", "type": "object"},
        "tz": _text(about="a time zone like Europe/Berlin"),
        "label": {"type": "string", "minLength": 1, "maxLength": 100},
    }
    lengths = ("jitter", "within", "debounce", "max_wait", "window", "lateness", "for")
    beside |= {name: _ref("duration") for name in lengths}
    if form == "times":
        beside["of"] = {"type": "array", "items": _ref("part"), "minItems": 2, "maxItems": MOST_TIMES}
    known = sorted(BESIDE[form])
    needs = {key: [needed] for key, needed in NEEDED.items() if key in known and needed in known}
    required = {"at_least": ["at_least", "of"], "times": ["times", "of"], "absent": ["absent", "for"]}.get(form, [form])
    schema: Schema = {"properties": {form: own[form], **{key: beside[key] for key in known}}, "required": required}
    return {**schema, "dependentRequired": needs} if needs else schema


NEEDED = {"max_wait": "debounce", "tz": "window", "lateness": "window", "distinct": "count"}


def _options() -> dict[str, Schema]:
    return {
        "by": {
            "description": "what an instance of the rule is: subject (default), none, or a SQL/JSON path",
            "type": "string",
            "pattern": r"^(?:subject$|none$|(?:strict |lax )?\$)",
        },
        "max": {
            "description": "so many firings in so long are carried out, like 3/1h",
            "type": "string",
            "pattern": f"^[0-9]+/{LENGTH}$",
        },
        "then": {"description": "what is done above max", "enum": [*THEN, *(word.lower() for word in THEN)]},
        "shadow": {"description": "true: it decides, and nothing follows", "type": "boolean"},
    }


def _spec(kind: Kind) -> Schema:
    duration = _ref("duration")
    variables: Schema = {"type": "string", "pattern": f"^{VARIABLE.pattern}$"}
    fields: dict[str, Schema] = {
        "command": {"type": "array", "items": {"type": "string"}, "minItems": 1},
        "python": {"type": "string", "pattern": f"^{TARGET.pattern}$"},
        "env": {"type": "object", "propertyNames": variables, "additionalProperties": {"type": "string"}},
        "pass_env": {"type": "array", "items": variables},
        "cwd": _text(4096, least=1),
        "grace": duration,
        "pool": _ref("name"),
        "priority": {"type": "integer", "minimum": -100, "maximum": 100},
        "params": {"type": "object"},
        "accepts": {
            "description": "which parameters it takes; without it, any",
            "type": "object",
            "maxProperties": 100,
            "propertyNames": {"pattern": f"^{PARAMETER.pattern}$"},
            "additionalProperties": {
                "type": "object",
                "properties": {
                    "type": {"enum": list(TYPES)},
                    "one_of": {"type": "array", "minItems": 1},
                    "least": {"type": "number"},
                    "most": {"type": "number"},
                    "required": {"type": "boolean"},
                },
                "additionalProperties": False,
            },
        },
        "params_from": {
            "description": "parameters from the signals behind a run: a name, and a SQL/JSON path into their values",
            "type": "object",
            "maxProperties": 100,
            "additionalProperties": {"type": "string", "pattern": r"^(?:strict |lax )?\$"},
        },
        "labels": {"description": "what a runner must have", "type": "array", "items": _ref("name"), "maxItems": 20},
        "concurrency": {
            "description": "of all runs with this key, whoever they belong to, at most max are alive at once",
            "type": "object",
            "properties": {
                "key": _text(200, least=1, about="a text; {subject} and {params.NAME} stand for the run's own"),
                "max": {"type": "integer", "minimum": 1, "maximum": 100_000},
            },
            "required": ["key", "max"],
            "additionalProperties": False,
        },
        "reload_by": {"enum": ["api", "HUP", "USR1", "USR2"]},
        "reload_timeout": duration,
        "live": {
            "description": "when a job is not alive any more: no sign of life for so long, or probes that fail in a row",
            "oneOf": [_probe(form, LIVE) for form in LIVE],
        },
        "autostart": {"type": "boolean"},
        "warm": {"description": "false: each run gets an interpreter of its own", "type": "boolean"},
        "timeout": duration,
        "retries": {"type": "integer", "minimum": 0, "maximum": 1000},
        "retry_delay": duration,
        "on_busy": {"type": "string", "pattern": r"^(?:queue|skip|merge|replace|parallel\(\s*[0-9]{1,4}\s*\))$"},
        "queue_limit": {"type": "integer", "minimum": 1, "maximum": 100_000},
        "restart": {"enum": ["always", "on_failure", "never"]},
        "replicas": {
            "description": "how many run beside each other: more of them from the next START on, fewer from the next RESTART on",
            "type": "integer",
            "minimum": 1,
            "maximum": 100,
        },
        "handover": {"enum": ["stop_first", "start_first"]},
        "ready": {
            "description": "when it serves: at its start, when it says so, or when a probe is answered",
            "oneOf": [{"enum": ["start", "api"]}, *(_probe(form, READY) for form in READY)],
        },
        "ready_timeout": duration,
        "on_lease_loss": {"enum": ["stop", "keep"]},
    }
    return {
        "description": "ends by itself" if kind is Kind.BATCH else "runs until it is stopped",
        "type": "object",
        "properties": {name: fields[name] for name in sorted({*COMMON, *FIELDS[kind]})},
        "additionalProperties": False,
        "oneOf": [{"required": ["command"]}, {"required": ["python"]}],
        "dependentRequired": {"warm": ["python"]},
    }


def _probe(form: str, forms: dict[str, Any]) -> Schema:
    known: dict[str, Schema] = {
        "heartbeat": _ref("duration"),
        "http": {"type": "string", "pattern": "^http://", "description": "{port} in it is the job's PGSIG_PORT"},
        "command": {"type": "array", "items": {"type": "string"}, "minItems": 1},
        "every": _ref("duration"),
        "timeout": _ref("duration"),
        "failures": {"type": "integer", "minimum": 1, "maximum": 100},
    }
    return {
        "type": "object",
        "properties": {name: known[name] for name in forms[form]},
        "required": [form],
        "additionalProperties": False,
    }


def _ref(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def _text(most: int = 0, *, least: int = 0, about: str = "") -> Schema:
    schema: Schema = {"type": "string"}
    schema |= {"minLength": least} if least else {}
    schema |= {"maxLength": most} if most else {}
    return {"description": about, **schema} if about else schema


def written() -> str:
    """What `schema.json` has to hold."""
    return json.dumps(build(), indent=2) + "\n"


if __name__ == "__main__":
    FILE.write_text(written(), encoding="utf-8")
