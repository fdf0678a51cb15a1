"""What a call says: its result, its difference and its warnings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible_collections.wsgi.host.plugins.module_utils.apphost import times
from ansible_collections.wsgi.host.plugins.module_utils.certificates import strangers
from ansible_collections.wsgi.host.plugins.module_utils.certificates.certbot import (
    cron_files,
    other_renewers,
)
from ansible_collections.wsgi.host.plugins.module_utils.certificates.linking import link_target
from ansible_collections.wsgi.host.plugins.module_utils.certificates.model import (
    Certificate,
    Wanted,
    names,
)
from ansible_collections.wsgi.host.plugins.module_utils.certificates.run import Run


def warn(run: Run, unlisted: list[str]) -> None:
    """Warns of what somebody has to mend or remove by hand."""
    used = {link_target(wanted.link) for wanted in run.wanted}
    for name in unlisted:
        target = link_target(run.links / name)
        lineage = target.name if target and target.parent == run.configuration / "live" else ""
        remove = f"rm -rf {run.links / name} {run.kept / name}*"
        if lineage and target in used:
            state = f"{run.links / name} is left in place, another certificate has taken its place"
        elif lineage and (run.configuration / "renewal" / f"{lineage}.conf").exists():
            state = "It is still renewed and is left in place"
            remove = f"certbot delete --cert-name {lineage} && {remove}"
        else:
            state = "It was never issued and is left in place"
        run.module.warn(
            f"Certificate {name!r} is no longer in certbot_certificates. {state}; once no web "
            f"server reads it: {remove}"
        )
    for wanted in run.wanted:
        if wanted.problem:
            run.module.warn(
                f"certbot's certificate {wanted.name!r} is damaged ({wanted.problem}), and its "
                "renewal fails. Another one serves in its place: certbot delete --cert-name "
                f"{wanted.name}"
            )
    for warning in strangers.warnings(run):
        run.module.warn(warning)
    for path in other_renewers(cron_files()):
        run.module.warn(
            f"{path} runs certbot too. certbot.timer renews the certificates: remove the job, "
            "or each of them runs into the other."
        )


def result(run: Run, unlisted: list[str]) -> dict[str, Any]:
    """What the module returns."""
    after = [
        f"{wanted.name}: "
        + (
            f"{run.params['key_type']} for {names(wanted)}, new"
            if run.module.check_mode and run.params["obtain"] and wanted.reason
            else describe(wanted)
        )
        for wanted in run.wanted
    ]
    return {
        "changed": bool(run.done),
        "msg": "\n".join([*run.done, *(f"{k}: {v}" for k, v in run.failures.items())]),
        "actions": run.done,
        "certificates": {
            wanted.name: {
                "serves": wanted.serves,
                "reason": wanted.reason,
                **facts(wanted.certificate),
            }
            for wanted in run.wanted
        },
        "pending": [each.name for each in run.wanted if each.reason and not each.planned],
        "reload_pending": run.marker.exists(),
        "unlisted": unlisted,
        "diff": {
            "before": "".join(f"{line}\n" for line in run.before),
            "after": "".join(f"{line}\n" for line in after),
        },
    }


def facts(certificate: Certificate | None) -> dict[str, Any]:
    """What the result says of a certificate; nothing where it is not known."""
    if certificate is None:
        return {}
    return {
        "domains": sorted(certificate.domains),
        "issuer": certificate.issuer,
        "serial": certificate.serial,
        "not_after": times.written(certificate.not_after),
        "key_type": certificate.key_type,
    }


def describe_link(wanted: Wanted, placeholders: Path) -> str:
    """What the link led to before, for the diff."""
    target = link_target(wanted.link)
    if target is None:
        return "nothing"
    if target.parent == placeholders:
        return "placeholder"
    return describe(wanted) if wanted.certificate else str(target)


def describe(wanted: Wanted) -> str:
    """What the link leads to, in words."""
    certificate = wanted.certificate
    if certificate is None or wanted.serves == "placeholder":
        return wanted.serves
    return (
        f"{certificate.key_type} for {', '.join(sorted(certificate.domains))}, "
        f"serial {certificate.serial}"
    )
