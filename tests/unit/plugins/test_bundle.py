"""`wsgi.host.bundle`: refusals, what the id depends on, and real builds without a network."""

from __future__ import annotations

import base64
import hashlib
import inspect
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import MagicMock

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.wsgi.host.plugins.action import bundle as plugin
from ansible_collections.wsgi.host.plugins.plugin_utils import bundles, locks, wheels
from ansible_collections.wsgi.host.plugins.plugin_utils.bundles import (
    Bundle,
    default_cache,
    revision,
)
from ansible_collections.wsgi.host.plugins.plugin_utils.locks import BundleError, read_lock
from ansible_collections.wsgi.host.plugins.plugin_utils.wheels import (
    pip_settings,
    uv_environment,
)
from conftest import action_of

SHA = "0" * 64


def wheel(
    folder: Path, name: str, version: str = "1.0", tag: str = "py3-none-any", program: str = ""
) -> str:
    """Write a wheel with a module and a command; return its line for a lock file.

    `program` is a file of it that can be run.
    """
    files = {
        **({program: "#!/bin/sh\n"} if program else {}),
        f"{name}/__init__.py": f"def main():\n    print({version!r})\n",
        f"{name}-{version}.dist-info/METADATA": (
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        ),
        f"{name}-{version}.dist-info/WHEEL": (
            f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n"
        ),
        f"{name}-{version}.dist-info/entry_points.txt": (
            f"[console_scripts]\n{name}-run = {name}:main\n"
        ),
    }
    record = f"{name}-{version}.dist-info/RECORD"
    rows = [
        "{},sha256={},{}".format(
            path,
            base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode(),
            len(text),
        )
        for path, text in files.items()
    ]
    files[record] = "\n".join([*rows, f"{record},,", ""])
    path = folder / f"{name}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            info = zipfile.ZipInfo(file)
            info.external_attr = (0o100755 if file == program else 0o100644) << 16
            archive.writestr(info, text)
    return f"{name}=={version} --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


def sdist(folder: Path, name: str, version: str = "1.0", tag: str = "py3-none-any") -> str:
    """Write a source archive that builds itself; return its line for a lock file."""
    backend = f"""
import os, sys
sys.path.insert(0, os.path.dirname(__file__))
from maker import wheel
from pathlib import Path

def build_wheel(directory, config_settings=None, metadata_directory=None):
    assert "ANSIBLE_VAULT_PASSWORD_FILE" not in os.environ
    wheel(Path(directory), {name!r}, {version!r}, {tag!r})
    return "{name}-{version}-{tag}.whl"
"""
    head = "import base64, hashlib, zipfile\nfrom pathlib import Path\n\n"
    files = {
        "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        "pyproject.toml": (
            "[build-system]\nrequires = []\nbuild-backend = 'backend'\nbackend-path = ['.']\n"
        ),
        "backend.py": backend,
        "maker.py": head + inspect.getsource(wheel),
    }
    path = folder / f"{name}-{version}.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for file, text in files.items():
            member = tarfile.TarInfo(f"{name}-{version}/{file}")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return f"{name}=={version} --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A project with an application and a lock file, whose index is a directory of wheels."""
    for name in [*os.environ]:
        if name.startswith(("UV_", "PIP_")):
            monkeypatch.delenv(name)
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    monkeypatch.setenv("UV_FIND_LINKS", str(wheels))
    monkeypatch.setenv("UV_NO_INDEX", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
    (tmp_path / "requirements.txt").write_text(wheel(wheels, "alpha") + wheel(wheels, "beta"))
    app = tmp_path / "app"
    (app / "tests").mkdir(parents=True)
    (app / "static").mkdir()
    (app / "app.py").write_text("import alpha\n")
    (app / "static" / "a.css").write_text("a {}\n")
    (app / "tests" / "test_app.py").write_text("")
    (app / ".env").write_text("SECRET=1\n")
    return tmp_path


def options(project: Path, **changes: Any) -> dict[str, Any]:
    return {
        "name": "demo",
        "lock": str(project / "requirements.txt"),
        "source": str(project / "app"),
        "exclude": bundles.EXCLUDE,
        "python": "3.13",
        "architecture": "x86_64",
        **changes,
    }


def bundle(project: Path, **changes: Any) -> Bundle:
    return Bundle(options(project, **changes), project / "cache")


def contents(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as members:
        return {m.name: members.extractfile(m).read() for m in members}  # type: ignore[union-attr]


class TestSourceArchives:
    """Packages without a wheel, which the description names."""

    def test_one_that_is_named_is_built(self, project, monkeypatch):
        """Its build is code of somebody else's, which finds nothing of Ansible's environment."""
        monkeypatch.setenv("ANSIBLE_VAULT_PASSWORD_FILE", "/root/vault")
        line = wheel(project / "wheels", "alpha") + sdist(project / "wheels", "gamma")
        (project / "requirements.txt").write_text(line)
        built = bundle(project, sdists=["Gamma"])
        assert built.build()["packages"] == {"alpha": "1.0", "gamma": "1.0"}
        assert "site-packages/gamma/__init__.py" in contents(built.archive)

    def test_what_a_compiler_made_is_refused(self, project):
        """It would be for this machine's Python, and fail on the host when it is imported."""
        tag = "cp{0}{1}-cp{0}{1}-linux_x86_64".format(*sys.version_info[:2])
        (project / "requirements.txt").write_text(sdist(project / "wheels", "gamma", tag=tag))
        python = "{}.{}".format(*sys.version_info[:2])
        with pytest.raises(BundleError, match="gamma has compiled parts"):
            bundle(project, sdists=["gamma"], python=python).build()

    def test_one_that_is_not_locked_is_refused(self, project):
        with pytest.raises(BundleError, match=r"source\.sdists: gama is not in"):
            bundle(project, sdists=["gama"])


class TestLock:
    @pytest.fixture
    def read(self, tmp_path):
        def read(text: str) -> dict[str, int]:
            path = tmp_path / "lock.txt"
            path.write_text(text)
            return read_lock(path)

        return read

    def test_form_that_uv_and_pip_compile_write(self, read):
        lock = f"""\
# A comment.
Foo_Bar==1.0 \\
    --hash=sha256:{SHA} \\
    --hash=sha256:{SHA}
    # via something
baz[extra]==2.0.post1 ; python_full_version < '3.13' \\
    --hash=sha256:{SHA}  # trailing
"""
        assert read(lock) == {"foo-bar": 2, "baz": 6}

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("a==1\n", "line 1: a==1 has no hash"),
            (f"a==1 --hash=sha256:{SHA}\nb==2 \\\n  # via a\n\n", "line 2: b==2 has no hash"),
            (f"a>=1 --hash=sha256:{SHA}\n", "line 1: 'a>=1' is not of the form name==version"),
            (f"\n./a --hash=sha256:{SHA}\n", "line 2: './a' is not of the form"),
            ("a==1 --hash=md5:0\n", "line 1: 'md5:0' is not a SHA-256 hash"),
            ("a==1 --hash=sha256:00\n", "line 1: 'sha256:00' is not a SHA-256 hash"),
            ("-e ./a\n", "line 1: the option -e is not allowed"),
            ("--index-url=https://x.example/\n", "line 1: the option --index-url is not allowed"),
            (f"a==1 \\\n  --hash=sha256:{SHA} \\\n", "line 1: the file ends with a continued line"),
            ("# nothing\n", "no requirement in this lock file"),
        ],
    )
    def test_wrong_line_is_named_with_its_remedy(self, read, tmp_path, text, words):
        with pytest.raises(BundleError) as refusal:
            read(text)
        assert str(refusal.value).startswith(str(tmp_path / "lock.txt"))
        assert words in str(refusal.value)
        remedy = "UV_DEFAULT_INDEX" if "option" in words else "uv pip compile"
        assert remedy in str(refusal.value)

    def test_a_package_from_a_repository_has_a_remedy_of_its_own(self, read):
        """Compiled anew, the lock file has the same line again, which was shown with its token."""
        with pytest.raises(BundleError) as refusal:
            read("shoplib @ git+https://tok:S3CRET@git.example.com/lib.git@abc\n")
        message = str(refusal.value)
        assert "line 1: 'shoplib @ git+https://git.example.com/lib.git@abc' comes from" in message
        assert "Build a wheel of shoplib" in message
        assert "require shoplib==VERSION" in message
        assert "S3CRET" not in message

    @pytest.mark.parametrize("text", ["lib @ git+https://S3CRET@x.example/a", "a @@ b://S3CRET@c"])
    def test_a_requirement_is_named_without_its_login(self, tmp_path, text):
        lock = tmp_path / "requirements.txt"
        lock.write_text(f"a==1 --hash=sha256:{SHA}\n")
        lock.with_suffix(".in").write_text(f"{text}\n")
        with pytest.raises(BundleError, match=r"requirements.in, line 1: ") as refusal:
            locks.check_lock_is_current(lock)
        assert "S3CRET" not in str(refusal.value)

    def test_missing_file_is_named(self, tmp_path):
        with pytest.raises(BundleError, match=r"lock: .*/none cannot be read: No such file"):
            read_lock(tmp_path / "none")

    def test_the_applications_own_lock_file_is_accepted(self):
        read_lock(Path(__file__).resolve().parents[3] / "app" / "requirements.txt")


class TestId:
    def test_is_the_same_for_the_same_content_elsewhere(self, project, tmp_path_factory):
        """Two people, or CI and a laptop, deploy the same release."""
        other = tmp_path_factory.mktemp("other") / "checkout"
        shutil.copytree(project, other)
        assert bundle(project).id == bundle(other).id

    @pytest.mark.parametrize(
        "path", ["app/tests/test_app.py", "app/.env", "app/a.pyc", "app/instance/x", "other.txt"]
    )
    def test_does_not_depend_on_what_is_not_shipped(self, project, path):
        before = bundle(project).id
        (project / path).parent.mkdir(exist_ok=True)
        (project / path).write_text("changed")
        assert bundle(project).id == before

    @pytest.mark.parametrize("path", ["app/app.py", "app/new.txt", "requirements.txt"])
    def test_depends_on_each_file(self, project, path):
        before = bundle(project).id
        with (project / path).open("a") as file:
            file.write("# changed\n")
        assert bundle(project).id != before

    @pytest.mark.parametrize(
        "change", [{"python": "3.11"}, {"architecture": "aarch64"}, {"source": None}]
    )
    def test_depends_on_the_target(self, project, change):
        assert bundle(project, **change).id != bundle(project).id

    def test_depends_on_where_one_file_ends_and_the_next_begins(self, project):
        (project / "app/a").write_text("xaa")
        before = bundle(project).id
        (project / "app/a").write_text("x")
        (project / "app/aa").write_text("")
        assert bundle(project).id != before

    def test_patch_level_of_python_does_not_matter(self, project):
        """A security update of the host's Python is no reason for a new release."""
        assert bundle(project, python="3.13.5").id == bundle(project, python="3.13").id


class TestInputs:
    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"name": "Demo App"}, "name: 'Demo App' is not made of lower-case letters"),
            ({"python": "3"}, "python: '3' is not a Python version such as '3.13'"),
            ({"python": "2.7"}, "python: '2.7' is not"),
            ({"source": "/nonexistent"}, "source: /nonexistent is not a directory"),
        ],
    )
    def test_wrong_option_is_named(self, project, change, words):
        with pytest.raises(BundleError) as refusal:
            bundle(project, **change)
        assert words in str(refusal.value)

    @pytest.mark.parametrize("target", ["app.py", "static", "/etc/passwd", "nowhere"])
    def test_symbolic_link_is_refused(self, project, target):
        (project / "app" / "link").symlink_to(target)
        with pytest.raises(BundleError, match="app/link is a symbolic link"):
            bundle(project)

    @pytest.mark.parametrize(
        ("needs", "words"),
        [
            ("gunicorn", "requirements.txt has no gunicorn, without which a host cannot run "),
            (
                "alpha>=2",
                "requirements.txt has alpha 1.0, and a host needs alpha>=2 to run ",
            ),
        ],
    )
    def test_what_a_host_runs_it_with_is_locked(self, project, needs, words):
        """Otherwise the service is the first to miss it, on the host."""
        with pytest.raises(BundleError) as refusal:
            bundle(project, needs=["beta", needs])
        assert words in str(refusal.value)
        bundle(project, needs=["alpha", "Beta>=1"])

    def test_empty_application_is_refused(self, project):
        with pytest.raises(BundleError, match="holds no file to ship"):
            bundle(project, source=str(project / "app" / "tests"), exclude=["*"])


class TestBuild:
    def test_archive_holds_the_application_and_its_packages(self, project):
        built = bundle(project)
        record = built.build()
        files = contents(built.archive)
        assert next(iter(files)) == "manifest.json"
        assert {"app/app.py", "app/static/a.css", "site-packages/alpha/__init__.py"} < set(files)
        assert not [name for name in files if "tests" in name or ".env" in name]
        manifest = json.loads(files.pop("manifest.json"))
        assert manifest["id"] == built.id
        assert (manifest["python"], manifest["architecture"]) == ("3.13", "x86_64")
        assert manifest["packages"] == {"alpha": "1.0", "beta": "1.0"}
        assert manifest["files"] == {
            name: hashlib.sha256(content).hexdigest() for name, content in files.items()
        }
        assert manifest["unpacked_bytes"] == sum(map(len, files.values()))
        assert record["sha256"] == hashlib.sha256(built.archive.read_bytes()).hexdigest()

    def test_what_can_be_run_is_told(self, project):
        """Of the application and of packages; a host makes nothing else executable."""
        before = bundle(project).id
        (project / "app" / "run.sh").write_text("#!/bin/sh\n")
        plain = bundle(project).id
        (project / "app" / "run.sh").chmod(0o755)
        (project / "requirements.txt").write_text(
            wheel(project / "wheels", "alpha", program="alpha/tool")
        )
        built = bundle(project)
        built.build()
        manifest = json.loads(contents(built.archive)["manifest.json"])
        assert manifest["executable"] == ["app/run.sh", "site-packages/alpha/tool"]
        assert len({before, plain, built.id}) == 3

    def test_nothing_of_the_control_node_gets_in(self, project):
        """Scripts name the control node's Python, and differ from machine to machine."""
        built = bundle(project)
        built.build()
        files = contents(built.archive)
        assert not [name for name in files if "/bin/" in name or ".lock" in name]
        assert b"alpha-run," not in files["site-packages/alpha-1.0.dist-info/RECORD"]
        assert b"alpha/__init__.py," in files["site-packages/alpha-1.0.dist-info/RECORD"]
        for content in files.values():
            assert sys.prefix.encode() not in content
            assert str(project).encode() not in content

    def test_is_reproducible(self, project):
        """But for the note of who built it, and when."""
        first, second = bundle(project), Bundle(options(project), project / "other")
        first.build()
        second.build()
        one, other = contents(first.archive), contents(second.archive)
        one.pop("manifest.json")
        other.pop("manifest.json")
        assert list(one.items()) == list(other.items())
        assert first.archive.read_bytes()[4:8] == bytes(4), "no time in the header of gzip"
        with tarfile.open(first.archive) as archive:
            for member in archive:
                assert (member.mtime, member.uid, member.gid, member.mode) == (0, 0, 0, 0o644)

    def test_second_time_starts_no_process(self, project, monkeypatch):
        """A run that changes nothing must not pay for a build, nor for git."""
        record = bundle(project).build()
        monkeypatch.setattr(wheels.subprocess, "run", MagicMock(side_effect=AssertionError))
        assert bundle(project).cached() == record
        assert bundle(project).build() == record

    @pytest.mark.parametrize("damage", ["truncate", "remove", "record"])
    def test_damaged_cache_is_built_anew(self, project, damage):
        built = bundle(project)
        built.build()
        if damage == "truncate":
            os.truncate(built.archive, 10)
        elif damage == "remove":
            built.archive.unlink()
        else:
            built.record.write_text("{")
        assert bundle(project).cached() is None
        record = bundle(project).build()
        assert hashlib.sha256(built.archive.read_bytes()).hexdigest() == record["sha256"]

    def test_hosts_at_the_same_time_build_once(self, project, monkeypatch):
        calls = []

        def install(*arguments: Any) -> None:
            calls.append(arguments)
            time.sleep(0.2)
            real(*arguments)

        real = bundles.install
        monkeypatch.setattr(bundles, "install", install)
        records: list[Any] = []
        threads = [
            threading.Thread(target=lambda: records.append(bundle(project).build()))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(calls) == 1
        assert len(records) == 4
        assert all(record == records[0] for record in records)

    def test_failed_build_leaves_nothing(self, project, monkeypatch):
        monkeypatch.setattr(bundles, "write_archive", MagicMock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            bundle(project).build()
        assert [path.name for path in (project / "cache").iterdir()] == [".lock"]

    def test_killed_build_is_taken_over(self, project):
        """SIGKILL cleans up nothing: the lock goes with its process, the rest by the next build."""
        script = (
            "import json, sys, time\n"
            "from pathlib import Path\n"
            "from ansible_collections.wsgi.host.plugins.plugin_utils import bundles as bundle\n"
            "def hang(*_):\n"
            "    print('hanging', flush=True)\n"
            "    time.sleep(60)\n"
            "bundle.install = hang\n"
            "bundle.Bundle(json.loads(sys.argv[1]), Path(sys.argv[2])).build()\n"
        )
        with subprocess.Popen(
            [sys.executable, "-c", script, json.dumps(options(project)), str(project / "cache")],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"hanging\n"
            process.send_signal(signal.SIGKILL)
        assert list((project / "cache").glob(".build-*"))
        built = bundle(project)
        built.build()
        names = {path.name for path in (project / "cache").iterdir()}
        assert names == {".lock", "packages", built.archive.name, built.record.name}
        kinds = sorted(path.suffix for path in (project / "cache" / "packages").iterdir())
        assert kinds == [".gz", ".json"]

    def test_another_release_of_the_application_alone_installs_no_packages(
        self, project, monkeypatch
    ):
        first = bundle(project)
        first.build()
        (project / "app" / "app.py").write_text("changed = True\n")
        install = MagicMock(side_effect=AssertionError)
        with monkeypatch.context() as patch:
            patch.setattr(bundles, "install", install)
            second = bundle(project)
            record = second.build()
        assert second.id != first.id
        one, other = contents(first.archive), contents(second.archive)
        assert other.pop("app/app.py") == b"changed = True\n"
        del one["app/app.py"]
        manifests = [json.loads(each.pop("manifest.json")) for each in (one, other)]
        assert list(one.items()) == list(other.items())
        for name, content in contents(second.archive).items():
            if name != "manifest.json":
                assert manifests[1]["files"][name] == hashlib.sha256(content).hexdigest()
        assert manifests[1]["packages"] == manifests[0]["packages"]
        assert record["unpacked_bytes"] == sum(map(len, contents(second.archive).values())) - len(
            contents(second.archive)["manifest.json"]
        )

    def test_damaged_packages_are_installed_anew(self, project):
        bundle(project).build()
        [archive] = (project / "cache" / "packages").glob("*.tar.gz")
        whole = archive.read_bytes()
        archive.write_bytes(whole[:-5] + bytes(5))
        (project / "app" / "app.py").write_text("changed = True\n")
        again = bundle(project)
        again.build()
        assert "site-packages/alpha/__init__.py" in contents(again.archive)
        assert archive.read_bytes() == whole

    @pytest.mark.parametrize("change", ["edit", "remove"])
    def test_what_changes_while_it_is_built_is_not_kept(self, project, monkeypatch, change):
        """The cache would have it for a month as what was there before."""
        source = project / "app" / "app.py"
        before = source.read_text()
        install = bundles.install

        def slow(*arguments):
            install(*arguments)
            source.unlink()
            if change == "edit":
                source.write_text("half = ")

        monkeypatch.setattr(bundles, "install", slow)
        with pytest.raises(BundleError, match="changed while it was built"):
            bundle(project).build()
        source.write_text(before)
        again = bundle(project)
        assert again.cached() is None
        again.build()
        assert contents(again.archive)["app/app.py"].decode() == before

    def test_old_bundles_go_when_nobody_asked_for_them_in_a_month(self, project):
        old = bundle(project)
        old.build()
        recent = bundle(project, python="3.12")
        recent.build()
        for each, days in ((old, 31), (recent, 29)):
            stamp = time.time() - days * 24 * 3600
            os.utime(each.record, (stamp, stamp))
        bundle(project, python="3.11").build()
        assert not old.record.exists()
        assert not old.archive.exists()
        assert recent.archive.exists()

    def test_use_keeps_a_bundle_young(self, project):
        built = bundle(project)
        built.build()
        os.utime(built.record, (0, 0))
        assert bundle(project).cached()
        assert time.time() - built.record.stat().st_mtime < 60


class TestFailure:
    def failure(self, project: Path, **changes: Any) -> str:
        with pytest.raises(BundleError) as error:
            bundle(project, **changes).build()
        assert not list((project / "cache").glob("*.tar.gz"))
        return str(error.value)

    def test_other_file_than_the_locked_one(self, project):
        lock = project / "requirements.txt"
        alpha, _beta = lock.read_text().splitlines()
        lock.write_text(f"{alpha}\nbeta==1.0 --hash=sha256:{SHA}\n")
        words = self.failure(project)
        assert words.startswith(f"{lock}, beta (line 2): uv could not install")
        assert "serves another file than the one that was locked" in words

    def test_package_that_the_index_lacks(self, project):
        with (project / "requirements.txt").open("a") as lock:
            lock.write(f"gamma==3.0 --hash=sha256:{SHA}\n")
        words = self.failure(project)
        assert "gamma (line 3)" in words
        assert "Lock a version that has a wheel for Python 3.13 on x86_64-manylinux" in words

    def test_package_without_a_wheel_for_the_host(self, project):
        line = wheel(project / "wheels", "delta", tag="cp312-cp312-manylinux_2_28_x86_64")
        (project / "requirements.txt").write_text(line)
        assert bundle(project, python="3.12").build()
        (project / "cache").rename(project / "old")
        words = self.failure(project, python="3.13")
        assert "delta (line 1)" in words
        assert "Lock a version that has a wheel for Python 3.13" in words

    def test_package_without_any_wheel(self, project):
        """Of PyPI's older packages many have none. The remedy names what to write."""
        (project / "requirements.txt").write_text(sdist(project / "wheels", "gamma"))
        words = self.failure(project)
        assert "gamma (line 1)" in words
        assert "source.sdists: [gamma]" in words

    def test_index_out_of_reach(self, project, monkeypatch):
        monkeypatch.delenv("UV_NO_INDEX")
        monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
        monkeypatch.setenv("UV_HTTP_RETRIES", "0")
        shutil.rmtree(project / "wheels")
        (project / "wheels").mkdir()
        assert "The package index was not reached: check" in self.failure(project)

    def test_no_uv(self, project, monkeypatch):
        monkeypatch.setattr(wheels.sys, "executable", str(project / "python"))
        monkeypatch.setenv("PATH", str(project))
        words = self.failure(project)
        assert f"neither beside {project / 'python'} nor on PATH" in words
        assert "pip install -r requirements.txt" in words

    def test_uv_on_the_path_serves_too(self, project, monkeypatch):
        uv = project / "uv"
        uv.write_text("#!/bin/sh\n")
        uv.chmod(0o755)
        monkeypatch.setattr(wheels.sys, "executable", "/nonexistent/python")
        monkeypatch.setenv("PATH", str(project))
        assert wheels.find_uv() == str(uv)


class TestIndexSettings:
    @pytest.fixture
    def home(self, tmp_path, monkeypatch) -> dict[str, str]:
        (tmp_path / ".config/pip").mkdir(parents=True)
        (tmp_path / ".config/pip/pip.conf").write_text(
            "[global]\n"
            "index-url = https://index.example/simple\n"
            "extra-index-url =\n  https://one.example\n  https://two.example\n"
            "[install]\n"
            "trusted-host = index.example\n"
        )
        monkeypatch.setattr(wheels, "SYSTEM_PIP_FILES", ())
        monkeypatch.setattr(wheels.sys, "prefix", str(tmp_path / "venv"))
        return {"HOME": str(tmp_path)}

    def test_pips_files_count(self, home):
        result = uv_environment(home)
        assert result["UV_DEFAULT_INDEX"] == "https://index.example/simple"
        assert result["UV_INDEX"] == "https://one.example https://two.example"
        assert result["UV_INSECURE_HOST"] == "index.example"

    def test_pips_environment_goes_before_its_files(self, home):
        result = uv_environment(home | {"PIP_INDEX_URL": "https://other.example"})
        assert result["UV_DEFAULT_INDEX"] == "https://other.example"

    def test_uvs_settings_go_before_pips(self, home):
        result = uv_environment(home | {"UV_INDEX_URL": "https://uv.example"})
        assert "UV_DEFAULT_INDEX" not in result
        assert result["UV_INDEX_URL"] == "https://uv.example"

    def test_named_file_and_none_at_all(self, home, tmp_path):
        (tmp_path / "p.conf").write_text("[global]\nindex_url = https://named.example\n")
        named = home | {"PIP_CONFIG_FILE": str(tmp_path / "p.conf")}
        assert pip_settings(named)["index-url"] == "https://named.example"
        assert "index-url" not in pip_settings(home | {"PIP_CONFIG_FILE": os.devnull})

    def test_unreadable_file_does_no_harm(self, home, tmp_path):
        (tmp_path / ".config/pip/pip.conf").write_text("index-url = x\n")
        assert "UV_DEFAULT_INDEX" not in uv_environment(home | {"PIP_CONFIG_FILE": ""})

    @pytest.mark.parametrize("name", ["PIP_CERT", "REQUESTS_CA_BUNDLE"])
    def test_certificate_authority_counts(self, home, name):
        assert uv_environment(home | {name: "/ca.pem"})["SSL_CERT_FILE"] == "/ca.pem"
        own = home | {name: "/ca.pem", "SSL_CERT_FILE": "/own.pem"}
        assert uv_environment(own)["SSL_CERT_FILE"] == "/own.pem"


class TestRevision:
    @pytest.fixture
    def repository(self, project) -> Path:
        def git(*arguments: str) -> None:
            identity = ["-c", "user.name=t", "-c", "user.email=t@example.com"]
            subprocess.run(["git", "-C", str(project), *identity, *arguments], check=True)

        git("init", "--quiet")
        git("add", "app", "requirements.txt")
        git("commit", "--quiet", "--message", "x")
        return project

    def test_is_the_commit(self, repository):
        found = bundle(repository).revision()
        assert found is not None
        assert len(found) == 40

    def test_says_that_the_files_differ_from_it(self, repository):
        (repository / "app" / "new.py").write_text("")
        assert str(bundle(repository).revision()).endswith("-dirty")

    def test_does_not_look_at_other_files(self, repository):
        (repository / "elsewhere.txt").write_text("")
        assert not str(bundle(repository).revision()).endswith("-dirty")

    def test_is_unknown_outside_a_repository(self, project, monkeypatch):
        monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(project.parent))
        assert revision(project, [project]) is None


class Action:
    """The plugin as Ansible calls it."""

    @pytest.fixture
    def run(self, project):
        def run(*, check: bool = False, **changes: Any) -> dict[str, Any]:
            arguments = {k: v for k, v in options(project, **changes).items() if v is not None}
            action = action_of(plugin.ActionModule, arguments, check_mode=check)
            return action.run(task_vars={"playbook_dir": str(project / "playbooks")})

        (project / "ansible.cfg").touch()
        (project / "playbooks").mkdir()
        return run


class TestAction(Action):
    def test_check_mode_names_the_bundle_and_builds_nothing(self, run, project):
        told = run(check=True)["bundle"]
        assert (told["built"], told["sha256"]) == (False, None)
        assert not (project / ".cache").exists()
        assert run()["bundle"]["id"] == told["id"]
        assert run(check=True)["bundle"]["built"] is True

    def test_result_leads_to_the_archive_and_is_no_change(self, run, project):
        result = run()
        assert result["changed"] is False
        archive = Path(result["bundle"]["archive"])
        assert archive.parent == project / ".cache" / "bundles"
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        assert result["bundle"]["sha256"] == digest
        lock = hashlib.sha256((project / "requirements.txt").read_bytes()).hexdigest()
        assert result["bundle"]["lock_hash"] == lock

    def test_failure_is_a_message_not_a_traceback(self, run):
        with pytest.raises(AnsibleActionFail, match="is not a directory"):
            run(source="/nonexistent")

    def test_unknown_architecture_is_refused(self, run):
        with pytest.raises(AnsibleActionFail, match="architecture must be one of"):
            run(architecture="riscv64")

    def test_documentation_and_plugin_agree(self, run):
        """The options are documented in a file of their own, which nothing else compares."""
        import yaml
        from ansible_collections.wsgi.host.plugins.modules import bundle as documentation

        documented = yaml.safe_load(documentation.DOCUMENTATION)["options"]
        assert documented["exclude"]["default"] == bundles.EXCLUDE
        assert documented["architecture"]["choices"] == list(wheels.PLATFORMS)
        with pytest.raises(AnsibleActionFail) as refusal:
            run(nonsense=1)
        for name in documented:
            assert name in str(refusal.value)


class TestOtherSources(Action):
    """A git revision in place of the working tree, or an archive that was built before."""

    VARIABLES: ClassVar[dict[str, str]] = {
        "revision": "shop_revision",
        "archive": "shop_bundle",
        "archive_sha256": "shop_bundle_sha256",
    }

    @pytest.fixture
    def repository(self, project) -> Path:
        """The lock file beside the application, and two commits: app.py says 1, then 2."""
        (project / "requirements.txt").rename(project / "app" / "requirements.txt")
        self.git(project, "init", "--quiet", "--initial-branch=main")
        for text in ("1", "2"):
            (project / "app" / "app.py").write_text(f"print({text})\n")
            self.git(project, "add", "app")
            self.git(project, "commit", "--quiet", "--message", text)
        self.git(project, "tag", "first", "HEAD~1")
        return project

    @staticmethod
    def git(project: Path, *arguments: str) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.com"]
        done = subprocess.run(
            ["git", "-C", str(project), *identity, *arguments],
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    def at(self, run, project: Path, **changes: Any) -> dict[str, Any]:
        lock = str(project / "app" / "requirements.txt")
        return run(lock=lock, variables=self.VARIABLES, **changes)["bundle"]

    def refusal(self, run, project: Path, **changes: Any) -> str:
        with pytest.raises(AnsibleActionFail) as refusal:
            self.at(run, project, **changes)
        return str(refusal.value)

    def test_revision_ships_what_was_committed_then(self, run, repository):
        (repository / "app" / "app.py").write_text("print('not committed')\n")
        (repository / "app" / "loose.py").write_text("")
        built = self.at(run, repository, revision="first")
        files = contents(Path(built["archive"]))
        assert files["app/app.py"] == b"print(1)\n"
        assert "app/loose.py" not in files
        commit = self.git(repository, "rev-parse", "first")
        assert built["revision"] == json.loads(files["manifest.json"])["revision"] == commit

    def test_revision_of_an_application_that_is_the_whole_repository(self, run, repository):
        """git names the folder in its repository by an empty line then."""
        top = repository / "app"
        self.git(top, "init", "--quiet", "--initial-branch=main")
        self.git(top, "add", "app.py", "requirements.txt")
        self.git(top, "commit", "--quiet", "--message", "2")
        (top / "app.py").write_text("print('not committed')\n")
        built = self.at(run, repository, revision="main")
        assert contents(Path(built["archive"]))["app/app.py"] == b"print(2)\n"

    def test_revision_keeps_what_can_be_run(self, run, repository):
        (repository / "app" / "run.sh").write_text("#!/bin/sh\n")
        (repository / "app" / "run.sh").chmod(0o755)
        self.git(repository, "add", "app")
        self.git(repository, "commit", "--quiet", "--message", "a program")
        built = self.at(run, repository, revision="main")
        manifest = json.loads(contents(Path(built["archive"]))["manifest.json"])
        assert manifest["executable"] == ["app/run.sh"]
        assert built["id"] == self.at(run, repository)["id"]

    def test_id_is_that_of_a_working_tree_with_the_same_content(self, run, repository):
        """Else a deploy by revision of what is live would change something."""
        tree = self.at(run, repository)
        assert self.at(run, repository, revision="main")["id"] == tree["id"]
        assert self.at(run, repository, revision="first")["id"] != tree["id"]

    def test_revision_is_told_once_the_content_is_committed(self, run, repository):
        (repository / "app" / "app.py").write_text("print(3)\n")
        assert self.at(run, repository)["revision"].endswith("-dirty")
        self.git(repository, "commit", "--quiet", "--all", "--message", "3")
        assert self.at(run, repository)["revision"] == self.git(repository, "rev-parse", "HEAD")

    def test_content_is_the_same_for_every_python(self, run, repository):
        one, other = (self.at(run, repository, python=version) for version in ("3.11", "3.13"))
        assert one["content"] == other["content"]
        assert one["id"] != other["id"]
        assert one["content"] != self.at(run, repository, revision="first")["content"]

    def test_unknown_revision(self, run, repository):
        words = self.refusal(run, repository, revision="v9")
        assert words.startswith("shop_revision is 'v9', which the repository of")
        assert "git fetch" in words

    def test_option_in_place_of_a_revision(self, run, repository):
        """A revision is data: nobody gets an option of git's through it."""
        words = self.refusal(run, repository, revision="--output=/tmp/x")
        assert "does not know" in words

    def test_revision_from_before_there_was_an_application(self, run, repository):
        self.git(repository, "checkout", "--quiet", "--orphan", "empty")
        self.git(repository, "rm", "-r", "--quiet", "--cached", ".")
        self.git(repository, "commit", "--quiet", "--allow-empty", "--message", "none")
        self.git(repository, "checkout", "--quiet", "--force", "main")
        words = self.refusal(run, repository, revision="empty")
        assert "shop_revision is 'empty'" in words
        assert "has no directory app/" in words

    def test_link_at_a_revision_is_refused(self, run, repository):
        (repository / "app" / "link").symlink_to("/etc/passwd")
        self.git(repository, "add", "app")
        self.git(repository, "commit", "--quiet", "--message", "link")
        words = self.refusal(run, repository, revision="main")
        assert "shop_revision is 'main'" in words
        assert "app/link is a symbolic link" in words

    def test_no_repository(self, run, project, monkeypatch):
        monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(project.parent))
        (project / "requirements.txt").rename(project / "app" / "requirements.txt")
        assert "is in no git repository" in self.refusal(run, project, revision="main")

    def test_archive_that_was_built_before(self, run, repository):
        built = self.at(run, repository)
        taken = self.at(run, repository, archive=built["archive"])
        assert {**taken, "archive": built["archive"]} == built
        words = self.refusal(run, repository, archive=built["archive"], needs=["gunicorn"])
        assert words.startswith(f"shop_bundle: {built['archive']} has no gunicorn, without which")

    def test_archive_without_its_record_needs_a_hash(self, run, repository):
        built = self.at(run, repository)
        alone = repository / "alone.tar.gz"
        shutil.copy(built["archive"], alone)
        words = self.refusal(run, repository, archive=str(alone))
        assert "its expected hash is not known. Set shop_bundle_sha256" in words
        taken = self.at(run, repository, archive=str(alone), archive_sha256=built["sha256"])
        assert taken["id"] == built["id"]

    @pytest.mark.parametrize("how", ["variable", "record", "damage"])
    def test_wrong_hash(self, run, repository, how):
        """What is shipped is what was built, or nothing is."""
        built = self.at(run, repository)
        archive = Path(built["archive"])
        given: dict[str, Any] = {}
        if how == "variable":
            given = {"archive_sha256": "0" * 64}
        elif how == "record":
            record = archive.with_name(archive.name.replace(".tar.gz", ".json"))
            record.write_text(json.dumps({"sha256": "0" * 64}))
        else:
            archive.write_bytes(archive.read_bytes()[:-9] + bytes(9))
        words = self.refusal(run, repository, archive=str(archive), **given)
        assert f"shop_bundle is {str(archive)!r}, whose SHA-256 is " in words
        assert ("shop_bundle_sha256" if how == "variable" else "the record beside it") in words

    @pytest.mark.parametrize(
        ("given", "words"),
        [
            ({"archive": "/none.tar.gz"}, "shop_bundle is '/none.tar.gz', which does not exist"),
            ({"archive": __file__}, "it cannot be read as a bundle"),
            ({"archive": "{archive}", "archive_sha256": "abc"}, "'abc', which is not a SHA-256"),
            ({"archive_sha256": "0" * 64}, "shop_bundle_sha256 is set without shop_bundle"),
            ({"archive": "{archive}", "revision": "main"}, "and shop_bundle are both set"),
            (
                {"archive": "{archive}", "python": "3.11"},
                "holds demo for Python 3.13 on x86_64, and this host needs demo for Python 3.11",
            ),
            (
                {"archive": "{folder}", "python": "3.12"},
                "holds demo for Python 3.13 on x86_64, and",
            ),
        ],
    )
    def test_wrong_archive(self, run, repository, given, words):
        archive = self.at(run, repository)["archive"]
        places = {"archive": archive, "folder": str(Path(archive).parent)}
        given = {key: value.format(**places) for key, value in given.items()}
        assert words in self.refusal(run, repository, **given)

    def test_directory_of_archives_serves_hosts_that_differ(self, run, repository):
        built = {python: self.at(run, repository, python=python) for python in ("3.11", "3.13")}
        folder = str(Path(built["3.11"]["archive"]).parent)
        for python, each in built.items():
            assert self.at(run, repository, archive=folder, python=python)["id"] == each["id"]
        (repository / "app" / "app.py").write_text("print(3)\n")
        self.at(run, repository)
        words = self.refusal(run, repository, archive=folder)
        assert "holds more than one bundle of demo for Python 3.13 on x86_64" in words


def test_default_cache_is_in_the_project(tmp_path):
    (tmp_path / "project/playbooks/x").mkdir(parents=True)
    (tmp_path / "project/ansible.cfg").touch()
    expected = tmp_path / "project/.cache/bundles"
    assert default_cache(tmp_path / "project/playbooks/x") == expected


def test_check_mode_tells_files_and_packages(tmp_path: Path) -> None:
    """What the host compares with the release that is live there."""
    lock = "Flask[async]==3.1.0 \\\n    --hash=sha256:00\n# b==2\nold_One==2.0 ; x\n"
    found = [(m["name"], m["version"]) for m in locks.LOCKED.finditer(lock)]
    assert found == [("Flask", "3.1.0"), ("old_One", "2.0")]
    names = ["app/app.py", "site-packages/old_One-2.0.dist-info/METADATA", "site-packages/x/y"]
    assert bundles.packages_of(names) == {"old-one": "2.0"}
