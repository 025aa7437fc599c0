"""Definitions: what a workflow is made of, before any database knows it.

`reading` turns a file into plain JSON and remembers its lines; `spec`, `check` and `document` check it and
give it its canonical form; `conditions` and `workflow` are the Python front end to the same form. Nothing
here speaks to a database.
"""

from pgsig.definition.document import (
    Definition,
    OperatorDefinition,
    RuleDefinition,
    TriggerDefinition,
    load,
    parse,
)

__all__ = ["Definition", "OperatorDefinition", "RuleDefinition", "TriggerDefinition", "load", "parse"]
