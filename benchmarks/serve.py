"""How many searches a second a service answers, beside what the encoder and the gallery could do without one.

python benchmarks/serve.py                              # 100,000 items, 32 clients, 60 s
python benchmarks/serve.py --items 10000 --seconds 10   # a short look
python benchmarks/serve.py --gallery postgresql://user@host/database?gallery=bench
python benchmarks/serve.py --write                      # into docs/results.md

The service runs in a process of its own, its clients in threads of this one, each with a connection that is
kept, and with another picture each time. The bare loops embed the same pictures, from their files' bytes, and
search the same gallery, one at a time and 32 at a time, in one process with nothing around them.
"""

from __future__ import annotations

import argparse
import http.client
import io
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

import reidkit as rk
from reidkit.arrays import Embeddings
from reidkit.galleries import NoGallery, open_gallery
from reidkit.search.searcher import Searcher

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results.md"
MARKERS = ("<!-- service: written by benchmarks/serve.py -->", "<!-- end service -->")
DIM = 512
NUM_PICTURES = 256
BOUNDARY = "a-boundary-that-no-picture-holds"


@dataclass(frozen=True)
class Load:
    """What clients saw."""

    seconds: float
    times: list[float]
    statuses: dict[str, int]

    @property
    def rate(self) -> float:
        return len(self.times) / self.seconds

    def percentile(self, share: float) -> float:
        return 1000 * float(np.percentile(self.times, share))

    @property
    def errors(self) -> int:
        return sum(num for status, num in self.statuses.items() if status != "200")


def make_pictures(num: int) -> list[bytes]:
    """JPEGs of the size of people's crops."""
    rng = np.random.default_rng(0)
    made = []
    for _ in range(num):
        coarse = rng.integers(0, 255, (8, 4, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(np.kron(coarse, np.ones((16, 16, 1), np.uint8))).save(file, "JPEG", quality=90)
        made.append(file.getvalue())
    return made


def make_encoder(folder: Path) -> Path:
    """A ResNet-18, as `reid demo` trains one; what its weights are makes no difference to time."""
    model = rk.build_model("resnet18", pretrained=False)
    return rk.Encoder(model, height=128, width=64).save(folder / "encoder.safetensors")


def fill(location: str, encoder: Path, num: int) -> None:
    """Drawn embeddings, five of a person, unless the gallery holds as many already."""
    try:
        with open_gallery(location, create=False) as gallery:
            if len(gallery) >= num:
                return
    except NoGallery:
        pass
    rng = np.random.default_rng(1)
    with Searcher(location, encoder=encoder) as searcher:
        gallery = searcher.made()
        for start in range(len(gallery), num, 10_000):
            count = min(10_000, num - start)
            people = rng.standard_normal((count // 5 + 1, DIM), np.float32)
            rows = np.repeat(people, 5, axis=0)[:count] + rng.standard_normal((count, DIM), np.float32)
            numbers = range(start, start + count)
            gallery.add(
                Embeddings(rows, searcher.encoder.fingerprints),
                identities=[f"p{number // 5}" for number in numbers],
                cameras=[number % 6 for number in numbers],
            )


def bare(location: str, encoder: Path, pictures: list[bytes], seconds: float, at_once: int) -> float:
    """Searches a second of a loop around the encoder and the gallery."""
    with Searcher(location, encoder=encoder) as searcher:
        searcher.search(pictures[:at_once], top=10)
        num, started = 0, time.perf_counter()
        while time.perf_counter() - started < seconds:
            places = [(num + place) % len(pictures) for place in range(at_once)]
            searcher.search([pictures[place] for place in places], top=10)
            num += at_once
        return num / (time.perf_counter() - started)


def start(
    location: str, encoder: Path, folder: Path, workers: int
) -> tuple[subprocess.Popen[bytes], int, float]:
    """The service, its port, and the seconds that it took until it answered."""
    port = free_port()
    environment = {**os.environ, "REIDKIT_SERVE_LIMITS__REQUESTS_PER_MINUTE": "0"}
    words = [f"bench={location}", "--encoder", str(encoder), "--port", str(port), "--folder", str(folder)]
    process = subprocess.Popen(
        [sys.executable, "-m", "reidkit", "serve", *words, "--workers", str(workers)], env=environment
    )
    started = time.perf_counter()
    while True:
        try:
            if ask(port, "GET", "/readyz")[0] == 200:
                return process, port, time.perf_counter() - started
        except OSError:
            if process.poll() is not None:
                raise SystemExit("the service ended") from None
            time.sleep(0.02)


def free_port() -> int:
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def ask(port: int, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    return answer.status, answer.read()


def form(picture: bytes) -> bytes:
    """A search for a picture, as browsers send it."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="pictures"; filename="a.jpg"\r\n\r\n'
    return head.encode() + picture + f"\r\n--{BOUNDARY}--\r\n".encode()


def load(port: int, pictures: list[bytes], clients: int, seconds: float) -> Load:
    """Search from so many clients for so long."""
    bodies = [form(picture) for picture in pictures]
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    times: list[float] = []
    statuses: dict[str, int] = {}
    lock = threading.Lock()
    until = time.perf_counter() + seconds

    def client(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        place = number
        while time.perf_counter() < until:
            started = time.perf_counter()
            try:
                path = "/v1/galleries/bench/search/pictures"
                connection.request("POST", path, bodies[place % len(bodies)], headers)
                answer = connection.getresponse()
                answer.read()
                status = str(answer.status)
            except (OSError, http.client.HTTPException) as error:
                status = type(error).__name__
                connection.close()
            with lock:
                times.append(time.perf_counter() - started)
                statuses[status] = statuses.get(status, 0) + 1
            place += clients

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Load(time.perf_counter() - started, times, statuses)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--gallery", help="address of another engine; made if it is not there")
    parser.add_argument("--folder", type=Path, help="where to keep what is made, for another run")
    parser.add_argument("--write", action="store_true", help="write the table into docs/results.md")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.folder or Path(temporary)
        folder.mkdir(exist_ok=True)
        table = measure(asked, folder)
    print(table)
    if asked.write:
        write(table)


def measure(asked: argparse.Namespace, folder: Path) -> str:
    encoder = folder / "encoder.safetensors"
    encoder = encoder if encoder.exists() else make_encoder(folder)
    location = asked.gallery or str(folder / f"bench-{asked.items}.gallery")
    fill(location, encoder, asked.items)
    pictures = make_pictures(NUM_PICTURES)
    process, port, ready = start(location, encoder, folder / "state", asked.workers)
    try:
        load(port, pictures, asked.clients, min(5, asked.seconds))  # warm
        seen = load(port, pictures, asked.clients, asked.seconds)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    share = max(5.0, asked.seconds / 6)
    single, many = (bare(location, encoder, pictures, share, num) for num in (1, asked.clients))
    engine = "PostgreSQL" if asked.gallery else "a folder"
    return "\n".join(
        [
            f"| {engine}, {asked.items:,} items, {asked.clients} clients, {asked.seconds:g} s | |",
            "|---|---:|",
            f"| searches a second | {seen.rate:.1f} |",
            f"| half of them within | {seen.percentile(50):.0f} ms |",
            f"| 99 % within | {seen.percentile(99):.0f} ms |",
            f"| errors | {seen.errors} |",
            f"| bare loop, one picture at a time | {single:.1f} a second |",
            f"| bare loop, {asked.clients} pictures at a time | {many:.1f} a second |",
            f"| the service, of the bare loop one at a time | {100 * seen.rate / single:.0f} % |",
            f"| the service, of the bare loop {asked.clients} at a time | {100 * seen.rate / many:.0f} % |",
            f"| from start to the first answer | {ready:.1f} s |",
        ]
    )


def write(table: str) -> None:
    """Put the table between its markers."""
    begin, end = MARKERS
    page = RESULTS.read_text()
    found = re.search(f"{begin}.*{end}", page, re.DOTALL)
    if found is None:
        raise SystemExit(f"{RESULTS} has no {begin}")
    RESULTS.write_text(page.replace(found[0], f"{begin}\n{table}\n{end}"))


if __name__ == "__main__":
    main()
