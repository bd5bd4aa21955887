"""How much memory is free for another engine: the accelerator's, or the machine's where there is none.

Measured, never assumed: a GPU that is there may be full of somebody else's work. The measuring is done by a
process of its own, because a process that has once looked at a GPU keeps hundreds of megabytes of it.
"""

from __future__ import annotations

import asyncio
import sys

from app.engines.neural.placement import machine_bytes

_NONE = "none"
_MEASURE = (
    "import torch\n"
    "free = [torch.cuda.mem_get_info(n)[0] for n in range(torch.cuda.device_count())]\n"
    f"print(max(free, default='{_NONE}'))"
)
_NO_TORCH = "No module named 'torch'"
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
            if free is not None:
                return free
            self._has_gpu = False
        return await asyncio.to_thread(machine_bytes)

    async def _ask_gpus(self) -> int | None:
        """None where there is no GPU, or no PyTorch to ask it; 0 where one does not answer."""
        process = await asyncio.create_subprocess_exec(
            self._python,
            "-c",
            _MEASURE,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(_LIMIT_S):
                said, told = await process.communicate()
        except TimeoutError:
            return 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        answer = said.decode(errors="replace").strip()
        if answer == _NONE or _NO_TORCH in told.decode(errors="replace"):
            return None
        return int(answer) if answer.isdecimal() else 0
