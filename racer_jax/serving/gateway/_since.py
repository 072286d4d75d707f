"""Which audits a calibration may use: those of the traffic as it is now.

A monitor that has raised an alarm says that the traffic has changed. Audits of before and after the
change together are a sample of neither, so after an alarm somebody has to say which are meant.
"""

from datetime import UTC, datetime
from typing import Literal, TypeAlias

from racer_jax.data.errors import DataError
from racer_jax.serving.gateway._databases import Connection
from racer_jax.serving.gateway._identifiers import seconds_of

# Seconds since 1970; since the latest alarm; all; None where nobody has said it.
Since: TypeAlias = float | Literal["alarm", "all"] | None
# Names of `meta`: route, artefact and kind follow. Values: the words, and seconds since 1970.
ALARM, ALARM_TIME = "alarm {}", "time of alarm {}"


def time_of(text: str) -> float:
    """Seconds since 1970 of a time in ISO 8601, in UTC where it has no offset, or of a decision.

    Raises:
      ValueError: If it is neither.

    >>> time_of("1970-01-01T01:00"), time_of("1970-01-01T01:00+01:00")
    (3600.0, 0.0)
    """
    seconds = seconds_of(text)
    if seconds is not None:
        return seconds
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            "must be a time such as 2026-03-31T12:00 (UTC) or 2026-03-31T12:00+02:00, or the id of "
            f"a decision, got {text!r}"
        ) from None
    return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()


def shown_time(seconds: float) -> str:
    """A time in ISO 8601, as `time_of` reads it.

    >>> shown_time(0.0)
    '1970-01-01T00:00:00+00:00'
    """
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def first_time(
    connection: Connection, artefact: str, since: Since, place: str, route: str | None = None
) -> float:
    """Seconds since 1970 after which the audits must have been made.

    Args:
      connection: The state.
      artefact: 12 digits of the artefact's checksum.
      since: What was asked for.
      place: The state, for errors.
      route: Only alarms of this route; of all where None.

    Raises:
      DataError: If there was an alarm and nothing was asked for; or the alarm that is asked for is
        not there, or its time is not known.
    """
    if isinstance(since, float):
        return since
    if since == "all":
        return -1.0
    rows = connection.execute("select name, value from meta").fetchall()
    about = f" {artefact} "
    named = [(name, value) for name, value in rows if about in name]
    prefix = "" if route is None else route + about
    words = [value for name, value in named if name.startswith(ALARM.format(prefix))]
    times = [float(value) for name, value in named if name.startswith(ALARM_TIME.format(prefix))]
    of_route = "" if route is None else f" on the route {route!r}"
    if since == "alarm":
        if times:
            return max(times)
        what = f"holds no alarm of the artefact {artefact}{of_route}"
        if words:
            what = f"does not say when the alarm of the artefact {artefact}{of_route} came"
        raise DataError(f"{what}: give --since TIME", path=place)
    if words:
        raise DataError(
            f"holds an alarm of the artefact {artefact}{of_route} ({'; '.join(words)}). Audits of "
            "before and after a change are a sample of neither: give --since-alarm for requests "
            "after the alarm, --since TIME if you know when it changed, or --all if nothing has "
            "changed",
            path=place,
        )
    return -1.0
