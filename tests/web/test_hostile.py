"""Bodies that are none, pictures that are none, and a service that is killed: nothing stuck, nothing lost."""

from __future__ import annotations

import json
import random
import shutil
import signal
import struct
import threading
import time
import zlib

import psutil
import pytest

import reidkit as rk
from reidkit.web.client import ServiceError
from tests.web.processes import serving
from tests.web.serving import picture

GALLERY = "/v1/galleries/own"
JSON = (b'{"items": [1], "top": 3}', b'{"kind": "accept", "proposal": "new-1"}', b'{"identity": "nobody"}')
ODD = (
    b"",
    b"null",
    b"[]",
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b'{"items": [NaN]}',
    b'{"embeddings": [[Infinity]]}',
    b'{"embeddings": [[1e400, -1e400]]}',
    b'{"items": [' + b"9" * 5000 + b"]}",
    b'{"items": [1], "where": {"identity": "\\ud800"}}',
    b'{"items": [1], "where": {"\\u0000": 1}}',
    b'{"items": [1], "where": {"camera": {"not": {"not": 3}}}}',
    b'{"items": [1], "where": {"time": {"from": "NaN", "to": 1e999}}}',
    b'{"items": [1], "top": 1e308}',
    b'{"items": [1.5]}',
    b'{"items": [true]}',
    b"\xff\xfe{\x00}\x00",
    b'{"items": [1]}\x00',
)
PATHS = ("search", "decisions", "forget", "items/remove", "expire", "jobs")


def bomb(width, height):
    """A PNG of few bytes that says it holds this many pixels, and does."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress(b"\x00" * (height * (width + 1)), 9)
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def spoilt(drawn, data):
    """Bytes with some changed, cut out, put in or doubled."""
    data = bytearray(data)
    for _ in range(drawn.randint(1, 8)):
        place = drawn.randrange(len(data) + 1)
        kind = drawn.randrange(4)
        if kind == 0 and place < len(data):
            data[place] = drawn.randrange(256)
        elif kind == 1:
            del data[place : place + drawn.randint(1, 20)]
        elif kind == 2:
            data[place:place] = drawn.randbytes(drawn.randint(1, 20))
        else:
            data[place:place] = data[place : place + 30]
    return bytes(data)


def form(content):
    return (
        b'--b\r\nContent-Disposition: form-data; name="pictures"; filename="a.png"\r\n'
        b"Content-Type: image/png\r\n\r\n" + content + b"\r\n--b--\r\n"
    )


def send(client, drawn):
    """One malformed request; its answer."""
    headers = {"Content-Type": "application/json"}
    kind = drawn.randrange(4)
    if kind == 0:
        path, body = drawn.choice(PATHS), drawn.choice(ODD)
    elif kind == 1:
        path, body = drawn.choice(PATHS), spoilt(drawn, drawn.choice(JSON))
    else:
        path = drawn.choice(("search/pictures", "items"))
        good = picture(drawn.randrange(50), drawn.choice(("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP")))
        whole = form(spoilt(drawn, good)) if kind == 2 else spoilt(drawn, form(good))
        body, headers = whole, {"Content-Type": "multipart/form-data; boundary=b"}
    return client.post(f"{GALLERY}/{path}", content=body, headers=headers)


def check(answer):
    assert answer.status_code < 500, (answer.request.url, answer.text)
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == "application/problem+json", answer.text
        assert answer.json()["to_do"]


@pytest.mark.parametrize("path", PATHS)
def test_odd_bodies_are_refused_and_say_what_to_do(client, path):
    for body in ODD:
        answer = client.post(f"{GALLERY}/{path}", content=body, headers={"Content-Type": "application/json"})
        check(answer)


def test_many_spoilt_requests_are_no_fault_of_the_service(client):
    drawn = random.Random(0)
    for _ in range(150):
        check(send(client, drawn))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_thousand_spoilt_requests_leave_memory_as_it_was(client):
    drawn, own = random.Random(1), psutil.Process()
    for _ in range(2000):
        check(send(client, drawn))
    before = own.memory_info().rss
    for _ in range(8000):
        check(send(client, drawn))
    grown = (own.memory_info().rss - before) / 2**20
    print(f"memory after 2,000: {before / 2**20:.0f} MiB; {grown:+.0f} MiB after 8,000 more")
    assert grown < 100
    assert client.get("/readyz").status_code == 200


def test_answers_are_ascii_whatever_labels_hold(client):
    name = "an\u202ena \U0001f600 \u00e9"
    decided = {"kind": "accept", "items": [1, 2], "identity": name}
    made = client.post(f"{GALLERY}/decisions", json=decided)
    assert made.status_code == 200, made.text
    ids = [client.get(f"{GALLERY}/{path}") for path in ("items", "people", "decisions", "items/1")]
    for answer in (made, *ids):
        assert answer.content.isascii()
        assert name in str(answer.json()) or repr(name)[1:-1] in str(answer.json())


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(client):
    small = bomb(20_000, 2_000)
    assert len(small) < 100_000
    before = psutil.Process().memory_info().rss
    answer = client.post(f"{GALLERY}/search/pictures", files=[("pictures", ("a.png", small))])
    assert answer.status_code == 422
    assert "takes 25,000,000 at most; send a smaller one" in answer.json()["detail"]
    added = client.post(f"{GALLERY}/items", files=[("pictures", ("a.png", small))]).json()["detail"]
    assert "takes 25,000,000 at most; send a smaller one" in added
    assert "--max-pixels" not in added
    assert psutil.Process().memory_info().rss - before < 30 * 2**20


@pytest.mark.parametrize(
    "name",
    ["../../../etc/passwd", "/etc/passwd", "a\x00b", "http://127.0.0.1:1/a.png", "<script>alert(1)</script>"],
)
def test_a_files_name_is_nobodys_path_or_address(client, settings, name):
    """The name of an upload is not used: what is kept is called by its content."""
    answer = client.post(f"{GALLERY}/items", files=[("pictures", (name, picture(91), "image/png"))])
    assert answer.status_code == 201, answer.text
    [kept] = (settings.folder / "pictures").glob("*/*.img")
    assert kept.suffix == ".img"


@pytest.mark.parametrize(
    "source", ["/etc/passwd", "http://127.0.0.1:1/a.png", "file:///etc/passwd", "/dev/zero"]
)
def test_what_a_gallery_names_as_a_picture_and_is_none_tells_nothing(client, settings, source):
    """A gallery may come from anywhere: what lies where it points is not told unless it is a picture."""
    with rk.open_gallery(settings.galleries["own"].address) as gallery:
        gallery.relabel([1], sources=[source])
    answer = client.get(f"{GALLERY}/items/1/thumbnail")
    assert answer.status_code == 404
    assert "root" not in answer.text
    assert source not in answer.text


@pytest.mark.slow
def test_nothing_that_was_acknowledged_is_lost_by_a_kill(world, tmp_path):
    folder = tmp_path / "world"
    shutil.copytree(world, folder, ignore=shutil.ignore_patterns("photos", "*.safetensors"))
    acknowledged: list[tuple[int, str]] = []
    seed = iter(range(1000, 100_000))
    lock = threading.Lock()

    def add(address):
        gallery = rk.connect(address, gallery="own")
        while True:
            with lock:
                number = next(seed)
            name = f"person of {number}"
            try:
                [item] = gallery.add(picture(number), labels=[{"identity": name}]).ids
            except ServiceError:
                return
            with lock:
                acknowledged.append((item, name))

    ready = []
    for _ in range(3):
        with serving(folder, REIDKIT_SERVE_LIMITS__REQUESTS_PER_MINUTE="0") as process:
            ready.append(process.seconds)
            num_before = len(acknowledged)
            threads = [threading.Thread(target=add, args=(process.address,)) for _ in range(4)]
            for thread in threads:
                thread.start()
            for _ in range(600):  # the first waits for the encoder
                if len(acknowledged) >= num_before + 8:
                    break
                time.sleep(0.1)
            process.end(signal.SIGKILL)
            for thread in threads:
                thread.join()
    print(f"{len(acknowledged)} acknowledged; ready after {ready} s")
    assert len(acknowledged) > 10
    with rk.open_gallery(folder / "own.gallery") as gallery:
        assert not gallery.verify().damaged
        kept = {item.id: item for item in gallery.items()}
    for number, name in acknowledged:
        assert kept[number].identity == name
        assert kept[number].source.endswith(".img")
    audited = [json.loads(line) for line in (folder / "state" / "audit.jsonl").read_text().splitlines()]
    assert sum(entry["action"] == "add" for entry in audited) >= len(acknowledged)
