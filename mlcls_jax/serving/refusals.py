"""Answers to requests that are not served, as exceptions whose messages stay short."""

from starlette.exceptions import HTTPException

from mlcls_jax.readable import shorten

MAX_MESSAGE = 1000  # characters of an error
MAX_SHOWN = 80  # characters of it that repeat what was sent


def unavailable(reason: str, *, after_s: int = 1) -> HTTPException:
    """Return status 503, with when to come again."""
    return HTTPException(503, f"{reason}; try again", {"Retry-After": str(after_s)})


def unprocessable(reason: str) -> HTTPException:
    """Return status 422: the request itself is at fault."""
    return HTTPException(422, shorten(reason, MAX_MESSAGE))


def shown(text: str, *, quotes: bool = True) -> str:
    """Return the beginning of what was sent, fit for an error."""
    short = repr(shorten(text, MAX_SHOWN))
    return short if quotes else short[1:-1]
