"""What nginx keeps of an application's answers, and who gets it, by a running nginx."""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .serving import Asked, Serving, Upstream, serving
from .test_nginx import VERSIONS, certificate, nginx_program

__all__ = ["certificate", "nginx_program"]  # fixtures

_, OLDER = VERSIONS["debian-12"]
# With an OpenSSL that all have.
NEWER = {**OLDER, "nginx": VERSIONS["debian-13"][1]["nginx"]}

PUBLIC = "public, s-maxage=60"
HIT, MISS = "nginx; hit", "nginx; fwd=miss"


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory,
    nginx_program: tuple[Path, Path],
    certificate: tuple[Path, Path],
) -> Iterator[Serving]:
    """A site that keeps what it may.

    The configuration is that of Debian 13, which any nginx takes for a site without TLS.
    """
    directory = tmp_path_factory.mktemp("cache")
    upstream = Upstream(directory / "app.sock", lambda _: (200, {}, ""))
    cache = {"locations": ["/api", "/"], "key_path": str(directory / "current")}
    with serving(directory, nginx_program, certificate, upstream, NEWER, {"cache": cache}) as made:
        yield made


@pytest.fixture
def site(running: Serving) -> Serving:
    """The same with nothing kept, whose application says that everything is public."""
    (running.directory / "log/access.log").write_text("")
    move(running)
    running.upstream.asked.clear()
    running.upstream.start()
    answers(running, {"Cache-Control": PUBLIC})
    return running


@pytest.fixture(autouse=True)
def no_complaints(running: Serving) -> Iterator[None]:
    """What nginx finds wrong in its log of errors fails the test."""
    before = running.complaints()
    yield
    assert running.complaints() == before


def move(site: Serving) -> None:
    """Have the path that is part of the key lead elsewhere, as a handover does."""
    target = site.directory / "releases" / secrets.token_hex(4)
    target.mkdir(parents=True)
    link = site.directory / "next"
    link.symlink_to(target)
    os.rename(link, site.directory / "current")


def answers(
    site: Serving, headers: dict[str, str] | list[tuple[str, str]], status: int = 200
) -> None:
    """Have the application answer with these headers, and with how often it was asked."""
    site.upstream.answer = lambda _: (status, headers, f"answer {len(site.upstream.asked)}")


def two(site: Serving, path: str = "/api/x", **headers: str) -> list[str]:
    """What the cache did for a request, and for the same one again."""
    return [site.ask(path, headers).cache for _ in range(2)]


@pytest.mark.parametrize(
    "cache_control",
    [
        "public, s-maxage=60",
        "s-maxage=60,public",
        "PUBLIC, max-age=0, S-MaxAge=60",
        "max-age=0, public ,s-maxage=60, stale-if-error=5",
    ],
)
def test_what_is_public_is_kept(site: Serving, cache_control: str) -> None:
    answers(site, {"Cache-Control": cache_control})
    assert two(site) == [MISS, HIT]
    assert [site.ask("/api/x").body for _ in range(2)] == ["answer 1", "answer 1"]
    assert site.paths() == ["/api/x"]


NOT_KEPT: dict[str, list[tuple[str, str]]] = {
    "nothing said": [],
    "private": [("Cache-Control", "private, s-maxage=60")],
    "private, though public": [("Cache-Control", "public, private, s-maxage=60")],
    "private on a line of its own": [("Cache-Control", PUBLIC), ("Cache-Control", "private")],
    "private with a field": [("Cache-Control", 'public, s-maxage=60, private="x-name"')],
    "no-store": [("Cache-Control", "no-store, public, s-maxage=60")],
    "no-cache": [("Cache-Control", "public, s-maxage=60, no-cache")],
    "for browsers alone": [("Cache-Control", "public, max-age=60")],
    "shared, but not public": [("Cache-Control", "s-maxage=60")],
    "for no time": [("Cache-Control", "public, s-maxage=0, max-age=60")],
    "for no number": [("Cache-Control", "public, s-maxage=1x, max-age=60")],
    "a longer word": [("Cache-Control", "not-public, s-maxage=60, publication")],
    "Expires": [("Cache-Control", "public"), ("Expires", "Thu, 31 Dec 2037 23:55:55 GMT")],
    "for nginx alone": [("X-Accel-Expires", "60"), ("Cache-Control", "public")],
    "a cookie": [("Cache-Control", PUBLIC), ("Set-Cookie", "session=1")],
    "varies by everything": [("Cache-Control", PUBLIC), ("Vary", "*")],
    "varies by everything and more": [("Cache-Control", PUBLIC), ("Vary", "Accept, *")],
}


@pytest.mark.parametrize("headers", NOT_KEPT.values(), ids=NOT_KEPT)
def test_nothing_else_is_kept(site: Serving, headers: list[tuple[str, str]]) -> None:
    """nginx by itself also keeps by max-age, Expires and X-Accel-Expires."""
    answers(site, headers)
    assert two(site) == [MISS, MISS]
    assert len(site.paths()) == 2


@pytest.mark.parametrize(("status", "kept"), [(301, True), (404, True), (500, False), (503, False)])
def test_a_failure_is_not_kept(site: Serving, status: int, kept: bool) -> None:
    """Whoever sets the header for all answers sets it for failures too."""
    answers(site, {"Cache-Control": PUBLIC}, status)
    assert two(site) == [MISS, HIT if kept else MISS]


@pytest.mark.parametrize(
    "header",
    [
        {"Cookie": "session=1"},
        {"Authorization": "Bearer mine"},
        {"X-API-Key": "mine"},
        {"Range": "bytes=0-3"},
        {"Upgrade": "websocket"},
        {"X-HTTP-Method-Override": "DELETE"},
        {"X-Method-Override": "DELETE"},
        {"X-HTTP-Method": "DELETE"},
    ],
    ids=lambda header: next(iter(header)),
)
def test_who_says_more_than_a_stranger_is_passed_on(site: Serving, header: dict[str, str]) -> None:
    """Neither answered from the cache nor kept there, and with all headers that were sent."""
    name, value = next(iter(header.items()))
    assert [site.ask("/api/x", header).body for _ in range(2)] == ["answer 1", "answer 2"]
    assert site.ask("/api/x").body == "answer 3"
    passed = site.ask("/api/x", {**header, "If-None-Match": '"1"'})
    assert (passed.body, passed.cache) == ("answer 4", "")
    assert site.ask("/api/x").body == "answer 3"
    last = site.upstream.asked[-1].headers
    # Without the option for WebSockets nobody may change the protocol.
    assert last[name] == (None if name == "Upgrade" else value)
    assert last["If-None-Match"] == '"1"'


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_is_part_of_what_is_asked(site: Serving, chunked: bool) -> None:
    """Of a GET too, for applications that read it: or anybody puts their answer into the cache."""
    header = {"Transfer-Encoding": "chunked"} if chunked else {}
    sent = "1\r\nx\r\n0\r\n\r\n" if chunked else "x"
    assert [site.ask("/api/x", header, body=sent).cache for _ in range(2)] == ["", ""]
    assert site.ask("/api/x", {"Content-Length": "0"}).cache == MISS
    assert site.ask("/api/x").cache == HIT
    assert [asked.headers["Content-Length"] for asked in site.upstream.asked] == ["1", "1", "0"]


def test_two_users_never_get_each_others_answer(site: Serving) -> None:
    """Though the application says by mistake that what it answers them is for everybody."""
    site.upstream.answer = lambda asked: (
        200,
        {"Cache-Control": PUBLIC},
        f"{asked.headers['Cookie'] or asked.headers['Authorization'] or 'a stranger'}",
    )
    who = [
        {"Cookie": "session=anna"},
        {"Cookie": "session=ben"},
        {"Authorization": "Bearer anna"},
        {"Authorization": "Bearer ben"},
        {},
    ]
    for _ in range(3):
        for headers in who:
            assert site.ask("/api/me", headers).body == next(iter(headers.values()), "a stranger")
    # Only the stranger's was kept.
    assert len(site.paths()) == 3 * 4 + 1


def test_vary_keeps_an_answer_for_each(site: Serving) -> None:
    site.upstream.answer = lambda asked: (
        200,
        {"Cache-Control": PUBLIC, "Vary": "Accept-Language, X-Tenant"},
        f"{asked.headers['Accept-Language']} {asked.headers['X-Tenant']}",
    )
    who = [
        {"Accept-Language": language, "X-Tenant": tenant}
        for language in ("de", "en")
        for tenant in ("a", "b")
    ]
    for _ in range(3):
        for headers in who:
            assert site.ask("/api/x", headers).body == " ".join(headers.values())
    assert len(site.paths()) == 4


def test_an_older_nginx_keeps_nothing_that_varies(
    tmp_path: Path, nginx_program: tuple[Path, Path], certificate: tuple[Path, Path]
) -> None:
    """Up to 1.22 the last of several Vary counts alone: one tenant would get another's answer."""
    upstream = Upstream(
        tmp_path / "app.sock",
        lambda asked: (
            200,
            [("Cache-Control", PUBLIC), ("Vary", "X-Tenant"), ("Vary", "Accept-Language")],
            f"{asked.headers['X-Tenant']}",
        ),
    )
    site = {"cache": {"locations": ["/"]}}
    with serving(tmp_path, nginx_program, certificate, upstream, OLDER, site) as older:
        for _ in range(2):
            for tenant in ("a", "b"):
                assert older.ask("/", {"X-Tenant": tenant}).body == tenant
        # Without a path that leads to a release too.
        answers(older, {"Cache-Control": PUBLIC})
        assert two(older, "/y") == [MISS, HIT]


def test_only_get_and_head(site: Serving) -> None:
    for method in ("POST", "PUT"):
        assert [site.ask("/api/x", method=method, body="x").cache for _ in range(2)] == ["", ""]
    # A HEAD that fills it asks for the whole, so that a GET finds that.
    assert site.ask("/api/x", method="HEAD").cache == MISS
    assert (site.ask("/api/x").cache, site.ask("/api/x", method="HEAD").cache) == (HIT, HIT)
    assert [asked.method for asked in site.upstream.asked] == ["POST", "POST", "PUT", "PUT", "GET"]
    assert site.ask("/api/x").body == "answer 5"


def test_what_a_client_sends_poisons_nothing(site: Serving) -> None:
    """Whatever is not part of the key must not reach the application."""
    site.upstream.answer = lambda asked: (
        200,
        {"Cache-Control": PUBLIC},
        " ".join(f"{asked.headers[name]}" for name in ("Host", "X-Forwarded-Host", *spoofed)),
    )
    spoofed = {
        "X-Forwarded-Proto": "gopher",
        "X-Forwarded-Prefix": "/evil",
        "X-Forwarded-Port": "1",
        "X-Original-URL": "/admin",
        "Forwarded": "host=evil.example.org",
    }
    port = site.http
    clean = f"plain.example.org plain.example.org http None {port} None None"
    evil = {"X-Forwarded-Host": "evil.example.org", **spoofed}
    assert site.ask("/api/x", evil).body == clean
    assert site.ask("/api/x").body == clean
    for host in ("PLAIN.example.org", "plain.example.org:81", "plain.example.org."):
        assert site.ask("/api/x", {"Host": host}).cache == HIT
    assert site.paths() == ["/api/x"]


def test_another_address_is_another_answer(site: Serving) -> None:
    """The raw one, so that no two that the application tells apart share a key."""
    paths = [
        "/api/x?a=1&b=2",
        "/api/x?b=2&a=1",
        "/api/x?",
        "/api/x",
        "/api/%78",
        "/api//x",
        "/API/x",
    ]
    for path in paths:
        assert site.ask(path).cache == MISS, path
    for path in paths:
        assert site.ask(path).cache == HIT, path
    assert site.paths() == paths


@pytest.mark.parametrize("key_path", ["", "/srv"])
def test_a_client_by_https_is_another_one(
    tmp_path: Path,
    nginx_program: tuple[Path, Path],
    certificate: tuple[Path, Path],
    key_path: str,
) -> None:
    """Also where TLS ends before nginx: or a redirect to HTTPS is kept for who came by it."""
    upstream = Upstream(
        tmp_path / "app.sock",
        lambda asked: (200, {"Cache-Control": PUBLIC}, str(asked.headers["X-Forwarded-Proto"])),
    )
    cache = {"locations": ["/api", "/"], "key_path": key_path}
    with serving(
        tmp_path,
        nginx_program,
        certificate,
        upstream,
        NEWER,
        {"cache": cache},
        nginx_trusted_proxies=["127.0.0.1"],
    ) as made:
        for path in ("/", "/api"):
            for scheme in ("http", "https", "http", "https"):
                said = {"X-Forwarded-Proto": scheme, "X-Forwarded-For": "192.0.2.7"}
                assert made.ask(path, said).body == scheme
        assert made.paths() == ["/", "/", "/api", "/api"]


def test_a_range_of_what_is_kept_is_the_applications(site: Serving) -> None:
    """Part of an answer must not stand for the whole."""
    site.upstream.answer = lambda asked: (
        (206, {"Cache-Control": PUBLIC, "Content-Range": "bytes 0-3/8"}, "answ")
        if asked.headers["Range"]
        else (200, {"Cache-Control": PUBLIC}, "answer 1")
    )
    for _ in range(2):
        assert site.ask("/api/x", {"Range": "bytes=0-3"}).status == 206
        assert site.ask("/api/x").body == "answer 1"


def test_who_has_it_is_told_so(site: Serving) -> None:
    """nginx compares the tags itself: the application gives the cache the whole answer."""
    answers(site, {"Cache-Control": PUBLIC, "ETag": '"1"'})
    condition = {"If-None-Match": '"1"'}
    assert [site.ask("/api/x", condition).status for _ in range(2)] == [304, 304]
    assert site.ask("/api/x", {"If-None-Match": '"2"'}).body == "answer 1"
    assert [asked.headers["If-None-Match"] for asked in site.upstream.asked] == [None]


def test_the_applications_headers_stand_in_what_is_kept(site: Serving) -> None:
    own = {"X-Frame-Options": "SAMEORIGIN", "Content-Security-Policy": "default-src 'none'"}
    answers(site, {"Cache-Control": PUBLIC, **own})
    for _ in range(2):
        headers = site.ask("/api/x").headers
        assert {name: headers[name.lower()] for name in own} == own
        assert headers["referrer-policy"] == "strict-origin-when-cross-origin"
    ids = {site.ask("/api/x").headers["x-request-id"] for _ in range(2)}
    assert len(ids) == 2
    assert [line["cache"] for line in site.log()] == ["MISS", "HIT", "HIT", "HIT"]


def test_one_request_fills_it(site: Serving) -> None:
    """Otherwise all who come while it is empty ask the application at once."""
    arrived = threading.Event()

    def slow(_: Asked) -> tuple[int, dict[str, str], str]:
        # Until all others are there.
        arrived.wait(10)
        return 200, {"Cache-Control": PUBLIC}, "answer"

    site.upstream.answer = slow
    with ThreadPoolExecutor(40) as pool:
        waiting = [pool.submit(site.ask, "/api/x") for _ in range(40)]
        time.sleep(0.3)
        arrived.set()
        got = [each.result() for each in waiting]
    assert [each.body for each in got] == ["answer"] * 40
    assert site.paths() == ["/api/x"]


def wait_until(site: Serving, number: int) -> None:
    """Wait until the application was asked so often."""
    end = time.monotonic() + 10
    while len(site.paths()) < number and time.monotonic() < end:
        time.sleep(0.02)
    assert len(site.paths()) == number


def expire() -> None:
    """Wait until what is kept for a second is kept no more; nginx counts whole seconds."""
    time.sleep(2.1)


def test_nobody_waits_for_a_refresh(site: Serving) -> None:
    answers(site, {"Cache-Control": "public, s-maxage=1, stale-while-revalidate=60"})
    assert site.ask("/api/x").body == "answer 1"
    expire()
    held = threading.Event()
    site.upstream.answer = lambda _: (
        held.wait(10),
        (200, {"Cache-Control": PUBLIC}, "answer 2"),
    )[1]
    stale = [site.ask("/api/x") for _ in range(5)]
    assert [each.body for each in stale] == ["answer 1"] * 5
    assert {each.cache for each in stale} == {"nginx; hit; detail=stale"}
    held.set()
    wait_until(site, 2)
    end = time.monotonic() + 10
    while site.ask("/api/x").body != "answer 2" and time.monotonic() < end:
        time.sleep(0.05)
    assert site.ask("/api/x").cache == HIT
    assert len(site.paths()) == 2


@pytest.mark.parametrize("bridged", [True, False])
def test_a_stopped_application(site: Serving, bridged: bool) -> None:
    """What may bridge a failure is for the application to say."""
    longer = {"Expires": "Thu, 31 Dec 2037 23:55:55 GMT", "X-Accel-Expires": "600"}
    bridge = ", stale-if-error=60" * bridged
    answers(site, {"Cache-Control": f"public, s-maxage=1{bridge}", **longer})
    assert site.ask("/api/x").body == "answer 1"
    site.upstream.stop()
    expire()
    got = [site.ask("/api/x") for _ in range(2)]
    assert [each.status for each in got] == [200 if bridged else 502] * 2
    if bridged:
        assert [each.body for each in got] == ["answer 1"] * 2
        assert got[0].cache == "nginx; fwd=stale; detail=stale-if-error"
    # What nobody has asked for before, nobody has.
    assert site.ask("/api/y").status == 502
    site.upstream.start()
    answers(site, {"Cache-Control": PUBLIC})
    assert site.ask("/api/x").body == "answer 2"


def test_nothing_of_another_release_is_served(site: Serving) -> None:
    assert two(site) == [MISS, HIT]
    move(site)
    assert two(site) == [MISS, HIT]
    # What was under way belongs to the release that was live when it came.
    arrived, moved = threading.Event(), threading.Event()

    def slow(_: Asked) -> tuple[int, dict[str, str], str]:
        arrived.set()
        moved.wait(10)
        return 200, {"Cache-Control": PUBLIC}, "of the other"

    site.upstream.answer = slow
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(site.ask, "/api/late")
        assert arrived.wait(10)
        move(site)
        moved.set()
        assert late.result().body == "of the other"
    answers(site, {"Cache-Control": PUBLIC})
    assert site.ask("/api/late").body == "answer 4"


def test_what_is_kept_is_the_workers_alone(site: Serving) -> None:
    assert two(site, "/api/file") == [MISS, HIT]
    directory = site.directory / "cache/answers"
    assert directory.stat().st_mode & 0o777 == 0o700
    release = os.path.realpath(site.directory / "current")
    key = f"KEY: {release} http://plain.example.org/api/file\n".encode()
    assert sum(key in path.read_bytes() for path in directory.rglob("*") if path.is_file()) == 1
