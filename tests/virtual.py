"""Virtual time for asyncio: a loop whose clock jumps to the next timer instead of waiting."""

import asyncio
import selectors


class _Jumping(selectors.DefaultSelector):
    """Never waits for a timer: moves the loop's clock there."""

    loop = None

    def select(self, timeout=None):
        found = super().select(0)
        if found or timeout is None:
            return found or super().select(None)
        self.loop.now += max(0.0, timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time, in seconds from 1,000."""

    def __init__(self):
        self.now = 1_000.0
        selector = _Jumping()
        selector.loop = self
        super().__init__(selector)

    def time(self):
        return self.now

    def nanoseconds(self):
        """The clock to give to a router."""
        return round(self.now * 1e9)

    def run(self, coroutine):
        """Run a coroutine to its end, and close the loop."""
        try:
            return self.run_until_complete(coroutine)
        finally:
            self.close()
