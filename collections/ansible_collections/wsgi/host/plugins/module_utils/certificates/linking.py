"""The links that the web server reads: to certbot's certificate, a copy of it, or a placeholder."""

from __future__ import annotations

import datetime
import os
import secrets
import shutil
from pathlib import Path

from ansible_collections.wsgi.host.plugins.module_utils.certificates import pairs
from ansible_collections.wsgi.host.plugins.module_utils.certificates.model import (
    CertificateError,
    Source,
    Wanted,
    names,
)
from ansible_collections.wsgi.host.plugins.module_utils.certificates.run import Run

PLACEHOLDER_MINIMUM_DAYS = 30


def point(link: Path, target: Path) -> None:
    """Leads the link to the target in one step: a reader finds the old or the new one."""
    temporary = link.with_name(f".{link.name}.{secrets.token_hex(4)}")
    temporary.symlink_to(target)
    try:
        os.replace(temporary, link)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def link_target(link: Path) -> Path | None:
    """Where the link leads, None if there is none. Raises where something else is in its place."""
    if link.is_symlink():
        return Path(os.readlink(link))
    if link.exists():
        raise CertificateError(
            f"{link} is not a symbolic link; move it away, the link to the certificate goes there"
        )
    return None


def link_targets(links: Path) -> dict[str, Path]:
    """Where each link leads, by its name."""
    if not links.is_dir():
        return {}
    return {
        path.name: Path(os.readlink(path))
        for path in sorted(links.iterdir())
        if path.is_symlink() and not path.name.startswith(".")
    }


def connect(run: Run, wanted: Wanted) -> None:
    """Leads the link to the best certificate that there is, else to a placeholder."""
    found = link_target(wanted.link)
    if not pairs.HAS_CRYPTOGRAPHY:
        if found is None:
            run.done.append(f"{wanted.name}: link to {wanted.serves}")
        return
    if wanted.source is not None:
        keep(run, wanted, wanted.source)
        wanted.serves = "issued" if wanted.source.lineage else "kept"
        if found != wanted.source.path:
            what = {
                wanted.name: "the issued certificate",
                "": "the copy of its last certificate",
            }.get(wanted.source.lineage, f"certbot's certificate {wanted.source.lineage}")
            move(run, wanted, wanted.source.path, f"{wanted.name}: serve {what}")
            for leftover in run.placeholders.glob(f"{wanted.name}@*"):
                if not run.module.check_mode:
                    shutil.rmtree(leftover)
        return
    wanted.serves = "placeholder"
    ours = found is not None and found.parent == run.placeholders
    if ours and found is not None:
        try:
            current = pairs.read_pair(found)
        except CertificateError:
            pass
        else:
            minimum = run.now + datetime.timedelta(days=PLACEHOLDER_MINIMUM_DAYS)
            if current.domains == set(wanted.domains) and current.not_after > minimum:
                wanted.certificate = current
                return
    fresh = run.placeholders / f"{wanted.name}@{secrets.token_hex(4)}"
    if not run.module.check_mode:
        pairs.make_placeholder(fresh, wanted.domains, run.now)
        label(run, run.placeholders, fresh)
        wanted.certificate = pairs.read_pair(fresh)
    move(run, wanted, fresh, f"{wanted.name}: serve a placeholder for {names(wanted)}")
    for old in run.placeholders.glob(f"{wanted.name}@*"):
        if old != fresh and not run.module.check_mode:
            shutil.rmtree(old)


def label(run: Run, parent: Path, pair: Path) -> None:
    """Gives a new pair and the directory above it the contexts of SELinux."""
    if run.module.selinux_enabled():
        for path in (parent, pair, *pair.iterdir()):
            run.module.set_default_selinux_context(str(path), False)


def keep(run: Run, wanted: Wanted, source: Source) -> None:
    """Copies a valid certificate with its key, for the day on which certbot has lost it."""
    if run.module.check_mode or not source.lineage or not source.covers:
        return
    link = run.kept / wanted.name
    try:
        if (
            source.certificate is not None
            and pairs.read_pair(link).serial == source.certificate.serial
        ):
            return
    except CertificateError:
        pass
    fresh = run.kept / f"{wanted.name}@{secrets.token_hex(4)}"
    pairs.write_pair(
        fresh,
        {name: (source.path / name).read_bytes() for name in ("privkey.pem", "fullchain.pem")},
    )
    label(run, run.kept, fresh)
    point(link, fresh)
    for old in run.kept.glob(f"{wanted.name}@*"):
        if old != fresh:
            shutil.rmtree(old)


def move(run: Run, wanted: Wanted, target: Path, what: str) -> None:
    """Points the link, and remembers that the web server reads it only after a reload."""
    new = not wanted.link.is_symlink()
    run.done.append(what)
    if run.module.check_mode:
        return
    # No server reads a link that did not exist; whoever adds it to a server reloads that.
    if not new:
        run.remember_reload()
    run.links.mkdir(mode=0o755, parents=True, exist_ok=True)
    point(wanted.link, target)
    if run.module.selinux_enabled():
        run.module.set_default_selinux_context(str(wanted.link), False)
