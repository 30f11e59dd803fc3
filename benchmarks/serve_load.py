"""Many clients at once ask the live page for texts: every answer is that of sampling alone, or a clear 429; memory stays bounded.

python benchmarks/serve_load.py --clients 64 --seconds 60
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import httpx
import torch

import genmatch as gm
from genmatch.runs import load_run

STEPS, SEEDS = 8, 4


def expected() -> list[list[int]]:
    """The text of each seed, by sampling alone."""
    run = load_run(Path("text"))
    return [gm.sample(run.process, run.model, 1, steps=STEPS, seed=seed)[0].tolist() for seed in range(SEEDS)]


def memory(process: int) -> float:
    """Resident memory of a process, MiB."""
    line = next(line for line in Path(f"/proc/{process}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


async def client(number: int, session: httpx.AsyncClient, end: float, texts: list[list[int]], seen: Counter[str], waits: list[float]) -> None:
    """Asks again and again until `end`."""
    while time.monotonic() < end:
        seed, began = number % SEEDS, time.monotonic()
        try:
            answer = await session.post("/api/text/whole", json={"steps": STEPS, "seed": seed})
        except httpx.HTTPError as error:
            seen[type(error).__name__] += 1
            continue
        if answer.status_code == 429:
            seen["429"] += 1
            await asyncio.sleep(float(answer.headers["retry-after"]) * (0.5 + number / 64))
        elif answer.status_code == 200:
            seen["same" if answer.json()["tokens"] == texts[seed] else "different"] += 1
            waits.append(time.monotonic() - began)
        else:
            seen[str(answer.status_code)] += 1


async def load(clients: int, seconds: float, address: str, process: int) -> None:
    """Prints what the clients saw."""
    texts, seen, waits, before = expected(), Counter[str](), [], memory(process)
    # One session: making one for each would keep this process busy rather than the server.
    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with httpx.AsyncClient(base_url=address, timeout=60, limits=limits) as session:
        end = time.monotonic() + seconds
        await asyncio.gather(*(client(number, session, end, texts, seen, waits) for number in range(clients)))
    print(f"{clients} clients, {seconds:g} s: {dict(seen)}")
    print(f"median {statistics.median(waits):.2f} s, slowest {max(waits):.2f} s; memory {before:.0f} MiB before, {memory(process):.0f} MiB after")
    if set(seen) - {"same", "429"}:
        raise SystemExit("some answers were wrong")


def main() -> None:
    """Starts a server, and asks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    torch.set_num_threads(1)
    server = subprocess.Popen([sys.executable, "-m", "genmatch", "serve", "--port", "0"], stdout=subprocess.PIPE, text=True)
    try:
        address = server.stdout.readline().split()[1] if server.stdout else ""
        asyncio.run(load(options.clients, options.seconds, address, server.pid))
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
