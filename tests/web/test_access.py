"""Who is let in, and how: passwords, sessions, tokens, other sites' pages, other hosts, proxies."""

from __future__ import annotations

import re
import threading
import time

import pytest

from reidkit.errors import ConfigError, DataError
from reidkit.web import users as users_module
from reidkit.web.app import build_app
from reidkit.web.audit import AuditLog
from reidkit.web.limits import allowed_hosts
from reidkit.web.roles import Role
from reidkit.web.users import (
    FREE_ATTEMPTS,
    FREE_OF_ADDRESS,
    LONGEST_WAIT,
    LONGEST_WAIT_OF_ALL,
    TooManyAttempts,
    Users,
    WrongLogin,
)
from tests.web.serving import PASSWORD, add_users, bearer, running

GALLERY = "/v1/galleries/own"
ACCEPT = {"kind": "accept", "proposal": "new-1"}


@pytest.fixture
def users(tmp_path):
    users = Users(tmp_path / "users.sqlite")
    users.add("anna", password=PASSWORD, role=Role.reviewer, galleries=("own",))
    return users


@pytest.fixture
def tokens(settings):
    return add_users(settings)


@pytest.fixture
def client(settings, tokens):
    with running(settings) as client:
        yield client


def log_in(client, password=PASSWORD, **headers):
    return client.post("/v1/session", json={"name": "root", "password": password}, headers=headers)


@pytest.fixture
def clock_stands(monkeypatch):
    """Waits of a second or two are not over because the machine is slow."""
    now = time.monotonic()
    monkeypatch.setattr(users_module.time, "monotonic", lambda: now)
    return now


# --- passwords --------------------------------------------------------------------------------------------


def test_an_unknown_name_is_answered_like_a_wrong_password_and_takes_as_long(real_passwords, users):
    def refused(name):
        started = time.process_time()  # others may have the processor meanwhile
        with pytest.raises(WrongLogin) as error:
            users.log_in(name, "not the password", hours=1)
        return str(error.value), time.process_time() - started

    known, unknown, odd = refused("anna"), refused("nobody"), refused("' OR 1=1 --")
    assert known[0] == unknown[0] == odd[0]
    shortest, longest = sorted((known[1], unknown[1], odd[1]))[::2]
    assert longest < 4 * shortest


def test_passwords_are_kept_as_argon2_makes_them(real_passwords, users):
    stored = users.path.read_bytes()
    stored += b"".join(path.read_bytes() for path in users.path.parent.glob("users.sqlite-*"))
    [found] = {bytes(hashed) for hashed in re.findall(rb"\$argon2id\$v=19\$m=\d+,t=\d+,p=\d+", stored)}
    memory, times = map(int, re.findall(rb"[mt]=(\d+)", found))
    assert memory >= 2**16  # KiB, and three times: RFC 9106's second recommended option
    assert times >= 3
    assert PASSWORD.encode() not in stored


def test_who_tries_too_often_has_to_wait(users, monkeypatch, clock_stands):
    monkeypatch.setattr(users, "_matches", lambda hashed, password: password == PASSWORD)
    for _ in range(FREE_ATTEMPTS):
        with pytest.raises(WrongLogin):
            users.log_in("anna", "wrong", hours=1, address="10.0.0.9")
    with pytest.raises(TooManyAttempts) as error:
        users.log_in("anna", PASSWORD, hours=1, address="10.0.0.8")
    assert 0 < error.value.seconds <= 2
    later = clock_stands + 3
    monkeypatch.setattr(users_module.time, "monotonic", lambda: later)
    assert users.log_in("anna", PASSWORD, hours=1, address="10.0.0.8")[1].name == "anna"


@pytest.mark.parametrize("last", ["0", "1e12"])
def test_a_clock_that_is_set_and_a_new_start_of_the_machine_lock_nobody_out(
    users, monkeypatch, clock_stands, last
):
    monkeypatch.setattr(users, "_matches", lambda hashed, password: password == PASSWORD)
    for _ in range(FREE_ATTEMPTS):
        with pytest.raises(WrongLogin):
            users.log_in("anna", "wrong", hours=1, address="10.0.0.9")
    with users._transaction() as database:  # as a clock told it that has begun anew since
        database.execute(f"UPDATE failures SET last = {last} WHERE last < {last}")
    earlier = time.time() - 7200
    monkeypatch.setattr(users_module.time, "time", lambda: earlier)
    with pytest.raises(TooManyAttempts) as error:
        users.log_in("anna", PASSWORD, hours=1, address="10.0.0.9")
    assert error.value.seconds <= 2
    later = clock_stands + 3
    monkeypatch.setattr(users_module.time, "monotonic", lambda: later)
    assert users.log_in("anna", PASSWORD, hours=1, address="10.0.0.9")[1].name == "anna"


@pytest.mark.parametrize("change", ["removed", "another password"])
def test_a_user_who_is_changed_while_logging_in_gets_no_session(users, monkeypatch, change):
    def matches(hashed, password):
        others = Users(users.path)
        if change == "removed":
            others.remove("anna")
        else:
            others.add("anna", password="another " + PASSWORD, role=Role.viewer)
        return True

    monkeypatch.setattr(users, "_matches", matches)
    with pytest.raises(WrongLogin, match="log in again"):
        users.log_in("anna", PASSWORD, hours=1)
    assert users._read("SELECT * FROM sessions") == []


def test_administrators_who_change_the_same_user_at_once_get_answers_that_fit(users):
    faults = []

    def change(number):
        own = Users(users.path)
        for turn in range(15):
            try:
                if (turn + number) % 3 == 0:
                    own.remove("bert")
                elif (turn + number) % 3 == 1:
                    own.add("bert", password=None, role=Role.viewer)
                own.make_token("bert")
                own.revoke_role("bert", "own")
            except Exception as error:
                faults.append(error)

    threads = [threading.Thread(target=change, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not [error for error in faults if not isinstance(error, DataError)]
    assert {str(error).partition(";")[0] for error in faults} <= {"there is no user 'bert'"}


def test_a_session_that_has_ended_stays_so_where_the_clock_is_put_back(users, monkeypatch):
    key, _ = users.log_in("anna", PASSWORD, hours=1)
    later = time.time() + 3601
    with monkeypatch.context() as patch:
        patch.setattr(users_module.time, "time", lambda: later)
        assert users.by_session(key) is None
    assert users.by_session(key) is None


def test_who_tries_many_names_from_one_address_has_to_wait(users, monkeypatch, clock_stands):
    monkeypatch.setattr(users, "_matches", lambda hashed, password: False)
    for number in range(FREE_OF_ADDRESS):
        with pytest.raises(WrongLogin):
            users.log_in(f"user{number}", "wrong", hours=1, address="10.0.0.9")
    with pytest.raises(TooManyAttempts):
        users.log_in("anna", PASSWORD, hours=1, address="10.0.0.9")


def test_attempts_that_are_made_at_once_are_counted_before_they_are_answered(
    users, monkeypatch, clock_stands
):
    barrier, answers = threading.Barrier(20), []
    matches = users._matches

    def slowly(hashed, password):
        time.sleep(0.1)
        return matches(hashed, password)

    monkeypatch.setattr(users, "_matches", slowly)

    def attempt():
        barrier.wait()
        try:
            users.log_in("anna", "wrong", hours=1, address="10.0.0.9")
        except (WrongLogin, TooManyAttempts) as error:
            answers.append(type(error))

    threads = [threading.Thread(target=attempt) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers.count(WrongLogin) == FREE_ATTEMPTS
    assert answers.count(TooManyAttempts) == 20 - FREE_ATTEMPTS


def test_wrong_passwords_from_elsewhere_do_not_keep_out_who_knows_the_right_one(users, monkeypatch):
    now = time.monotonic()
    monkeypatch.setattr(users_module.time, "monotonic", lambda: now)
    monkeypatch.setattr(users, "_matches", lambda hashed, password: password == PASSWORD)
    for _ in range(50):
        now += LONGEST_WAIT
        with pytest.raises(WrongLogin):
            users.log_in("anna", "wrong", hours=1, address="10.0.0.9")
    now += LONGEST_WAIT_OF_ALL
    with pytest.raises(TooManyAttempts) as error:
        users.log_in("anna", "wrong", hours=1, address="10.0.0.9")
    assert error.value.seconds > 800
    assert users.log_in("anna", PASSWORD, hours=1, address="10.0.0.8")[1].name == "anna"


def test_people_who_share_an_address_log_in_at_once(users, monkeypatch):
    monkeypatch.setattr(users, "_matches", lambda hashed, password: password == PASSWORD)
    for _ in range(2 * FREE_ATTEMPTS):
        users.log_in("anna", PASSWORD, hours=1, address="10.0.0.9")


def test_nobody_else_reads_the_file_of_users_nor_those_beside_it(tmp_path):
    tmp_path.chmod(0o755)
    users = Users(tmp_path / "users.sqlite")
    users.add("anna", password=None, role=Role.viewer)
    files = list(tmp_path.iterdir())
    assert len(files) > 1
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}


@pytest.mark.parametrize("password", ["", "short", "x" * 2000])
def test_a_password_that_will_not_do_is_refused(users, password):
    with pytest.raises(ConfigError, match="characters"):
        users.add("ben", password=password, role=Role.viewer)


def test_a_new_password_ends_sessions(users):
    key, _ = users.log_in("anna", PASSWORD, hours=1)
    users.add("anna", password="another long password", role=Role.reviewer, galleries=("own",))
    assert users.by_session(key) is None


def test_a_file_that_is_none_of_users_is_refused(tmp_path):
    (tmp_path / "users.sqlite").write_text("something else, and long enough to be looked at" * 50)
    with pytest.raises(DataError, match="cannot be opened"):
        Users(tmp_path / "users.sqlite")


# --- tokens -----------------------------------------------------------------------------------------------


def test_a_token_is_good_until_it_expires_or_is_revoked(users, monkeypatch):
    token = users.make_token("anna", label="script", days=1)
    assert users.by_token(token).may("own", Role.reviewer)
    assert token.encode() not in users.path.read_bytes()
    assert users.by_token(token[:-1] + ("A" if token[-1] != "A" else "B")) is None
    [kept] = users.all()[0].tokens
    later = time.time() + 86401
    with monkeypatch.context() as patch:
        patch.setattr(users_module.time, "time", lambda: later)
        assert users.by_token(token) is None
    users.revoke_token("anna", kept.id)
    assert users.by_token(token) is None
    with pytest.raises(DataError, match="no token"):
        users.revoke_token("anna", kept.id)


def test_a_removed_users_tokens_and_sessions_are_good_for_nothing(users):
    token, (key, _) = users.make_token("anna"), users.log_in("anna", PASSWORD, hours=1)
    users.remove("anna")
    assert users.by_token(token) is None
    assert users.by_session(key) is None
    with pytest.raises(DataError, match="no user"):
        users.remove("anna")


@pytest.mark.parametrize("given", ["", "Bearer", "Bearer x", "Basic YTpi", "Bearer reid_" + "A" * 43, "\xff"])
def test_what_is_no_token_is_not_let_in(client, given):
    answer = client.get("/v1/me", headers={"Authorization": given.encode("latin-1")})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"


# --- sessions and other sites' pages ----------------------------------------------------------------------


def test_a_session_is_a_cookie_that_scripts_and_other_sites_cannot_have(client, settings):
    answer = log_in(client)
    assert answer.json()["name"] == "root"
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert client.get("/v1/me").json()["name"] == "root"
    assert client.delete("/v1/session", headers={"X-CSRF-Token": answer.json()["csrf"]}).status_code == 204
    assert client.get("/v1/me").status_code == 401


def test_a_cookie_that_was_kept_is_no_use_after_logging_out(client):
    answer = log_in(client)
    kept = dict(client.cookies)
    client.delete("/v1/session", headers={"X-CSRF-Token": answer.json()["csrf"]})
    assert client.get("/v1/me", cookies=kept).status_code == 401


def test_a_session_changes_nothing_without_its_secret(client):
    secret = log_in(client).json()["csrf"]
    assert client.post(f"{GALLERY}/decisions", json=ACCEPT).status_code == 403
    wrong = {"X-CSRF-Token": secret[:-1]}
    assert client.post(f"{GALLERY}/decisions", json=ACCEPT, headers=wrong).status_code == 403
    for more in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}):
        headers = {"X-CSRF-Token": secret, **more}
        assert client.post(f"{GALLERY}/decisions", json=ACCEPT, headers=headers).status_code == 403
    right = {"X-CSRF-Token": secret, "Origin": "http://testserver", "Sec-Fetch-Site": "same-origin"}
    assert client.post(f"{GALLERY}/decisions", json=ACCEPT, headers=right).status_code == 200


def test_another_sites_page_cannot_log_somebody_in(client):
    assert log_in(client, Origin="https://evil.example").status_code == 403


def test_a_token_needs_no_secret(client, tokens):
    answer = client.post(f"{GALLERY}/decisions", json=ACCEPT, headers=bearer(tokens["reviewer"]))
    assert answer.status_code == 200


def test_a_wrong_password_is_audited_and_says_what_to_do(client, settings):
    answer = log_in(client, password="wrong")
    assert answer.status_code == 401
    assert answer.json()["to_do"]
    assert [entry.action for entry in AuditLog(settings.audit_file).entries()] == ["login failed"]


# --- a service without users ------------------------------------------------------------------------------


def test_other_addresses_demand_users(settings):
    with pytest.raises(ConfigError, match="reid serve users add"):
        build_app(settings.model_copy(update={"host": "0.0.0.0"}))


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", ""])
def test_another_name_for_this_machine_is_refused(settings, host):
    with running(settings) as client:
        assert client.get("/v1/galleries", headers={"Host": host}).status_code == 421
        assert client.get("/v1/galleries", headers={"Host": "localhost:8000"}).status_code == 200


def test_a_service_with_names_is_checked_for_health_by_this_machines_own(settings):
    named = settings.model_copy(update={"host": "0.0.0.0", "hosts": ("people.example",)})
    assert allowed_hosts(named) >= {"people.example", "127.0.0.1", "localhost"}
    assert "evil.example" not in allowed_hosts(named)


def test_another_sites_page_changes_nothing_of_a_local_service(settings):
    with running(settings) as client:
        for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
            answer = client.post(f"{GALLERY}/forget", json={"identity": "person 1"}, headers=headers)
            assert answer.status_code == 403
        assert client.get("/v1/galleries").json()[0]["num_items"] == 12


def test_a_proxy_does_not_let_the_world_in_as_the_local_user(settings):
    with running(settings) as client:
        answer = client.get("/v1/galleries", headers={"X-Forwarded-For": "203.0.113.7"})
        assert answer.status_code == 403
        assert "users add" in answer.json()["detail"]


# --- addresses and rates ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("proxies", "said", "address"),
    [
        ((), "203.0.113.7", "testclient"),
        (("10.0.0.0/8",), "203.0.113.7", "testclient"),
    ],
)
def test_only_a_trusted_proxy_says_where_a_request_comes_from(settings, tokens, proxies, said, address):
    with running(settings.model_copy(update={"trusted_proxies": proxies})) as client:
        client.headers["X-Forwarded-For"] = said
        log_in(client, password="wrong")
    [entry] = AuditLog(settings.audit_file).entries()
    assert entry.details["address"] == address


def test_a_trusted_proxy_is_believed_and_what_lies_before_it_is_not(settings, tokens):
    from starlette.requests import Request

    from reidkit.web.access import Access

    access = Access(settings.model_copy(update={"trusted_proxies": ("10.0.0.0/8",)}), None, None)

    def address(client, said):
        headers = [(b"x-forwarded-for", said.encode())] if said else []
        return access.address(Request({"type": "http", "client": (client, 1), "headers": headers}))

    assert address("10.0.0.1", "203.0.113.7") == "203.0.113.7"
    assert address("10.0.0.1", "1.2.3.4, 203.0.113.7, 10.0.0.2") == "203.0.113.7"
    assert address("192.0.2.1", "203.0.113.7") == "192.0.2.1"
    assert address("10.0.0.1", "") == "10.0.0.1"


def test_a_user_who_asks_too_often_is_told_when_to_come_back(settings, tokens):
    limits = settings.limits.model_copy(update={"requests_per_minute": 3})
    with running(settings.model_copy(update={"limits": limits})) as client:
        statuses = [client.get("/v1/me", headers=bearer(tokens["viewer"])).status_code for _ in range(4)]
        assert statuses == [200, 200, 200, 429]
        refused = client.get("/v1/me", headers=bearer(tokens["viewer"]))
        assert int(refused.headers["retry-after"]) >= 1
        assert client.get("/v1/me", headers=bearer(tokens["reviewer"])).status_code == 200


def test_a_purpose_may_be_demanded(settings, tokens):
    with running(settings.model_copy(update={"require_purpose": True})) as client:
        client.headers |= bearer(tokens["viewer"])
        answer = client.post(f"{GALLERY}/search", json={"items": [1], "purpose": " "})
        assert answer.status_code == 422
        assert "purpose" in answer.json()["detail"]
        assert client.post(f"{GALLERY}/search", json={"items": [1], "purpose": "case 1"}).status_code == 200
