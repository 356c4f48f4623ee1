"""Server addresses from settings: cleaned, checked and formatted in one place.

Law: an address is checked when it is read, before a task is created with it. Environment files and copied texts often
add blanks, line ends and quotes. These are removed at both ends and refused inside.
"""

import re
from ipaddress import ip_address
from urllib.parse import urlsplit

_SCHEMES = frozenset({"http", "https"})
_HOST = re.compile(r"[\w.~%-]+", re.ASCII)
_USER = re.compile(r"^([^/@]*://)?.*@", re.DOTALL)
_USERS = re.compile(r"[^\s\"']*@")
_QUOTES = "\"'"


def cleaned(text: str) -> str:
    """Return the text without blanks and line ends at its ends, and without the quotes around it."""
    text = text.strip()
    while len(text) > 1 and text[0] in _QUOTES and text[-1] == text[0]:
        text = text[1:-1].strip()
    return text


def http_address(text: str, *, credentials: bool = False) -> str:
    """Return the address of a server, cleaned and checked.

    Args:
        text: The address as the user wrote it.
        credentials: Whether it may contain a user name and a password, as in http://user:password@host.

    Raises:
        ValueError: it is not an address. The error shows no user name and no password. It shows nothing of a text that
            does not begin like an address, because that may be a secret that was put in the wrong place.
    """
    text = cleaned(text)
    scheme, _, rest = text.partition("://")
    if scheme.lower() not in _SCHEMES or not rest:
        raise ValueError("write the address with http:// or https://, for instance http://localhost:3001")
    problem = _problem(text, rest, credentials=credentials)
    if problem is not None:
        raise ValueError(f"{without_user(text)!r} is not a usable address: {problem}")
    return f"{scheme.lower()}://{rest}"


def _problem(text: str, rest: str, *, credentials: bool) -> str | None:
    if any(character.isspace() or not character.isprintable() for character in text):
        return "remove the blank, line end or control character inside it"
    place = rest.partition("/")[0].rpartition("@")[2]
    if place.count(":") > 1 and "[" not in place:
        return "write an IPv6 address in brackets, for instance http://[::1]:3001"
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as malformed:
        return f"{malformed}: write host and port as in http://localhost:3001 or http://[::1]:3001"
    if not host or port == 0 or not ("[" in place or _is_host(host)):
        return "write host and port as in http://localhost:3001"
    if parts.username is not None and not credentials:
        return "remove user name and password: they would be sent in place of the token"
    if "?" in rest or "#" in rest:
        return "remove what follows ? or #"
    return None


def _is_host(host: str) -> bool:
    if host.isascii():
        return _HOST.fullmatch(host) is not None
    try:
        host.encode("idna")
    except UnicodeError:
        return False
    return True


def without_user(url: str) -> str:
    """Return an address with *** in place of user name and password, even if it is malformed."""
    return _USER.sub(r"\1***@", url)


def without_users(text: str) -> str:
    """Return a text with *** in place of everything before an @ in one word, for errors that quote an address."""
    return _USERS.sub("***@", text)


def in_brackets(host: str) -> str:
    """Return a host as it is written in an address: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def is_loopback(host: str | None) -> bool:
    """Whether this host is an address of this machine, as a number. The name `localhost` is none."""
    try:
        return ip_address(host or "").is_loopback
    except ValueError:
        return False


def is_on_this_machine(url: str) -> bool:
    """Whether the host of this address is `localhost` or a loopback address."""
    host = urlsplit(url).hostname
    return host == "localhost" or is_loopback(host)


def is_same_place(url: str, other: str) -> bool:
    """Whether two spellings of an address of this machine are the same address."""
    one, two = (cleaned(each).rstrip("/").replace("//localhost", "//127.0.0.1") for each in (url, other))
    return one == two
