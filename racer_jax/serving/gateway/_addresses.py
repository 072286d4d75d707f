"""Addresses of upstreams: what a server may call, and where it may listen."""

import ipaddress
from functools import lru_cache
from urllib.parse import urlsplit

# Services that hand out credentials to whoever asks from inside a machine.
_METADATA = frozenset({"metadata", "metadata.google.internal", "instance-data"})


def _number(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that a host is written as, None for a name."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return address if mapped is None else mapped


@lru_cache(maxsize=256)  # asked for the header `host` of every request
def is_loopback(host: str) -> bool:
    """Whether a host can be reached from this machine alone."""
    address = _number(host)
    return host == "localhost" if address is None else address.is_loopback


def may_be_called(host: str) -> bool:
    """Whether a host is none that link-local services, or metadata of a cloud, answer at."""
    address = _number(host)
    if address is None:
        return host.rstrip(".").lower() not in _METADATA and not _looks_like_a_number(host)
    return not (
        address.is_link_local
        or address.is_multicast
        or address.is_unspecified
        or str(address) in ("100.100.100.200", "192.0.0.192", "fd00:ec2::254")
    )


def _looks_like_a_number(host: str) -> bool:
    """Whether a resolver may read a host as an address in another spelling, `0xa9fea9fe` say."""
    return all(
        part.isdigit() or part.lower().startswith("0x") for part in host.rstrip(".").split(".")
    )


def checked_url(url: str, insecure: bool) -> str:
    """The address of an upstream without a slash at its end.

    Args:
      url: Such as `https://api.openai.com/v1`.
      insecure: Whether plain HTTP to another machine is allowed.

    Raises:
      ValueError: If it is no such address, or must not be called.
    """
    if any(character.isspace() or not character.isprintable() for character in url):
        raise ValueError(f"must hold no white space or other invisible character, got {url!r:.80}")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
        (host or "").encode("idna")
    except ValueError as error:
        raise ValueError(f"must be an address such as https://host/v1: {error}") from None
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError("must be an address such as https://host/v1")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("must hold no user, query or fragment; a key belongs to api_key")
    if not may_be_called(host):
        raise ValueError(f"must not be of a link-local or metadata service, got {host!r}")
    if parts.scheme == "http" and not insecure and not is_loopback(host):
        raise ValueError("must be https, or say insecure = true to send keys and prompts in clear")
    return url.rstrip("/")
