"""PyPI bullmq's Worker as a contender of benchmarks/queue.py: JSON commands on stdin, JSON answers on stdout."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

from bullmq import Worker


def answer(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)


async def drain(url: str, command: dict[str, Any]) -> dict[str, Any]:
    left, done = command["jobs"], asyncio.Event()

    async def process(_job: Any, _token: str) -> None:
        return None

    def completed(_job: Any, _result: Any) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            done.set()

    began, spent = time.perf_counter(), time.process_time()
    worker = Worker(command["queue"], process, {"connection": url, "concurrency": command["concurrency"]})
    worker.on("completed", completed)
    await done.wait()
    told = {"seconds": time.perf_counter() - began, "cpu": time.process_time() - spent}
    await worker.close()
    return told


async def pickup(url: str, command: dict[str, Any]) -> dict[str, Any]:
    latencies: list[float] = []
    done = asyncio.Event()

    async def process(job: Any, _token: str) -> None:
        latencies.append(time.time() * 1000 - job.data["sent"])
        if len(latencies) == command["jobs"]:
            done.set()

    worker = Worker(command["queue"], process, {"connection": url, "concurrency": command["concurrency"]})
    await asyncio.sleep(0.3)  # it has no way to say that it is ready
    answer({"ready": True})
    await done.wait()
    await worker.close()
    return {"latencies": latencies}


async def main(url: str) -> None:
    while line := await asyncio.to_thread(sys.stdin.readline):
        command = json.loads(line)
        answer(await {"drain": drain, "pickup": pickup}[command["do"]](url, command))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
