"""Workflows in Python. Declaring one does nothing but note it down: `pgsig apply module:workflow` stores it.

    wf = Workflow("recommender")

    @wf.batch(start=signal("model.trained").where("$.auc > 0.5"), timeout="10m")
    def evaluate(run): ...

    wf.streaming("serve", command=["python", "serve.py"], restart=evaluate.succeeded())

A decorated function becomes `python: module:function` and stays callable. In a file that is run as a
program, where Python calls the module `__main__`, the module is the file's name (or what `python -m` was
given).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import update_wrapper
from pathlib import Path
from typing import Any, Generic, Literal, ParamSpec, Protocol, TypedDict, TypeVar, Unpack, overload

from pgsig.definition.conditions import Condition, Length, condition_of, plain
from pgsig.definition.document import ACTIONS, Definition, parse
from pgsig.errors import PgsigError
from pgsig.model import Json, Kind


class Ticking(Protocol):
    """An APScheduler trigger object."""

    def get_next_fire_time(self, previous_fire_time: Any, now: Any) -> Any: ...


P = ParamSpec("P")
R = TypeVar("R")
# A condition, several, or an APScheduler trigger object, which stands for the condition that it ticks.
When = Condition | Ticking | Sequence[Condition | Ticking] | None


class Concurrency(TypedDict):
    """A limit on how many runs are alive at once.

    key: what they have in common; in it {subject} and {params.NAME} stand for the run's own. max: how many.
    """

    key: str
    max: int


class Asked(TypedDict, total=False):
    """How often a job is asked, and how long an answer may take."""

    every: Length
    timeout: Length


class ByHttp(Asked):
    """Asked by HTTP: a status from 200 to 299 is good. In the URL {port} is the job's own PGSIG_PORT."""

    http: str


class ByCommand(Asked):
    """Asked by a command in the environment of the job: exit code 0 is good."""

    command: Sequence[str]


class LiveByHttp(ByHttp, total=False):
    """failures: so many in a row, 3 by default, and it counts as dead."""

    failures: int


class LiveByCommand(ByCommand, total=False):
    """failures: so many in a row, 3 by default, and it counts as dead."""

    failures: int


class ByHeartbeat(TypedDict):
    """The job calls `run.heartbeat()` at least so often, or says anything else to its runner."""

    heartbeat: Length


class Parameter(TypedDict, total=False):
    """What a parameter may be. type: text, integer, number, flag, list or object. least, most: bounds of a number."""

    type: Literal["text", "integer", "number", "flag", "list", "object"]
    one_of: Sequence[Json]
    least: float
    most: float
    required: bool


class Common(TypedDict, total=False):
    """What every operator may say; see the fields of the same names in a definition."""

    start: When
    stop: When
    restart: When
    reload: When
    order: Sequence[Literal["start", "stop", "restart", "reload"]]
    description: str
    env: dict[str, str]
    pass_env: Sequence[str]
    cwd: str
    grace: Length
    pool: str
    priority: int
    params: dict[str, Json]
    accepts: dict[str, Parameter]
    params_from: dict[str, str]
    labels: Sequence[str]
    concurrency: Concurrency
    reload_by: Literal["api", "HUP", "USR1", "USR2"]
    reload_timeout: Length
    live: ByHeartbeat | LiveByHttp | LiveByCommand
    autostart: bool
    warm: bool


class Batch(Common, total=False):
    """What a batch operator may say."""

    timeout: Length
    retries: int
    retry_delay: Length
    on_busy: str
    queue_limit: int


class Streaming(Common, total=False):
    """What a streaming operator may say.

    `restart` is when to restart it; what happens when it ends by itself, a definition's `streaming:
    {restart: …}`, is `restart_policy` here. `replicas` that were raised begin with the next START or RESTART,
    those that were lowered end with the next RESTART (or STOP).
    """

    restart_policy: Literal["always", "on_failure", "never"]
    replicas: int
    handover: Literal["stop_first", "start_first"]
    ready: Literal["start", "api"] | ByHttp | ByCommand
    ready_timeout: Length
    on_lease_loss: Literal["stop", "keep"]


class Declared(Generic[P, R]):
    """An operator of a workflow: call it as the function it was made of, or use its states as conditions."""

    def __init__(self, workflow: str, name: str, function: Callable[P, R] | None = None) -> None:
        self.path = f"{workflow}.{name}"
        self.operator = name
        self._function = function
        if function is not None:
            update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function. Raises TypeError for an operator that is a command."""
        if self._function is None:
            raise TypeError(f"{self.path} is a command, not a function")
        return self._function(*args, **kwargs)

    def succeeded(self) -> Condition:
        """A run of it ended well."""
        return self._state("succeeded")

    def failed(self) -> Condition:
        """A run of it failed for good."""
        return self._state("failed")

    def stopped(self) -> Condition:
        """A run of it was stopped."""
        return self._state("stopped")

    def running(self) -> Condition:
        """A run of it began to run."""
        return self._state("running")

    def ready(self) -> Condition:
        """A run of it said that it serves."""
        return self._state("ready")

    def lost(self) -> Condition:
        """A run of it was lost with its runner."""
        return self._state("lost")

    def _state(self, state: str) -> Condition:
        return Condition({"signal": f"run.{self.path}.{state}"})


class Workflow:
    """Operators that are applied together. Nothing is checked before `definition()` or `as_document()`.

    namespace: defaults to "default".
    """

    def __init__(self, name: str, *, namespace: str = "default", description: str = "") -> None:
        self.name = name
        self.namespace = namespace
        self.description = description
        self._operators: dict[str, dict[str, Any]] = {}

    @overload
    def batch(self, name: Callable[P, R], /) -> Declared[P, R]: ...
    @overload
    def batch(
        self, name: str, /, *, command: Sequence[str] = ..., python: str = ..., **options: Unpack[Batch]
    ) -> Declared[..., Any]: ...
    @overload
    def batch(self, /, **options: Unpack[Batch]) -> Callable[[Callable[P, R]], Declared[P, R]]: ...
    def batch(self, name: Any = None, /, **options: Any) -> Any:
        """Declare an operator that ends by itself.

        `@wf.batch` or `@wf.batch(…)` on a function, which gives it its name; or `wf.batch("name",
        command=[…], …)`, also with `python="module:function"`. Raises PgsigError for a name that is taken,
        and for a function that a runner could not import.
        """
        return self._declare(Kind.BATCH, name, options)

    @overload
    def streaming(self, name: Callable[P, R], /) -> Declared[P, R]: ...
    @overload
    def streaming(
        self, name: str, /, *, command: Sequence[str] = ..., python: str = ..., **options: Unpack[Streaming]
    ) -> Declared[..., Any]: ...
    @overload
    def streaming(self, /, **options: Unpack[Streaming]) -> Callable[[Callable[P, R]], Declared[P, R]]: ...
    def streaming(self, name: Any = None, /, **options: Any) -> Any:
        """Declare an operator that runs until it is stopped; otherwise like `batch`."""
        return self._declare(Kind.STREAMING, name, options)

    def definition(self) -> Definition:
        """The checked definition. Raises InvalidInput with everything that is wrong."""
        document: dict[str, Any] = {"workflow": self.name, "namespace": self.namespace}
        return parse({**document, "description": self.description, "operators": self._operators})

    def as_document(self) -> dict[str, Any]:
        """The canonical JSON: what the same workflow in YAML has. Raises InvalidInput."""
        return self.definition().document

    def when(self, operator: str, rules: Mapping[str, Sequence[Condition]]) -> None:
        """Say anew when an operator that is declared already starts, stops, restarts or reloads.

        rules: conditions by action, in order of declaration. They replace all that it said before, its `order` too. This is for
        conditions that name operators declared later. Raises KeyError for an operator that is not declared.
        """
        body = self._operators[operator]
        for key in (*ACTIONS, "order"):
            body.pop(key, None)
        body |= {action: _conditions(conditions) for action, conditions in rules.items() if conditions}

    def _declare(self, kind: Kind, name: Any, options: dict[str, Any]) -> Any:
        def declare(function: Callable[..., Any]) -> Declared[..., Any]:
            self._add(kind, function.__name__, {**options, "python": target(function)})
            return Declared(self.name, function.__name__, function)

        if name is None:
            return declare
        if callable(name):
            return declare(name)
        self._add(kind, name, options)
        return Declared(self.name, name)

    def _add(self, kind: Kind, name: str, options: dict[str, Any]) -> None:
        if name in self._operators:
            raise PgsigError(
                f'the workflow has an operator "{name}" already',
                code="PS530",
                where=self.name,
                fix="names are unique in a workflow",
            )
        rules = {action: _conditions(options.pop(action)) for action in ACTIONS if options.get(action) is not None}
        beside: dict[str, Any] = {key: plain(options.pop(key)) for key in ("description", "order") if key in options}
        if "restart_policy" in options:
            options["restart"] = options.pop("restart_policy")
        spec = {key: plain(value) for key, value in options.items() if value is not None}
        self._operators[name] = {kind.value: spec, **rules, **beside}


def target(function: Callable[..., Any]) -> str:
    """`module:function` as a runner can import it. Raises PgsigError where it could not."""
    name = getattr(function, "__qualname__", "")
    module = function.__module__
    if module == "__main__":
        main = sys.modules["__main__"]
        spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
        module = spec.name if spec is not None else Path(file).stem if file else ""
    if not module or "<" in name or not name:
        raise PgsigError(
            f"{name or function!r} cannot be imported from anywhere",
            code="PS531",
            where=module,
            fix="define it at the top of a module, in a file",
        )
    return f"{module}:{name}"


def _conditions(given: Any) -> Json:
    """One condition or several as JSON; what is none is left for the check to refuse."""
    if isinstance(given, list | tuple):
        return [_conditions(part) for part in given]
    given = condition_of(given)
    return given.tree if isinstance(given, Condition) else given
