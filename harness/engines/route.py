"""How a service is reached, by the load and by all other requests: proxy, trusted certificates, key."""

from __future__ import annotations

import os
import ssl

from harness.errors import UsageError
from harness.redaction import remember_secret

# Certificates of further authorities: as requests and curl name them. OpenSSL itself heeds SSL_CERT_FILE.
_MORE_AUTHORITIES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_KEY = "HARNESS_API_KEY"
TRUST = "Name the certificate of its authority, or its own: SSL_CERT_FILE=/path/to/ca.pem."


def trusted() -> ssl.SSLContext:
    """Trusts the authorities of this machine, or those of SSL_CERT_FILE and SSL_CERT_DIR in their place, and those of
    REQUESTS_CA_BUNDLE. Raises UsageError for a file that cannot be read.
    """
    context = ssl.create_default_context()
    for name in ("SSL_CERT_FILE", *_MORE_AUTHORITIES):
        path = os.environ.get(name)
        if not path:
            continue
        try:
            context.load_verify_locations(**{"capath" if os.path.isdir(path) else "cafile": path})
        except (OSError, ssl.SSLError) as error:
            found, advice = f"no certificates can be read: {error}", "Name a file of certificates in PEM format."
            raise UsageError(found, where=f"{name}={path}", advice=advice) from error
    return context


def refuse_secrets(url: str) -> None:
    """Raises UsageError, which does not show it, for a URL with a name or password, which would appear in a run's
    manifest and report; and for one with a query, which often is a key, and no route can follow it.
    """
    place = url.partition("://")[2]
    if "@" in place.partition("/")[0]:
        raise UsageError("the URL holds a name or password", advice="Leave it out; HARNESS_API_KEY is sent as a token.")
    if "?" in place or "#" in place:
        advice = "Write http://host:port/path; HARNESS_API_KEY is sent as a token."
        raise UsageError("the URL holds a query, behind which no route can follow", advice=advice)


def refuse_unsendable(key: str, name: str) -> None:
    """Raises UsageError, which does not show it, for a key that no header can carry (RFC 9110, 5.5)."""
    for place, character in enumerate(key, 1):
        if not "!" <= character <= "~":
            what = {"\n": "a line end", "\r": "a line end", " ": "a blank"}.get(character, "a character beyond ASCII")
            raise UsageError(
                f"holds {what} at place {place} of {len(key)}, which no header can carry",
                where=name,
                advice='Set it without, such as by HARNESS_API_KEY="$(cat FILE)".',
            )


def service_key() -> str | None:
    """The key of HARNESS_API_KEY, None without one. Raises UsageError for one that no header can carry."""
    key = os.environ.get(_KEY)
    if key:
        remember_secret(key)
        refuse_unsendable(key, _KEY)
    return key or None


def proxy() -> str | None:
    """URL of the proxy that HARNESS_PROXY names. Those of the environment (HTTP_PROXY) are not heeded: they would be
    measured too.
    """
    return os.environ.get("HARNESS_PROXY") or None
