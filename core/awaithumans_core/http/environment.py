"""Settings that HTTP clients read from the environment: proxies and certificates, with errors that name the variable.

Law: an error of the environment names its variable and value. httpx reads the variables when a client is created, also
for addresses that need neither a proxy nor a certificate, and its own errors name none of them.
"""

import ipaddress
import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

from awaithumans_core.errors import SettingsError
from awaithumans_core.flow import Proxy
from awaithumans_core.http.addresses import without_user

_KEY_LOG = "SSLKEYLOGFILE"
"""Python's ssl module opens this file for every client, for those who debug TLS."""
_SOCKS = frozenset({"socks5", "socks5h"})
_SCHEMES = frozenset({"http", "https"}) | _SOCKS


def check_proxies() -> None:
    """Check the variables from which a client takes its proxies.

    Raises:
        SettingsError: a proxy is malformed or needs a package that is not installed, or NO_PROXY cannot be parsed.
    """
    known = getproxies()
    for scheme in ("http", "https", "all"):
        if (value := known.get(scheme)) and (problem := _proxy_problem(value)) is not None:
            raise SettingsError(f"{_variable(scheme)} is {without_user(value)!r}: {problem}")
    for entry in _not_proxied(known):
        if not _is_pattern(entry):
            raise SettingsError(
                f"{_variable('no')} is {known['no']!r}, and {entry!r} in it cannot be parsed: write host names and "
                "addresses with commas between them. An IPv6 address has no brackets, port or range"
            )


@contextmanager
def certificate_errors() -> Generator[None]:
    """Report which variable is wrong when certificates cannot be read while a client is created.

    Raises:
        SettingsError: the file is missing or malformed.
    """
    try:
        yield
    except OSError as unreadable:  # OpenSSL's errors are of this kind, too
        raise SettingsError(_certificate_problem(unreadable)) from None


def missing_certificates() -> str | None:
    """What is wrong with SSL_CERT_DIR. OpenSSL does not report it, and trusts no certificate."""
    named = os.environ.get("SSL_CERT_DIR")
    if not named or os.environ.get("SSL_CERT_FILE") or any(Path(part).is_dir() for part in named.split(os.pathsep)):
        return None
    return (
        f"SSL_CERT_DIR is {named!r}: there is no such directory. Correct it, or unset it to use the usual authorities"
    )


def proxy_for(url: str) -> Proxy | None:
    """The proxy through which a request to this address is sent."""
    parts, known = urlsplit(url), getproxies()
    scheme = parts.scheme if known.get(parts.scheme) else "all"
    host = parts.hostname or ""
    if not (value := known.get(scheme)) or proxy_bypass(host) or proxy_bypass(f"{host}:{parts.port}"):
        return None
    return Proxy(_variable(scheme), without_user(_with_scheme(value)), host)


def _with_scheme(value: str) -> str:
    return value if "://" in value else f"http://{value}"


def _proxy_problem(value: str) -> str | None:
    try:
        url = httpx.URL(_with_scheme(value))
    except (httpx.InvalidURL, ValueError):  # its text may quote a part of the password
        return "it is malformed. Write it as http://host:port; in a password write @ as %40, / as %2F, # as %23"
    if url.scheme not in _SCHEMES or not url.host or "%20" in url.host or (url.port or 1) > 65535:
        return "it is malformed. Write it as http://host:port"
    if url.scheme in _SOCKS and find_spec("socksio") is None:
        return "a SOCKS proxy needs another package. Install it: pip install 'httpx[socks]', or unset the variable"
    return None


def _not_proxied(known: Mapping[str, str]) -> list[str]:
    entries = [entry.strip() for entry in known.get("no", "").split(",") if entry.strip()]
    return [] if "*" in entries else entries


def _is_pattern(entry: str) -> bool:
    """Whether httpx can read this entry of NO_PROXY; written as httpx reads it."""
    try:
        httpx.URL(entry if "://" in entry else f"all://[{entry}]" if _is_ipv6(entry) else f"all://*{entry}")
    except (httpx.InvalidURL, ValueError):
        return False
    return True


def _is_ipv6(entry: str) -> bool:
    try:
        ipaddress.IPv6Address(entry)
    except ValueError:
        return False
    return True


def _variable(scheme: str) -> str:
    """The variable that names the proxy of this scheme. One in lower case wins."""
    wanted = f"{scheme}_proxy"
    names = sorted((name for name in os.environ if name.lower() == wanted and os.environ[name]), reverse=True)
    return names[0] if names else f"{wanted.upper()} (here: from the settings of the operating system)"


def _certificate_problem(unreadable: OSError) -> str:
    reason = unreadable.strerror or str(unreadable)
    if unreadable.filename is not None and unreadable.filename == os.environ.get(_KEY_LOG):
        return f"{_KEY_LOG} is {unreadable.filename!r}, which cannot be written ({reason}): correct it, or unset it"
    if file := os.environ.get("SSL_CERT_FILE"):
        return (
            f"SSL_CERT_FILE is {file!r}, which cannot be read ({reason}): set it to a file of certificates in PEM, or "
            "unset it to use the usual authorities"
        )
    return f"the certificates of the usual authorities cannot be read ({reason}): set SSL_CERT_FILE to a file of them"
