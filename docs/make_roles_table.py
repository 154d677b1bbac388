"""Ask a service everything, as everybody, and write what it answers into the page on security.

python docs/make_roles_table.py
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.web.endpoints import expected, seen, table  # noqa: E402
from tests.web.serving import add_users, make_world, running, settings_of  # noqa: E402

PAGE = ROOT / "docs" / "explain" / "security_roles.md"
HEAD = """# Who may do what in a service

A request to each endpoint, made by each role, in a gallery where that role is held and in one where none is.
The numbers are the statuses of the answers: 200 done, 401 log in first, 403 not with this role, 404 as if
there were no such gallery. Written by `python docs/make_roles_table.py`; a test asks again, and compares.

"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        settings = settings_of(make_world(Path(folder)))
        tokens = add_users(settings)
        with running(settings) as client:
            found = seen(client, tokens)
    if found != expected():
        sys.exit("some answers are not as they should be; run tests/web/test_roles.py")
    PAGE.write_text(HEAD + table(found))


if __name__ == "__main__":
    main()
