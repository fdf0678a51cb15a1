"""Addresses in messages have no login."""

from __future__ import annotations

import pytest
from ansible_collections.wsgi.host.plugins.plugin_utils.addresses import without_login
from ansible_collections.wsgi.host.plugins.plugin_utils.variables import SHOWN, shown

HOST = "git.example.com"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f"https://deploy:S3CRET@{HOST}/shop.git", f"https://{HOST}/shop.git"),
        (f"https://S3CRET@{HOST}/shop.git", f"https://{HOST}/shop.git"),
        (f"https://deploy:S3@CRET@{HOST}/shop.git", f"https://{HOST}/shop.git"),
        (f"https://deploy:S3/CR@ET@{HOST}/a@b", f"https://{HOST}/a@b"),
        (f"lib @ git+https://tok:S3CRET@{HOST}/lib.git@v1", f"lib @ git+https://{HOST}/lib.git@v1"),
        (f"a://u:S3CRET@{HOST}, b://S3CRET@{HOST}", f"a://{HOST}, b://{HOST}"),
    ],
)
def test_whom_somebody_logs_in_as_is_left_out(text: str, left: str) -> None:
    assert without_login(text) == left


@pytest.mark.parametrize(
    "text", [f"git+https://{HOST}:8443/lib@v1", f"https://{HOST}/a:b@c", "anna@desk", "a @ b"]
)
def test_what_is_no_login_stays(text: str) -> None:
    assert without_login(text) == text


def test_a_value_is_cut_after_its_login_is_left_out() -> None:
    """The half of a password that was left had no @ behind it any more."""
    told = f"https://deploy:{'S3CRET' * SHOWN}@{HOST}/shop.git"
    assert shown(told) == f'"https://{HOST}/shop.git"'
