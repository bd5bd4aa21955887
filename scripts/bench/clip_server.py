"""A provider's file server, for benches: `GET /clip/N` is a clip at once, `GET /slow/N` one that never
ends.

Says on stdout which port it took, then one line for each request to `/slow`: the peer's port and a
monotonic time in nanoseconds. A second request for the same slow clip is answered whole: the first who
asked is dead.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path


class Clips:
    def __init__(self, folder: Path) -> None:
        self._clips = {path.stem: path.read_bytes() for path in folder.glob("*.mp3")}
        self._asked: set[str] = set()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            _, kind, number = head.split(b" ", 2)[1].decode().split("/")[:3]
            if kind not in ("clip", "slow"):
                # Recovery asking after a prediction.
                writer.write(b"HTTP/1.1 503 Away\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
                return
            clip = self._clips[f"{int(number) % len(self._clips):04d}"]
            writer.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\nconnection: close\r\n"
                b"content-length: %d\r\n\r\n" % len(clip)
            )
            if kind == "slow":
                print(writer.get_extra_info("peername")[1], time.monotonic_ns(), flush=True)
                if number not in self._asked:
                    self._asked.add(number)
                    for byte in clip:
                        # A byte a second: alive, and far from done.
                        writer.write(bytes([byte]))
                        await writer.drain()
                        await asyncio.sleep(1)
            writer.write(clip)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()


async def main(folder: Path) -> None:
    server = await asyncio.start_server(Clips(folder).answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
