"""What a rehearsal found, and certificates of others that certbot.timer renews as well."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from ansible_collections.wsgi.host.plugins.module_utils.apphost import times
from ansible_collections.wsgi.host.plugins.module_utils.apphost.certificates import (
    rehearsal,
    renewals,
)
from ansible_collections.wsgi.host.plugins.module_utils.apphost.times import UTC
from ansible_collections.wsgi.host.plugins.module_utils.certificates.run import Run

# They change the web server's configuration, or need its port.
KEPT_OUT = ("apache", "nginx", "standalone")
REHEARSE = "systemctl start certificates-rehearsal.service"


def warnings(run: Run) -> Iterator[str]:
    """What somebody has to mend, as a run of the playbook cannot."""
    wanted = {each.name for each in run.wanted}
    used = {each.source.lineage for each in run.wanted if each.source}
    told = set()
    for path in sorted((run.configuration / "renewal").glob("*.conf")):
        name = path.name[: -len(".conf")]
        if name in wanted | used:
            continue
        reason = unrenewable(run, path)
        if reason:
            told.add(name)
            yield (
                f"certbot.timer cannot renew certificate {name!r}, which is not in "
                f"certbot_certificates: {reason}. It will expire, and certbot.service fails until "
                "then. Mend it, or, if no web server reads it any more: certbot delete "
                f"--cert-name {name}"
            )
    at, failures = rehearsal.verdict(Path(run.params["state_directory"]))
    for name, failure in sorted(failures.items()):
        if failure["account"] or name in told:
            continue
        when = times.written(datetime.datetime.fromtimestamp(at, UTC))
        yield (
            f"The rehearsal of the renewal of certificate {name!r} failed at {when}: "
            f"{failure['reason']}. Once that is mended: {REHEARSE}"
        )


def unrenewable(run: Run, path: Path) -> str:
    """Why certbot could not renew a certificate, as far as the host can tell."""
    try:
        renewal = renewals.read(path)
    except OSError as error:
        return f"{path}: {error.strerror}"
    reason = renewals.damage(renewal) or renewals.obstacle(renewal, run.configuration)
    if reason:
        return reason
    known = plugins()
    missing = [name for name in renewal.plugins if known and name not in known]
    if missing:
        return f"certbot has no plugin {' and '.join(missing)}"
    kept_out = [name for name in renewal.plugins if name in KEPT_OUT]
    if kept_out:
        return f"the sandbox of certbot.service keeps plugin {' and '.join(kept_out)} from working"
    ours = run.params["challenge"]["directory"].rstrip("/")
    # The unit's sandbox, in which a renewal runs.
    closed = sorted({each for each in renewal.webroots.values() if each != ours})
    if renewal.settings["authenticator"] == "webroot" and closed:
        return f"certbot.service may not write its challenges to {', '.join(closed)}"
    return ""


def plugins() -> set[str]:
    """The plugins of the certbot whose Python runs this; empty if it has none."""
    # On Python 3.9 `entry_points` takes no group.
    points = (each for found in metadata.distributions() for each in found.entry_points)
    return {each.name for each in points if each.group == "certbot.plugins"}
