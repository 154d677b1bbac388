"""How many searches a second a service answers, beside what the encoder and the gallery could do without one.

python benchmarks/serve.py                              # 100,000 items, 32 clients, 60 s
python benchmarks/serve.py --items 10000 --seconds 10   # a short look
python benchmarks/serve.py --gallery postgresql://user@host/database?gallery=bench
python benchmarks/serve.py --write                      # into docs/results.md

The service runs in a process of its own, its clients in threads of this one, each with a connection that is
kept, and with another picture each time. The bare loops embed the same pictures, from their files' bytes, by
the same library, and search the same gallery, one at a time and 32 at a time, with nothing around them.
Service and loops take turns, in rounds, so that other work on the machine meets both. Clients take processor
time that the loops do not need, and so that of each is told. At the end the service is killed and restarted.
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
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

import reidkit as rk
from reidkit.arrays import Embeddings
from reidkit.galleries import NoGallery, open_gallery
from reidkit.search.searcher import Searcher

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results.md"
ROUNDS = 4
DIM = 512
NUM_PICTURES = 256
BOUNDARY = "a-boundary-that-no-picture-holds"


@dataclass(frozen=True)
class Load:
    """What clients saw."""

    seconds: float
    times: list[float]
    statuses: dict[str, int]
    own: float = 0.0  # seconds of processor time that the clients took

    def __add__(self, other: Load) -> Load:
        statuses = Counter(self.statuses) + Counter(other.statuses)
        seconds, own = self.seconds + other.seconds, self.own + other.own
        return Load(seconds, self.times + other.times, statuses, own)

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
    """A ResNet-18, as `reid demo` trains one; what its weights are makes no difference to time.

    They are always the same, so that what embeds it fastest on this machine is found out once.
    """
    import torch

    torch.manual_seed(0)
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


class Bare:
    """A loop around the encoder and the gallery, by what embeds fastest on this machine."""

    def __init__(self, location: str, encoder: Path, pictures: list[bytes]) -> None:
        self.pictures, self.searcher = pictures, Searcher(location, encoder=encoder)
        self.searcher.encoder.expect(10**9)  # worth to find out what is fastest, which the service reads then
        for _ in range(3):
            self.searcher.search(pictures[:32], top=10)

    def run(self, seconds: float, at_once: int) -> Load:
        """Searches of so many at once, for so long."""
        times: list[float] = []
        started, own = time.perf_counter(), time.process_time()
        while time.perf_counter() - started < seconds:
            begun = time.perf_counter()
            places = [(len(times) + place) % len(self.pictures) for place in range(at_once)]
            self.searcher.search([self.pictures[place] for place in places], top=10)
            times += [time.perf_counter() - begun] * at_once
        return Load(time.perf_counter() - started, times, {}, time.process_time() - own)


class Service:
    """The service in a process of its own, with the seconds from its start until something was answered."""

    def __init__(self, location: str, encoder: Path, folder: Path, workers: int) -> None:
        self.port, self.by = free_port(), ""
        environment = {**os.environ, "REIDKIT_SERVE_LIMITS__REQUESTS_PER_MINUTE": "0"}
        words = [f"bench={location}", "--encoder", str(encoder), "--port", str(self.port)]
        words += ["--folder", str(folder), "--workers", str(workers)]
        started = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "reidkit", "serve", *words],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        threading.Thread(target=self._listen, daemon=True).start()
        self.seconds = {}
        for path in ("/healthz", "/readyz"):
            self._until(path)
            self.seconds[path] = time.perf_counter() - started
        self.until_ready = self.processor_time()
        self.ready_since = started

    def processor_time(self) -> float:
        """Seconds that it took of all processors, its workers included."""
        parent = psutil.Process(self.process.pid)
        times = [one.cpu_times() for one in (parent, *parent.children(recursive=True))]
        return sum(one.user + one.system for one in times)

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(how)
        self.process.wait(60)

    def _listen(self) -> None:
        """Hear by what it embeds."""
        for line in self.process.stderr or ():
            sys.stderr.write(line)
            if found := re.search("embedded by (\\w+)", line):
                self.by = found[1]

    def _until(self, path: str) -> None:
        while True:
            try:
                if ask(self.port, "GET", path)[0] == 200:
                    return
            except OSError:
                if self.process.poll() is not None:
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


def search(port: int, picture: bytes) -> int:
    """The status of a search."""
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    return ask(port, "POST", "/v1/galleries/bench/search/pictures", form(picture), **headers)[0]


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
    started, own = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Load(time.perf_counter() - started, times, statuses, time.process_time() - own)


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
        write(table, "on a server" if asked.gallery else "on a folder")


def measure(asked: argparse.Namespace, folder: Path) -> str:
    encoder = folder / "encoder.safetensors"
    encoder = encoder if encoder.exists() else make_encoder(folder)
    location = asked.gallery or str(folder / f"bench-{asked.items}.gallery")
    fill(location, encoder, asked.items)
    pictures = make_pictures(NUM_PICTURES)
    bare = Bare(location, encoder, pictures)
    service = Service(location, encoder, folder / "state", asked.workers)
    try:
        until = time.perf_counter() + 60
        while not service.by and time.perf_counter() < until:
            load(service.port, pictures, asked.clients, 3)  # until it embeds as it will from then on
        seen, single, many, share, own = in_turn(service, bare, pictures, asked)
        killed(service, pictures, asked.clients)
        again = Service(location, encoder, folder / "state", asked.workers)
        search(again.port, pictures[0])
        first = time.perf_counter() - again.ready_since
        again.end()
    finally:
        if service.process.poll() is None:
            service.end()
    engine = "PostgreSQL" if asked.gallery else "a folder"
    at_once = asked.clients
    return "\n".join(
        [
            f"| {engine}, {asked.items:,} items, {at_once} clients, {asked.seconds:g} s | |",
            "|---|---:|",
            f"| searches a second | {seen.rate:.1f} |",
            f"| half of them within | {seen.percentile(50):.0f} ms |",
            f"| 99 % within | {seen.percentile(99):.0f} ms |",
            f"| the longest | {1000 * max(seen.times):.0f} ms |",
            f"| errors | {seen.errors} |",
            f"| bare loop, one picture at a time | {single.rate:.1f} a second |",
            f"| bare loop, {at_once} pictures at a time | {many.rate:.1f} a second |",
            f"| the service, of the bare loop one at a time | {100 * seen.rate / single.rate:.0f} % |",
            f"| the service, of the bare loop {at_once} at a time | {100 * seen.rate / many.rate:.0f} % |",
            f"| the same in each of {ROUNDS} rounds | {', '.join(f'{100 * one:.0f}' for one in share)} % |",
            f"| processor time a search: service | {each(own, seen)} |",
            f"| its clients | {each(seen.own, seen)} |",
            f"| the bare loop, {at_once} at a time | {each(many.own, many)} |",
            f"| killed under load and started again: answers | {again.seconds['/healthz']:.1f} s |",
            f"| is ready | {again.seconds['/readyz']:.1f} s, {again.until_ready:.1f} s of a processor |",
            f"| has answered a search by a picture | {first:.1f} s |",
            f"| what embeds | {service.by} |",
        ]
    )


def in_turn(
    service: Service, bare: Bare, pictures: list[bytes], asked: argparse.Namespace
) -> tuple[Load, Load, Load, list[float], float]:
    """What clients saw, and the loops of one and of many; the shares of rounds, and the service's time."""
    nothing = Load(0.0, [], {})
    seen, single, many, shares, own = nothing, nothing, nothing, [], 0.0
    for _ in range(ROUNDS):
        before = service.processor_time()
        now = load(service.port, pictures, asked.clients, asked.seconds / ROUNDS)
        own += service.processor_time() - before
        loop = bare.run(asked.seconds / ROUNDS / 2, asked.clients)
        seen, many = seen + now, many + loop
        single += bare.run(asked.seconds / ROUNDS / 4, 1)
        shares.append(now.rate / loop.rate)
    return seen, single, many, shares, own


def killed(service: Service, pictures: list[bytes], clients: int) -> None:
    """Kill it while it answers."""
    threading.Timer(2.0, service.end, (signal.SIGKILL,)).start()
    load(service.port, pictures, clients, 2.5)


def each(seconds: float, seen: Load) -> str:
    return f"{1000 * seconds / len(seen.times):.1f} ms"


def write(table: str, where: str) -> None:
    """Put the table between its markers."""
    begin, end = f"<!-- service {where}: written by benchmarks/serve.py -->", f"<!-- end service {where} -->"
    page = RESULTS.read_text()
    found = re.search(f"{begin}.*{end}", page, re.DOTALL)
    if found is None:
        raise SystemExit(f"{RESULTS} has no {begin}")
    RESULTS.write_text(page.replace(found[0], f"{begin}\n{table}\n{end}"))


if __name__ == "__main__":
    main()
