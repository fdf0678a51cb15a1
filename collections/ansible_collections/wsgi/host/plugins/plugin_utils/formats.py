"""What a text or number must look like, and what to do when it does not.

Each check takes a value and returns None if it is right, or what is wrong with it: a clause such as
"starts with a scheme" that ends a sentence about the variable, and a remedy in the imperative.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from . import calendar_events

LABEL_LIMIT = 63  # octets, RFC 1035 section 2.3.4
DOMAIN_LIMIT = 253  # characters without the root's dot: RFC 1035's 255 octets on the wire
NAME_LIMIT = 64  # characters; a unit's name with its suffix must stay below systemd's 255

LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", re.IGNORECASE)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
EMAIL_LOCAL = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+")  # without quoting, as RFC 5321 allows


PASSWORD_LENGTH = 12  # characters
KEY_LENGTH = 32  # characters
DISTINCT = 6  # different characters; 16 random hexadecimal digits have fewer once in 100,000
PLACEHOLDERS = frozenset({"password", "changeme", "change-me", "change_me", "secret", "..."})


class Fault(NamedTuple):
    """What is wrong with a value, and what to do."""

    problem: str
    remedy: str


Check = Callable[[object], "Fault | None"]

DOMAIN_REMEDY = "write a name such as app.example.com"
HASH_REMEDY = "make it with `openssl passwd -6`"
ENDPOINT_REMEDY = "write 127.0.0.1:5000, [::1]:5000 or unix:/run/name.sock"


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def domain(value: object, *, wildcard: bool = False) -> Fault | None:
    """A host name as DNS and certificates take it (RFC 1123), `*.` in front only if asked for."""
    text = _text(value)
    if text is None:
        return Fault("is not a domain", DOMAIN_REMEDY)
    if wildcard:
        text = text.removeprefix("*.")
    if not text:
        return Fault("is empty", DOMAIN_REMEDY)
    if "://" in text:
        return Fault("starts with a scheme", "write the name alone, without https:// and path")
    if "/" in text:
        return Fault("has a path", "write the name alone, without / and what follows")
    if re.search(r"\s", text):
        return Fault("has a blank", "write one name per item of the list")
    if "*" in text:
        return Fault(
            "has a wildcard",
            "write *. in front of a name, and nowhere else"
            if wildcard
            else "list each name by itself",
        )
    if _is_address(text):
        return Fault("is an IP address", "write the name that leads to it")
    if ":" in text:
        return Fault("has a port", "write the name alone, without : and the port")
    if text.endswith("."):
        return Fault("ends with a dot", "leave the dot off")
    if not text.isascii():
        return Fault("has letters that DNS does not know", _punycode(text))
    if "_" in text:
        return Fault("has an underscore", "use hyphens; a host's name has no underscore")
    if len(text) > DOMAIN_LIMIT:
        return Fault(f"has {len(text)} characters", f"use a name of at most {DOMAIN_LIMIT}")
    labels = text.split(".")
    for label in labels:
        if not label:
            return Fault("has two dots in a row, or one in front", DOMAIN_REMEDY)
        if len(label) > LABEL_LIMIT:
            return Fault(
                f"has a part of {len(label)} characters",
                f"use at most {LABEL_LIMIT} between two dots",
            )
        if not LABEL.fullmatch(label):
            return Fault(
                f'has the part "{label}"',
                "use letters, digits and, between them, hyphens in each part",
            )
    if labels[-1].isdigit():
        return Fault("ends with a number", DOMAIN_REMEDY)
    if text.lower() in ("localhost", "localhost.localdomain"):
        return Fault("is every host's name for itself", "write the name that clients use")
    return None


def wildcard_domain(value: object) -> Fault | None:
    """A domain, or `*.` and a domain."""
    return domain(value, wildcard=True)


def subject(value: object) -> Fault | None:
    """What a certificate can be for: a domain, `*.` and a domain, or an IP address."""
    text = _text(value)
    if text is None or not _is_address(text) or text.startswith("["):
        return domain(value, wildcard=True)
    short = str(ipaddress.ip_address(text))
    return None if text == short else Fault("is an address in another form", f"write {short}")


def _punycode(text: str) -> str:
    """Remedy for an internationalised name."""
    try:
        encoded = text.encode("idna").decode()
    except UnicodeError:
        return "write it in punycode, with xn-- in front of each such part"
    return f"write it in punycode: {encoded}"


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def address(value: object) -> Fault | None:
    """An IPv4 or IPv6 address, without brackets."""
    text = _text(value)
    try:
        if text is None:
            raise ValueError
        ipaddress.ip_address(text)
    except ValueError:
        return Fault("is not an IP address", "write one such as 192.0.2.10 or 2001:db8::10")
    return None


def port(value: object) -> Fault | None:
    """A TCP port, as a number or as its digits."""
    if isinstance(value, str) and re.fullmatch(r"\d{1,5}", value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 65535:
        return Fault("is not a port", "set it to a port number between 1 and 65535")
    return None


def endpoint(value: object) -> Fault | None:
    """Where something listens: `ip:port`, `[ip]:port` or `unix:/path`."""
    text = _text(value)
    if text is None:
        return Fault("is not an address with a port", ENDPOINT_REMEDY)
    if text.startswith("unix:"):
        fault = absolute_path(text.removeprefix("unix:"))
        return fault and Fault(f"names a socket that {fault.problem}", ENDPOINT_REMEDY)
    match = re.fullmatch(r"(?:\[(?P<six>[^\]]+)\]|(?P<four>[^:\[\]]*)):(?P<port>\d+)", text)
    if not match:
        return Fault("is not an address with a port", ENDPOINT_REMEDY)
    host = match["six"] or match["four"]
    if address(host) or (":" in host) != bool(match["six"]):
        return Fault(f'has "{host}" where an IP address is needed', ENDPOINT_REMEDY)
    fault = port(match["port"])
    return fault and Fault(f"has {match['port']} for a port", "use a port between 1 and 65535")


def absolute_path(value: object) -> Fault | None:
    """An absolute path on the host, without `..` and what configuration files read as syntax."""
    remedy = "write the whole path, such as /var/lib/name"
    text = _text(value)
    if text is None or not text.startswith("/"):
        return Fault("is not an absolute path", remedy)
    if re.search(r"[\s\x00-\x1f\"';{}$\\]", text):
        return Fault(
            "has a character that configuration files give a meaning to",
            "use a path without blanks, quotation marks, ;, $, \\ and braces",
        )
    if ".." in text.split("/"):
        return Fault("goes up with ..", remedy)
    return None


def local_path(value: object) -> Fault | None:
    """An absolute path on the control node, which no configuration file will hold."""
    text = _text(value)
    if text is None or not text.startswith("/"):
        return Fault("is not an absolute path", "write the whole path, such as /srv/toll-app")
    return None


def name(value: object) -> Fault | None:
    """What files and units can be called."""
    text = _text(value)
    if text is None or not NAME.fullmatch(text):
        return Fault(
            "cannot name a file",
            "use letters, digits, dots, hyphens and underscores, a letter or digit first",
        )
    if len(text) > NAME_LIMIT:
        return Fault(f"has {len(text)} characters", f"use at most {NAME_LIMIT}")
    return None


def email(value: object) -> Fault | None:
    """A mail address, without a person's name around it."""
    remedy = "write one such as ops@example.com"
    text = _text(value)
    if text is None or text.count("@") != 1:
        return Fault("is not a mail address", remedy)
    local, host = text.split("@")
    if not EMAIL_LOCAL.fullmatch(local):
        return Fault("has no user, or a character that none has, before the @", remedy)
    fault = domain(host)
    if fault:
        return Fault(f"has a domain that {fault.problem}", remedy)
    if "." not in host:
        return Fault("has a domain without a dot, to which no mail is delivered", remedy)
    return None


def url(value: object) -> Fault | None:
    """A URL by HTTP or HTTPS."""
    remedy = "write one such as https://acme.example.com/directory"
    text = _text(value)
    if text is None or not re.match(r"https?://", text):
        return Fault("does not start with http:// or https://", remedy)
    if re.search(r"\s", text):
        return Fault("has a blank", remedy)
    try:
        parts = urlsplit(text)
        host, number = parts.hostname, parts.port
    except ValueError:
        return Fault("is not a URL", remedy)
    if not host or number == 0:
        return Fault("names no host, or port 0", remedy)
    fault = None if _is_address(host) or host == "localhost" else domain(host)
    return fault and Fault(f"has a host that {fault.problem}", remedy)


def postgresql_url(value: object) -> Fault | None:
    """Where a PostgreSQL database is. It has a password, so no fault repeats but the scheme."""
    remedy = "write postgresql://user:password@host/database"
    text = _text(value)
    scheme, separator, rest = (text or "").partition("://")
    if not separator:
        return Fault("is not a URL", remedy)
    if scheme == "sqlite":
        return Fault("is a file", "leave it empty for SQLite")
    if scheme not in ("postgresql", "postgres", "postgresql+psycopg"):
        known = re.fullmatch(r"[a-z][a-z0-9+]{0,20}", scheme)
        return Fault(f"starts with {scheme}://" if known else "has no known scheme", remedy)
    if re.search(r"\s", rest):
        return Fault("has a blank or a line break", "leave it out, or write %20 for a blank")
    if re.split(r"[/?]", rest)[0].count("@") > 1 or "#" in rest:
        return Fault(
            "has an @ or a # within the password", "write %40 for @, %23 for #, and %2F for /"
        )
    try:
        parts = urlsplit(text or "")
        number = parts.port
    except ValueError:
        number = 0
    if number == 0:
        return Fault(
            "has a port that is none",
            "use a port between 1 and 65535; write %2F for a / within the password",
        )
    if not parts.path.strip("/"):
        return Fault("names no database", remedy)
    if unquote(parts.password or "").strip("<>{}").lower() in PLACEHOLDERS:
        return Fault("has the placeholder of an example as its password", "write the real one")
    return None


def line(value: object) -> Fault | None:
    """One line of text without control characters; a number counts as its digits."""
    if isinstance(value, int) and not isinstance(value, bool):
        return None
    text = _text(value)
    if text is None:
        return Fault("is not text", "put it in quotation marks")
    if not text.isprintable():
        return Fault("has a line break or another control character", "write it in one line")
    return None


def _weak(text: str) -> Fault | None:
    """What makes a secret easy to guess, however long it is."""
    if not text.isprintable():
        return Fault("has several lines or a control character", "use one line")
    if text != text.strip():
        return Fault("begins or ends with a blank", "remove the blank")
    if len(set(text)) < DISTINCT:
        return Fault(f"is made of fewer than {DISTINCT} different characters", "make one at random")
    return None


def password(value: object) -> Fault | None:
    """A password that people log in with."""
    text = _text(value)
    if text is None:
        return Fault("is not text", "put it in quotation marks")
    if len(text) < PASSWORD_LENGTH:
        return Fault(f"is shorter than {PASSWORD_LENGTH} characters", "use a longer one")
    return _weak(text)


def secret_key(value: object) -> Fault | None:
    """A key that programs sign with."""
    text = _text(value)
    remedy = """make one with `python3 -c "import secrets; print(secrets.token_hex(32))"`"""
    if text is None:
        return Fault("is not text", "put it in quotation marks")
    if len(text) < KEY_LENGTH:
        return Fault(f"is shorter than {KEY_LENGTH} characters", remedy)
    fault = _weak(text)
    return fault and Fault(fault.problem, remedy)


def body_size(value: object) -> Fault | None:
    """A size as nginx reads it: bytes, or KiB or MiB."""
    if re.fullmatch(r"[1-9]\d{0,11}[kKmM]?", str(value)) and not isinstance(value, (bool, float)):
        return None
    return Fault("is not a size", "write a number of bytes, or one with k or m, such as 512k or 8m")


def systemd_size(value: object) -> Fault | None:
    """A size as systemd reads it: bytes, or with K, M, G or T."""
    if re.fullmatch(r"[1-9]\d{0,14}[KMGT]?", str(value)) and not isinstance(value, (bool, float)):
        return None
    return Fault("is not a size", "write it as 500M or 2G")


def url_path(value: object) -> Fault | None:
    """The path of a URL."""
    text = _text(value)
    if text is not None and re.fullmatch(r"/[!-~]*", text):
        return None
    return Fault("is not a path that can be asked for", "begin it with /, for example /healthz")


def location(value: object) -> Fault | None:
    """The path of a location of nginx, which is not quoted there."""
    text = _text(value)
    if text is not None and re.fullmatch(r"/[A-Za-z0-9._~/+@:,=-]*", text):
        return None
    return Fault(
        "is not a path of letters, digits, /, ., -, _, ~, +, @, :, comma and =",
        "write it such as /api/",
    )


def redirect_target(value: object) -> Fault | None:
    """Where a redirect leads to, without what nginx would read as its own."""
    text = _text(value)
    known = r"(https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?)?(/[A-Za-z0-9._~/+@:,=%&?#!*()-]*)?"
    if text and re.fullmatch(known, text):
        return None
    return Fault(
        "is neither a URL nor a path",
        "write one such as https://www.example.com or /new/, with other characters as %20",
    )


def network(value: object) -> Fault | None:
    """An address, or a network as 192.0.2.0/24."""
    text = _text(value)
    try:
        if text is None:
            raise ValueError
        ipaddress.ip_network(text)
    except ValueError as error:
        if "host bits" in str(error):
            whole = ipaddress.ip_network(text or "", strict=False)
            return Fault("names a host within a network", f"write {whole}")
        return Fault("is neither an IP address nor a network", "write one such as 192.0.2.0/24")
    return None


def address_in_network(value: object) -> Fault | None:
    """An address that a host can have, with the prefix of its network."""
    text = _text(value)
    remedy = "write one such as 192.0.2.20/24 or 2001:db8::20/64"
    try:
        if text is None:
            raise ValueError
        found = ipaddress.ip_interface(text)
    except ValueError:
        return Fault("is not an IP address with the prefix of its network", remedy)
    if "/" not in text:
        return Fault("has no prefix, the length of its network", remedy)
    if not re.fullmatch(r"[0-9]+", text.partition("/")[2]):
        return Fault("has a mask where the length of a prefix is needed", remedy)
    whole = found.network
    ends = {whole.network_address}
    if found.version == 4:
        ends.add(whole.broadcast_address)
    # Networks of one or two addresses have no such ends.
    if whole.num_addresses > 2 and found.ip in ends:
        return Fault(f"is an end of the network {whole}, which no host can have", remedy)
    if found.is_multicast or found.is_loopback or found.is_unspecified:
        return Fault("is no address that others reach a host at", remedy)
    return None


def request_rate(value: object) -> Fault | None:
    """How many requests in a second or a minute, as nginx reads it."""
    if re.fullmatch(r"[1-9][0-9]{0,5}r/[sm]|unlimited", str(value)):
        return None
    return Fault("is not a rate", "write one such as 20r/s or 10r/m, or unlimited")


def header(value: object) -> Fault | None:
    """Name of a header of HTTP, of the characters that nginx takes."""
    text = _text(value)
    if text is not None and re.fullmatch(r"[A-Za-z][A-Za-z0-9-]{0,63}", text):
        return None
    return Fault("is not the name of a header", "write one such as X-Forwarded-For")


def http_user(value: object) -> Fault | None:
    """Name of a user who logs in by HTTP."""
    text = _text(value)
    if text is not None and re.fullmatch(r"[A-Za-z0-9._@+-]{1,64}", text):
        return None
    return Fault("cannot name a user", "use at most 64 letters, digits, dots, hyphens, _, @ and +")


def password_hash(value: object) -> Fault | None:
    """A password's hash as crypt(3) writes it."""
    text = _text(value)
    if text is not None and re.fullmatch(r"\$(apr1|2[aby]|5|6|y)\$[A-Za-z0-9./=,$]{20,200}", text):
        return None
    return Fault("is not a hash that begins with $6$, $5$, $y$, $2y$ or $apr1$", HASH_REMEDY)


def configuration(value: object) -> Fault | None:
    """Lines of a configuration file; the program that reads it says what is wrong with them."""
    text = _text(value)
    if text is not None and all(each.isprintable() or each in "\n\t" for each in text):
        return None
    return Fault("has a control character", "write plain lines")


def sha256(value: object) -> Fault | None:
    """A SHA-256 in hexadecimal."""
    if re.fullmatch(r"[0-9a-f]{64}", str(value)):
        return None
    return Fault("is not a SHA-256", "write its 64 hexadecimal digits in lower case")


def unit(value: object) -> Fault | None:
    """Name of a systemd unit."""
    text = _text(value)
    kinds = "service|socket|target|timer|mount|path|slice|scope|device|swap|automount"
    if text is not None and re.fullmatch(rf"[A-Za-z0-9:_.\\@-]{{1,200}}\.({kinds})", text):
        return None
    return Fault("is not the name of a unit", "write it whole, such as postgresql.service")


def system_name(value: object) -> Fault | None:
    """Name of a user or group of the host."""
    text = _text(value)
    if text is not None and re.fullmatch(r"[a-z_][a-z0-9_-]{0,31}", text):
        return None
    return Fault(
        "cannot name a user or group",
        "use at most 32 lower-case letters, digits, _ and -, a letter or _ first",
    )


def server(value: object) -> Fault | None:
    """A host by name or address, and a port."""
    remedy = "write name:port, such as mail.example.com:587"
    host, _, number = (_text(value) or "").rpartition(":")
    if port(number):
        return Fault("has no port", remedy)
    return host_name(host) and Fault("has no host before the port", remedy)


def host_name(value: object) -> Fault | None:
    """A host by name or address."""
    text = _text(value) or ""
    if _is_address(text) or text == "localhost":
        return None
    return domain(text)


def calendar(value: object) -> Fault | None:
    """Moments as OnCalendar= of systemd.timer(5) takes them."""
    remedy = "write it as systemd.time(7) does, for example hourly or *-*-* 02:30:00"
    try:
        calendar_events.check(_text(value) or "")
    except calendar_events.EventError as error:
        return Fault(error.problem, error.remedy or remedy)
    return None


class Range(NamedTuple):
    """The numbers that a variable may be, both ends included."""

    low: float
    high: float

    @classmethod
    def parse(cls, text: str) -> Range | None:
        """Read `1..60`, None if it is no range."""
        match = re.fullmatch(r"(-?\d+(?:\.\d+)?)\.\.(-?\d+(?:\.\d+)?)", text)
        return cls(float(match[1]), float(match[2])) if match else None

    def __call__(self, value: object) -> Fault | None:
        """Check a number. What is none has failed the test of its type."""
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return None
        if self.low <= value <= self.high:
            return None
        low, high = (f"{end:.12g}" for end in self)
        if not value <= self.high:  # NaN is neither
            problem = f"is more than {high}"
        elif value < 0 <= self.low:
            problem = "is negative"
        else:
            problem = f"is less than {low}"
        return Fault(problem, f"use {low} to {high}")


FORMATS: dict[str, Check] = {
    check.__name__: check
    for check in (
        absolute_path,
        address,
        address_in_network,
        body_size,
        calendar,
        configuration,
        domain,
        email,
        endpoint,
        header,
        host_name,
        http_user,
        line,
        local_path,
        location,
        name,
        network,
        password,
        password_hash,
        port,
        postgresql_url,
        redirect_target,
        request_rate,
        secret_key,
        server,
        sha256,
        subject,
        system_name,
        systemd_size,
        unit,
        url,
        url_path,
        wildcard_domain,
    )
}
