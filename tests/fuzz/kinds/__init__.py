"""The kinds of cases, one subject a file; importing this registers them."""

from tests.fuzz.kinds import (  # noqa: F401
    configurations,
    encoders,
    features,
    galleries,
    labels,
    matlab,
    names,
    networks,
    pictures,
    planted,
    runs,
    tables,
    videos,
)
