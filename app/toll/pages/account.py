"""Log-in and log-out."""

from __future__ import annotations

import logging
import math
from datetime import timedelta

from flask import (
    Blueprint,
    current_app,
    flash,
    make_response,
    redirect,
    render_template,
    request,
    url_for,
)
from flask_login import current_user
from werkzeug.wrappers import Response

from toll import devices, metrics, security
from toll.database import db
from toll.forms import LoginForm
from toll.services import accounts
from toll.services.throttle import BUSY, Attempt, Throttle

blueprint = Blueprint("account", __name__)
logger = logging.getLogger(__name__)


@blueprint.get("/login")
@security.public
def login() -> Response:
    """Show the form, or go on if somebody is logged in."""
    target = security.local_target(request.args.get("next"))
    if current_user.is_authenticated:
        return redirect(target or url_for("operator.dashboard"), 303)
    return make_response(render_template("login.html", form=LoginForm(next=target)))


@blueprint.post("/login", endpoint="send_login")
@security.public
def send_login() -> Response:
    """Start a session, if name and password are right and there were not too many tries."""
    form = LoginForm()
    if not form.validate():
        return make_response(render_template("login.html", form=form), 422)
    # As people type passwords into this field, only a name that is somebody's is logged.
    name = form.name.data.strip()
    account = accounts.find_user(db.session, name)
    shown = f"the account {account.name}" if account else "an unknown name"
    device = devices.current()
    known = device.id if account and device.knows(account) else None
    made = Attempt(name, request.remote_addr, known)
    throttle: Throttle = current_app.extensions["toll.throttle"]
    verdict = throttle.attempt(made)
    if verdict.wait is not None:
        logger.warning("log-in refused for %s: too many attempts", shown)
        minutes = math.ceil(verdict.wait.total_seconds() / 60)
        advice = f"Too many attempts. Try again in {minutes} minute{'' if minutes == 1 else 's'}."
        return come_again(form, verdict.wait, advice)
    # What the reads above began would otherwise last as long as the hash.
    db.session.rollback()
    with throttle.turn(verdict.known) as mine:
        user = accounts.verify_password(db.session, name, form.password.data) if mine else None
    if not mine:
        throttle.postponed(made, verdict.known)
        logger.warning("log-in postponed for %s: others are logging in", shown)
        advice = "Many people are logging in right now. Try again in a few seconds."
        return come_again(form, BUSY, advice)
    if user is None:
        metrics.log_in("refused")
        disabled = account is not None and not account.active
        reason = "it is disabled" if disabled else "wrong name or password"
        logger.warning("log-in refused for %s: %s", shown, reason)
        # Which of the two it was is nobody's business.
        form.form_errors.append("Name or password is wrong. Check both, and try again.")
        return make_response(render_template("login.html", form=form), 422)
    throttle.succeeded(made, verdict.known)
    security.log_in(user)
    metrics.log_in("ok")
    logger.info("%s logged in", user.name)
    target = security.local_target(form.next.data)
    response = redirect(target or url_for("operator.dashboard"), 303)
    devices.remember(response, user.id)
    return response


def come_again(form: LoginForm, wait: timedelta, advice: str) -> Response:
    """Refuse an attempt whose password was not looked at."""
    metrics.log_in("limited")
    form.form_errors.append(advice)
    response = make_response(render_template("login.html", form=form), 429)
    response.headers["Retry-After"] = str(math.ceil(wait.total_seconds()))
    return response


@blueprint.get("/login/device/<token>")
@security.public
def make_known(token: str) -> Response:
    """Make this browser a known device of a user, by a link that an operator made on the host."""
    user_id = devices.invited(token)
    response = redirect(url_for("account.login"), 303)
    if user_id is None:
        flash("This link is not valid any more. Ask for another one.")
    else:
        flash("Log in now: nobody else's attempts count against this browser.")
        devices.remember(response, user_id)
    return response


@blueprint.post("/logout")
@security.requires("viewer")
def logout() -> Response:
    """End this browser's session."""
    security.log_out()
    flash("You are logged out.")
    return redirect(url_for("account.login"), 303)
