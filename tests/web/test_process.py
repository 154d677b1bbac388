"""A service in a process of its own: its client, slow and odd clients, an orderly end."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

import reidkit as rk
from reidkit.errors import ConfigError
from reidkit.web.client import ServiceError
from tests.web.processes import serving
from tests.web.serving import add_users, picture, settings_of


@pytest.fixture(scope="module")
def folder(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("process") / "world"
    shutil.copytree(world, folder, ignore=shutil.ignore_patterns("photos", "*.safetensors"))
    return folder


@pytest.fixture(scope="module")
def tokens(folder):
    return add_users(settings_of(folder))


@pytest.fixture(scope="module")
def process(folder, tokens):
    limits = {"REIDKIT_SERVE_LIMITS__SECONDS": "1.5", "REIDKIT_SERVE_LIMITS__REQUESTS_PER_MINUTE": "0"}
    with serving(folder, **limits) as process:
        yield process
        assert process.end() == 0


@pytest.fixture
def gallery(process, tokens):
    return rk.connect(process.address, token=tokens["operator"])


def raw(process, data, *, seconds=60.0):
    """What comes back for bytes as they are."""
    with socket.create_connection(("127.0.0.1", process.port), timeout=seconds) as connection:
        connection.sendall(data)
        received = b""
        while part := connection.recv(65536):
            received += part
            if b"\r\n\r\n" in received and b"400 Bad" not in received:
                break
        return received


def test_a_client_has_the_verbs_of_a_gallery(gallery, tmp_path):
    photo = tmp_path / "a.png"
    photo.write_bytes(picture(90))
    num = len(gallery)
    [number] = gallery.add(photo, labels=[{"identity": "anna", "camera": "door"}]).ids
    assert len(gallery) == num + 1
    assert gallery.item(number).identity == "anna"
    assert gallery.picture(number).startswith(b"\xff\xd8")
    assert [item.id for item in gallery.items(where=["identity=anna"])] == [number]
    hits = gallery.search(photo, top=3, where={"camera": {"not": 2}}).hits
    assert len(hits) == 3
    assert number not in [hit.id for hit in hits]
    assert len(gallery.search(items=[number], top=2, group="identity").people) == 2
    near = gallery.search(embeddings=np.ones(gallery.encoder().dimension), top=1)
    assert len(near.hits) == 1
    [made] = gallery.decide("accept", items=[number], identity="ben")
    gallery.decide("undo", undoes=made.id)
    assert gallery.timeline("person 1").visits
    assert gallery.forget("anna", dry_run=True) == 1
    assert gallery.forget("anna") == 1
    assert len(gallery) == num


def test_a_client_tells_what_the_service_says(process, tokens, gallery):
    with pytest.raises(ServiceError, match="no item 4711"):
        gallery.item(4711)
    with pytest.raises(ServiceError, match="administrator"):
        gallery.expire("30d")
    with pytest.raises(ServiceError, match="nobody is logged in"):
        rk.connect(process.address)
    with pytest.raises(ConfigError, match="did you mean 'own'"):
        rk.connect(process.address, token=tokens["root"], gallery="onw")
    with pytest.raises(ConfigError, match="expected one such as"):
        rk.connect("file:///etc/passwd")
    with pytest.raises(ServiceError, match="cannot be reached"):
        rk.connect("http://127.0.0.1:1", token="x")


def test_who_sends_a_head_slowly_is_cut_off(process):
    started = time.monotonic()
    assert raw(process, b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ") == b""
    assert time.monotonic() - started < 20  # not after 30 seconds, as is usual


def test_who_sends_a_body_slowly_is_told_so(process, tokens):
    head = (
        "POST /v1/galleries/own/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {tokens['viewer']}\r\nContent-Length: 100\r\n\r\n{{"
    )
    assert b" 408 " in raw(process, head.encode()).splitlines()[0]


def test_many_slow_clients_keep_nobody_waiting(process):
    slow = [socket.create_connection(("127.0.0.1", process.port)) for _ in range(100)]
    try:
        for connection in slow:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ")
        started = time.monotonic()
        assert b" 200 " in raw(process, b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").splitlines()[0]
        assert time.monotonic() - started < 5
    finally:
        for connection in slow:
            connection.close()


@pytest.mark.parametrize(
    "data",
    [
        b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"POST /v1/session HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/session HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
    ids=["long header", "long path", "TLS", "two hosts", "negative length", "two lengths"],
)
def test_odd_heads_are_refused(process, data):
    first = raw(process, data).split(b"\r\n")[0]
    assert first == b"" or b" 4" in first[:13], first


def test_a_body_longer_than_it_may_be_is_cut_off(process, tokens):
    head = (
        "POST /v1/galleries/own/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {tokens['viewer']}\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    chunk = b"10000\r\n" + b"1" * 0x10000 + b"\r\n"
    assert b" 413 " in raw(process, head.encode() + chunk * 20).splitlines()[0]


@pytest.mark.slow
def test_an_orderly_end_answers_what_was_asked(folder, tokens):
    with serving(folder, REIDKIT_SERVE_LIMITS__BATCH_MILLISECONDS="1000") as process:
        rk.connect(process.address, token=tokens["viewer"], gallery="own").search(items=[1])  # loads it all
        body = b'--b\r\nContent-Disposition: form-data; name="pictures"; filename="a"\r\n\r\n' + picture(3)
        body += b"\r\n--b--\r\n"
        head = (
            "POST /v1/galleries/own/search/pictures HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            f"Content-Type: multipart/form-data; boundary=b\r\nAuthorization: Bearer {tokens['viewer']}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        with socket.create_connection(("127.0.0.1", process.port), timeout=30) as connection:
            connection.sendall(head.encode() + body)
            time.sleep(0.3)
            process.process.send_signal(signal.SIGTERM)
            assert b" 200 " in connection.recv(65536).splitlines()[0]
        assert process.process.wait(30) == 0


@pytest.mark.slow
def test_what_cannot_be_served_is_told_in_one_line(folder, tmp_path):
    def ended(*words):
        command = [sys.executable, "-m", "reidkit", "serve", *words, "--folder", str(tmp_path / "state")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert len(done.stderr.splitlines()) == 1, done.stderr
        return done.returncode, done.stderr

    assert ended(str(tmp_path / "none.gallery"), "--port", "0")[0] == 2
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, line = ended(str(folder / "own.gallery"), "--port", str(taken.getsockname()[1]))
    assert code == 2
    assert "give another host or port" in line
