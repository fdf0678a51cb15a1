"""A browser without scripts, as far as these tests need one."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

from flask import Flask
from werkzeug.test import TestResponse

PASSWORD = "four words and some"
ORIGIN = "https://toll.example"


class Fields(HTMLParser):
    """The hidden fields of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.hidden: dict[str, str] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep a hidden field."""
        attributes = dict(attrs)
        if tag == "input" and attributes.get("type") == "hidden":
            self.hidden[str(attributes["name"])] = attributes.get("value") or ""


class Visitor:
    """Somebody with cookies, over HTTPS: in production they are sent over nothing else."""

    def __init__(self, app: Flask, address: str = "192.0.2.1") -> None:
        self.client = app.test_client()
        self.address = address

    def _options(self) -> dict[str, Any]:
        return {
            "base_url": ORIGIN,
            # Static files would stay open.
            "buffered": True,
            "environ_overrides": {"REMOTE_ADDR": self.address},
            # What browsers send along with a form, and Flask-WTF looks at.
            "headers": {"Referer": f"{ORIGIN}/"},
        }

    def get(self, path: str, **query: str) -> TestResponse:
        """Open a page."""
        return self.client.get(path, query_string=query or None, **self._options())

    def hidden(self, path: str) -> dict[str, str]:
        """Return the hidden fields of a page's last form: the first is the button to log out."""
        return Fields(self.get(path).text).hidden

    def post(self, path: str, data: dict[str, Any]) -> TestResponse:
        """Send exactly these fields."""
        return self.client.post(path, data=data, **self._options())

    def send(self, path: str, **fields: Any) -> TestResponse:
        """Open the page with the form, fill it in and send it."""
        return self.post(path, self.hidden(path) | fields)

    def log_in(self, name: str, password: str = PASSWORD, **fields: str) -> TestResponse:
        """Log in by the form."""
        return self.send("/login", name=name, password=password, **fields)

    def cookie(self) -> str | None:
        """Return the session's cookie."""
        found = self.client.get_cookie("__Host-toll", domain="toll.example")
        return found.value if found else None


def alert(response: TestResponse) -> str:
    """Return the words of what a page says is wrong."""
    found = re.search(r'role="alert">(.*?)</div>', response.text, re.S)
    return " ".join(re.sub(r"<[^>]*>", " ", found[1]).split()) if found else ""
