"""`reid serve users`: what it lists, and what it remarks on; and how a remote gallery is printed."""

from __future__ import annotations

import time

import pytest
from click.testing import CliRunner

from reidkit.cli.serve import serve_command
from reidkit.web import users as users_module
from reidkit.web.client import RemoteGallery, _Service
from reidkit.web.roles import Role
from reidkit.web.users import Users


@pytest.fixture
def users(tmp_path):
    users = Users(tmp_path / "users.sqlite")
    users.add("anna", password=None, role=Role.viewer, galleries=("people",))
    return users


def run(users, *words):
    answer = CliRunner().invoke(serve_command, ["users", *words, "--folder", str(users.path.parent)])
    assert answer.exit_code == 0, answer.output
    return answer.output


def test_each_token_has_a_line_of_its_own_that_says_whether_it_is_good(users, monkeypatch):
    users.make_token("anna", label="script")
    past = time.time() - 1e7
    with monkeypatch.context() as patch:
        patch.setattr(users_module.time, "time", lambda: past)
        users.make_token("anna", label="camera", days=1)
    lines = run(users, "list").splitlines()
    [good] = [line for line in lines if "script" in line]
    [old] = [line for line in lines if "camera" in line]
    assert "UTC" in good
    assert "expired" in old


def test_a_gallery_that_nobody_knows_is_remarked_on(users):
    assert "did you mean 'people'" in run(users, "add", "ben", "--no-password", "--gallery", "peeple")
    assert "is known here" not in run(users, "add", "cleo", "--no-password", "--gallery", "people")


def test_a_remote_gallery_says_where_it_is_and_no_password():
    service = _Service("http://ann:secret@host:8000/", "reid_token", 1.0)
    assert repr(RemoteGallery(service, "people")) == "<gallery 'people' of http://ann@host:8000>"
