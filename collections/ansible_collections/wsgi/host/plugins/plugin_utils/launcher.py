"""Runs a module that is kept on the host. This file is sent with each task, so it is short.

It runs on the host, as root, with the Python that Ansible uses there (3.8 or newer). `kept_modules`
adds the call below it.
"""

PARENT = "/run/wsgi-host"
MISSING = "wsgi_host_modules_missing"
ENGINE = "ansible/module_utils/_internal/_ansiballz/_loader.py"
IN_USE = 3600.0  # seconds for which what another control node has sent is left alone


def unpack(archive: str, place: str) -> None:
    """Put the modules in place, whole or not at all, and forget those of other versions.

    Raises OSError where there is no room.
    """
    import base64
    import io
    import os
    import shutil
    import tempfile
    import time
    import zipfile

    packed = zipfile.ZipFile(io.BytesIO(base64.b64decode(archive)))
    if all(os.path.exists(os.path.join(place, name)) for name in packed.namelist()):
        # Another task was quicker.
        return
    parent = os.path.dirname(place)
    os.makedirs(parent, 0o700, exist_ok=True)
    others = [os.path.join(parent, name) for name in os.listdir(parent)]
    # What a task may still run from is left alone.
    for other in sorted(others, key=os.path.getmtime)[:-2]:
        if other != place and time.time() - os.path.getmtime(other) > IN_USE:
            shutil.rmtree(other, ignore_errors=True)
    temporary = tempfile.mkdtemp(prefix=".new-", dir=parent)
    try:
        packed.extractall(temporary)
        if os.path.exists(place):
            # Somebody has taken files away.
            os.rename(place, temporary + ".old")
        os.rename(temporary, place)
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def launch(version: str, module: str, profile: str, arguments: str, archive: str = "") -> None:
    """Run the module; where it is not there, say so, or unpack it if it was sent along."""
    import os
    import sys

    # Nothing is imported from where a task happens to start.
    sys.path[:] = [path for path in sys.path if path not in ("", ".")]
    try:
        os.getcwd()
    except OSError:
        os.chdir("/")
    place = os.path.join(PARENT, version)
    # What is compiled once need not be compiled for each task.
    sys.dont_write_bytecode = False
    sys.pycache_prefix = None
    try:
        if archive:
            unpack(archive, place)
        # Python would find the modules of an Ansible that the host has itself.
        os.stat(os.path.join(place, ENGINE))
        # Not before it is there: Python remembers that a place does not exist.
        sys.path.insert(0, place)
        from ansible.module_utils._internal._ansiballz import _loader
    except (ImportError, OSError):
        print(f'{{"{MISSING}": true}}')
        return
    _loader.run_module(
        json_params=arguments.encode(),
        profile=profile,
        module_fqn=module,
        modlib_path=place,
        extensions={},
    )
