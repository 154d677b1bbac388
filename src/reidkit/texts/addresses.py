"""Addresses on networks, and how they are told without what is secret in them."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

_BEGINNING = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://")
_USER = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*://)[^\s'\"]*@")


def is_address(text: object) -> bool:
    """Whether it begins as ``rtsp://`` does.

    >>> is_address("RTSP://10.0.0.7/live"), is_address("videos/door.mp4")
    (True, False)
    """
    return isinstance(text, str) and _BEGINNING.match(text) is not None


def shown_address(address: str) -> str:
    """The machine that an address leads to. Cameras take passwords in every other part.

    >>> shown_address("rtsp://admin:secret@10.0.0.7:554/user=admin_password=secret?token=secret")
    'rtsp://10.0.0.7:554/...'
    >>> shown_address("rtsp://admin:not/escaped@10.0.0.7")
    'rtsp://...'
    """
    scheme, _, rest = address.partition("://")
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    beyond = rest[len(parts.netloc) :] if host else ""
    if not host or "@" in beyond:  # then what looks like the machine is the beginning of a password
        return f"{scheme.lower()}://..."
    machine = f"[{host}]" if ":" in host else host
    return f"{scheme.lower()}://{machine}{'' if port is None else f':{port}'}{'/...' if beyond else ''}"


def without_passwords(text: str) -> str:
    """A text in which addresses have lost their users and passwords.

    >>> without_passwords("reid track rtsp://admin:secret@10.0.0.7/live")
    'reid track rtsp://...@10.0.0.7/live'
    """
    return _USER.sub(r"\1...@", text)
