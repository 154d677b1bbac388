"""The service: galleries and their encoders behind a page and an API, for users with roles.

``service`` does what can be asked for, whoever asks and by whichever way; ``app`` puts it behind addresses.
"""

from __future__ import annotations

from importlib.util import find_spec

from reidkit.errors import MissingExtra


def check_installed() -> None:
    """Raise :class:`MissingExtra` where a package of the service is not installed."""
    for package in ("fastapi", "uvicorn", "python_multipart", "argon2", "prometheus_client"):
        if find_spec(package) is None:
            raise MissingExtra(package, extra="web", needed_for="serving galleries")
