"""What people do with all operators of a workflow at once, on the overview."""

from __future__ import annotations

from urllib.parse import urlencode

from flask import redirect, request
from werkzeug.wrappers import Response as AnyResponse

from pgsig.api.operators import DEFAULT, effects_of, order, would
from pgsig.api.pauses import put
from pgsig.api.problems import Refusal, problems_of, status_of
from pgsig.errors import NotFound, PgsigError
from pgsig.pages.base import pages
from pgsig.pages.operators import AT_ONCE, SOURCE, order_of_form
from pgsig.pages.overview import page_of


@pages.post("/workflows/<workflow>/<any(pause, resume):order>")
def pause_workflow(workflow: str, order: str) -> AnyResponse:
    """Pause the rules of every operator of a workflow, or go on, then show the overview again."""
    namespace = request.form.get("namespace") or DEFAULT
    put(workflow, order, request.form.get("mode", "hold"), request.form.get("reason", ""), namespace, SOURCE)
    return redirect(f"/?{urlencode({'workflow': workflow})}", 303)


@pages.post("/workflows/<workflow>/act")
def act_on_workflow(workflow: str) -> AnyResponse:
    """Order an action of every operator of a workflow, then show what came of it; or only say what would."""
    form, problems, body = order_of_form()
    namespace = form["namespace"] or DEFAULT
    try:
        if problems:
            raise Refusal(422, "the order is not understood", problems=problems)
        if request.form.get("dry_run"):
            return page_of(workflow, form=form, would=would(namespace, workflow, None, body))
        positions = order(namespace, workflow, None, body, source=SOURCE)
        effects_of(positions, AT_ONCE)
    except NotFound:
        raise
    except PgsigError as error:
        return page_of(workflow, status_of(error), form=form, problems=problems_of(error))
    return redirect(f"/actions?{urlencode({'workflow': workflow})}", 303)
