"""One model after another until a test accepts an answer: the way of answering for code and proofs.

The models of the set are called in the order of their plausibility. A test that accepts right
answers alone keeps the promise of the set with fewer calls: what is accepted before the set is used
up is right. If it accepts every right answer too, the promise is one for the answer that is shown;
of a test that rejects some, the answer shown may be wrong though the set held a right one.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence

import aiohttp
import msgspec

from racer_jax.serving.gateway._answers import Answer
from racer_jax.serving.gateway._errors import CallFailedError
from racer_jax.serving.gateway._panel import Asking, all_failed
from racer_jax.serving.gateway._replies import Fields, Reply
from racer_jax.serving.gateway.settings import Verifier

_LONGEST_REPLY = 1 << 16
_UNSOUND = "the verifier is not said to be sound: it may accept a wrong answer"
# Whether a reply passes the test; None where the test itself failed.
Verify = Callable[[Fields, Reply], Awaitable[bool | None]]


async def until_accepted(
    asking: Asking, models: Sequence[str], verify: Verify, sound: bool
) -> Answer:
    """The first answer that a test accepts; the most plausible where it accepts none.

    Args:
      asking: How to ask.
      models: Whom to ask, most plausible first.
      verify: The test.
      sound: Whether it accepts right answers alone.

    Raises:
      GatewayError: If no model gives an answer.
    """
    void = [] if sound else [_UNSOUND]
    failed = 0
    for model in models:
        asking.total += 1
        try:
            reply = asking.panel.replies[model] = await asking.one(model)
        except CallFailedError as error:
            asking.panel.failed[model] = error
            continue
        accepted = await verify(asking.fields, reply)
        if accepted:
            # Whoever was lost before was not needed.
            return Answer([reply], more={"verifier": "accepted"}, void=void, settled=True)
        failed += accepted is None
    replies = [asking.panel.replies[m] for m in models if m in asking.panel.replies]
    if not replies:
        raise all_failed(asking.panel.failed)
    said = "failed" if failed == len(replies) else "accepted none"
    return Answer(replies[:1], more={"verifier": said}, void=void)


def verifier_of(settings: Verifier, session: aiohttp.ClientSession) -> Verify:
    """The test of a route.

    Args:
      settings: Its settings.
      session: The session of all calls.
    """

    async def verify(fields: Fields, reply: Reply) -> bool | None:
        body = msgspec.json.encode(
            {"model": reply.model, "messages": fields["messages"], "message": reply.message}
        )
        try:
            async with asyncio.timeout(settings.seconds):
                if settings.url is not None:
                    return await _asked(session, settings.url, body)
                return await _run(settings.command or (), body)
        except (aiohttp.ClientError, OSError, TimeoutError, LookupError, TypeError, ValueError):
            return None

    return verify


async def _asked(session: aiohttp.ClientSession, url: str, body: bytes) -> bool | None:
    """What a test at an address says, `{"accepted": true}`."""
    headers = {"content-type": "application/json"}
    async with session.post(url, data=body, headers=headers, allow_redirects=False) as response:
        if response.status != 200:
            return None
        content = await response.content.read(_LONGEST_REPLY)
    accepted = msgspec.json.decode(content)["accepted"]
    return accepted if isinstance(accepted, bool) else None


async def _run(command: Sequence[str], body: bytes) -> bool | None:
    """What a program says that reads the answer: 0 accepts it, 1 does not, all else is a failure.

    It runs without a shell and gets nothing of the answer but on its standard input.
    """
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=quiet, stderr=quiet
    )
    try:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            await process.communicate(body)
    finally:
        if process.returncode is None:  # no time left, or the client has gone
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    return {0: True, 1: False}.get(int(process.returncode or 0))
