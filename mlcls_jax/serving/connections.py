"""Connections with the limits that uvicorn's lack: their number, and the time for headers."""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from mlcls_jax.serving.options import Options

SURPLUS = 64  # connections above the limit that are told so; any more are just closed
SURPLUS_S = 1.0  # time that these have for their headers


class Connection(H11Protocol):
    """A connection that ends when nothing is being answered and nothing comes.

    Without that, whoever sends half of the headers, goes on with a body after its answer, or does
    not read an answer, would keep a connection and its memory for ever.
    """

    def __init__(self, *, options: Options, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._options = options
        self._deadline: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        """See asyncio."""
        super().connection_made(transport)
        surplus = len(self.connections) - self._options.max_connections
        if surplus > SURPLUS:
            transport.abort()
        elif surplus > 0:
            self.app_state = {**self.app_state, "is_surplus": True}
        self._watch()

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """See uvicorn."""
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        super().connection_lost(exc)
        self._deadline, self._stalled = _ended(self._deadline), _ended(self._stalled)

    def pause_writing(self) -> None:
        """See asyncio."""
        super().pause_writing()
        self._stalled = self.loop.call_later(self._options.body_timeout_s, self.transport.abort)

    def resume_writing(self) -> None:
        """See asyncio."""
        super().resume_writing()
        self._stalled = _ended(self._stalled)

    def _watch(self) -> None:
        is_answering = self.cycle is not None and not self.cycle.response_complete
        if is_answering:
            self._deadline = _ended(self._deadline)
        elif self._deadline is None:
            self._deadline = self.loop.call_later(self._patience(), self._end)

    def _patience(self) -> float:
        if self.conn.their_state is not h11.IDLE:  # the body of what has been answered
            return self._options.body_timeout_s
        is_surplus = self.app_state.get("is_surplus", False)
        return SURPLUS_S if is_surplus else self._options.header_timeout_s

    def _end(self) -> None:
        self.transport.close()  # when what has been written is sent
        self._deadline = self.loop.call_later(self._options.body_timeout_s, self.transport.abort)


def _ended(timer: asyncio.TimerHandle | None) -> None:
    """Cancel a timer, if it runs."""
    if timer is not None:
        timer.cancel()
