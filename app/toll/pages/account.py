"""Log-in and log-out."""

from __future__ import annotations

import logging
import math

from flask import Blueprint, flash, make_response, redirect, render_template, request, url_for
from flask_login import current_user
from werkzeug.wrappers import Response

from toll import metrics, security
from toll.database import db
from toll.forms import LoginForm
from toll.services import accounts, throttle

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
    name, address = form.name.data.strip(), request.remote_addr
    wait = throttle.attempt(db.session, name, address)
    if wait is not None:
        metrics.log_in("limited")
        logger.warning("log-in refused: too many attempts")
        minutes = math.ceil(wait.total_seconds() / 60)
        form.form_errors.append(
            f"Too many attempts. Try again in {minutes} minute{'' if minutes == 1 else 's'}."
        )
        response = make_response(render_template("login.html", form=form), 429)
        response.headers["Retry-After"] = str(math.ceil(wait.total_seconds()))
        return response
    user = accounts.verify_password(db.session, name, form.password.data)
    if user is None:
        metrics.log_in("refused")
        logger.warning("log-in refused: wrong name or password")
        # Which of the two it was is nobody's business.
        form.form_errors.append("Name or password is wrong. Check both, and try again.")
        return make_response(render_template("login.html", form=form), 422)
    throttle.succeeded(db.session, name, address)
    security.log_in(user)
    metrics.log_in("ok")
    logger.info("%s logged in", user.name)
    target = security.local_target(form.next.data)
    return redirect(target or url_for("operator.dashboard"), 303)


@blueprint.post("/logout")
@security.requires("viewer")
def logout() -> Response:
    """End this browser's session."""
    security.log_out()
    flash("You are logged out.")
    return redirect(url_for("account.login"), 303)
