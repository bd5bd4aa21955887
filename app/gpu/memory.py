"""How much memory is free for another engine: the accelerator's, or the machine's where there is none.

Measured, never assumed: a GPU that is there may be full of somebody else's work. The measuring is done by a
process of its own, because a process that has once looked at a GPU keeps hundreds of megabytes of it.
"""

from __future__ import annotations

import asyncio
import sys

from app.engines.neural.placement import machine_bytes

_MEASURE = (
    "import torch\n"
    "free = [torch.cuda.mem_get_info(n)[0] for n in range(torch.cuda.device_count())]\n"
    "print(max(free, default=0))"
)
_LIMIT_S = 60.0


class FreeMemory:
    """Asks the GPUs by PyTorch as long as there are any; the machine's own memory after that."""

    def __init__(self, *, python: str = sys.executable) -> None:
        self._python = python
        self._has_gpu = True

    async def __call__(self) -> int:
        """Bytes free on the device with the most; of the machine, where no GPU can be asked."""
        if self._has_gpu:
            free = await self._ask_gpus()
            if free:
                return free
            self._has_gpu = False
        return await asyncio.to_thread(machine_bytes)

    async def _ask_gpus(self) -> int:
        process = await asyncio.create_subprocess_exec(
            self._python,
            "-c",
            _MEASURE,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            async with asyncio.timeout(_LIMIT_S):
                said, _ = await process.communicate()
        except TimeoutError:
            return 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return int(said) if process.returncode == 0 and said.strip().isdigit() else 0
