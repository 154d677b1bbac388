"""What `reid serve users` says: a token a row, and a remark on galleries that nobody has heard of."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from reidkit.cli import cli
from reidkit.web.roles import Role
from reidkit.web.users import Users


@pytest.fixture
def users(tmp_path: Path) -> Users:
    users = Users(tmp_path / "users.sqlite")
    users.add("anna", password=None, role=Role.reviewer, galleries=("people",))
    return users


def said(tmp_path: Path, *words: str) -> str:
    result = CliRunner().invoke(cli, ["serve", "users", *words, "--folder", str(tmp_path)])
    assert result.exit_code == 0, result.output
    return result.output


def test_each_token_has_a_row_that_says_whether_it_is_good(users: Users, tmp_path: Path) -> None:
    users.make_token("anna", label="door", days=1e-9)
    users.make_token("anna", label="yard", days=30)
    door, yard = (line for line in said(tmp_path, "list").splitlines() if "door" in line or "yard" in line)
    assert door.startswith("anna")
    assert "reviewer in people" in door
    assert "expired" in door
    assert "expired" not in yard


def test_a_gallery_that_nobody_has_heard_of_is_remarked(users: Users, tmp_path: Path) -> None:
    assert "did you mean 'people'" in said(tmp_path, "add", "ben", "--no-password", "--gallery", "peeple")
    assert "is known here" not in said(tmp_path, "add", "cleo", "--no-password", "--gallery", "people")
