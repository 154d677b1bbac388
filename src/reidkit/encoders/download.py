"""Files of weights by their address: downloaded once and kept."""

from __future__ import annotations

import hashlib
import http.client
import urllib.error
import urllib.request
from pathlib import Path, PurePosixPath
from urllib.parse import SplitResult, urlsplit

from reidkit import logs
from reidkit.errors import DataError, shortened
from reidkit.files import user_cache, write_atomically

logger = logs.get_logger(__name__)

_TIMEOUT = 60  # seconds without an answer


def locate(source: str | Path) -> Path:
    """The file at a path or, downloaded once and kept, at an ``https`` address.

    Downloads go to ``reidkit/weights`` in ``$XDG_CACHE_HOME`` or ``~/.cache``.

    Raises:
        DataError: an address that cannot be read, or is not ``https`` (``http`` is read from this machine).
    """
    if "://" not in str(source):
        return Path(source)
    url = str(source)
    name = PurePosixPath(_checked(url).path).name
    path = (
        user_cache("weights")
        / hashlib.sha256(url.encode()).hexdigest()[:12]
        / (name if name.strip(".") else "file")
    )
    if path.is_file():
        logger.info(f"{url}: already at {path}")
        return path
    content = _download(url)
    write_atomically(path, content)
    logger.info(f"{url}: {len(content) / 1e6:.1f} MB, kept at {path}")
    return path


def _download(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as answer:
            _checked(answer.url)  # it may have been sent on to another one
            content: bytes = answer.read()
    except http.client.IncompleteRead as error:
        whole = len(error.partial) + (error.expected or 0)
        raise DataError(
            f"{url} broke off after {len(error.partial):,} bytes of {whole:,}; try again"
        ) from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise DataError(f"{url} cannot be read: {getattr(error, 'reason', error)}") from error
    if content.lstrip()[:1] == b"<":
        raise DataError(
            f"{url} is a web page, not a file of weights; open it in a browser, download the file, and give "
            "its path"
        )
    return content


def _checked(url: str) -> SplitResult:
    """The parts of an address, checked to be one that is read."""
    try:
        parts = urlsplit(url)
        here = parts.hostname in ("localhost", "127.0.0.1", "::1")
    except ValueError as error:
        raise DataError(f"{shortened(url, 200)} is no address: {error}") from None
    if parts.scheme != "https" and not (parts.scheme == "http" and here):
        raise DataError(
            f"{shortened(url, 200)}: only https addresses are read, so that nobody can change the file on "
            "its way; download it yourself and give its path"
        )
    return parts
