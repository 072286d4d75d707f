"""Dollars of a day: what the requests of a key have cost, and what those under way may cost yet."""

import time
from collections.abc import Mapping

from racer_jax.serving.gateway._databases import Connection
from racer_jax.serving.gateway._errors import GatewayError

SECONDS_OF_A_DAY = 86400.0
_DAYS_KEPT = 4
Spent = dict[tuple[str, int], float]


class Reservation:
    """Dollars that are kept for a request until it has ended; giving them back twice is once.

    Args:
      reserved: What is reserved, by client.
      client: Whose request it is.
      dollars: How much is kept for it.
    """

    def __init__(self, reserved: dict[str, list["Reservation"]], client: str, dollars: float):
        self._reserved, self._client = reserved, client
        self.dollars = dollars
        reserved.setdefault(client, []).append(self)

    def give_back(self) -> None:
        """The request has ended: nothing is kept for it."""
        mine = self._reserved.get(self._client, [])
        if self in mine:
            mine.remove(self)
        if not mine:
            self._reserved.pop(self._client, None)


class Budgets:
    """What clients have spent, by day, and what is kept for their requests under way.

    What a request may cost at most is kept before its calls are made, where that is known; where
    it is not, what requests of this client cost on average. Reservations live in memory alone:
    after a restart there are none.
    """

    def __init__(self) -> None:
        self.spent: Spent = {}
        self._reserved: dict[str, list[Reservation]] = {}
        self._means: dict[str, tuple[int, float]] = {}

    def reserve(self, client: str, limit: float, dollars: float, *, is_most: bool) -> Reservation:
        """Keeps the dollars of a request.

        Args:
          client: Whose request it is.
          limit: Dollars that the client may spend in a day.
          dollars: What the request may cost, as far as known.
          is_most: Whether it can cost no more than that.

        Raises:
          GatewayError: If the day has too little left (429), or might have, because of what is
            under way (429 with a time to wait).
        """
        self.check(client, limit)
        if not is_most:
            num, total = self._means.get(client, (0, 0.0))
            dollars = max(dollars, total / num if num else 0.0)
        left, under_way = limit - self.today(client), self.reserved(client)
        if is_most and dollars > left:
            raise GatewayError(
                429,
                "insufficient_quota",
                f"this key may spend {limit:g} dollars a day (UTC), and has {left:.3g} left; this "
                f"request may cost {dollars:.3g}: ask for fewer tokens (max_completion_tokens)",
                code="racer_budget",
            )
        if under_way and dollars > left - under_way:
            raise _under_way(limit)
        return Reservation(self._reserved, client, dollars)

    def check(self, client: str, limit: float) -> None:
        """Refuses a request of a client whose day is spent.

        Raises:
          GatewayError: If it is.
        """
        if self.today(client) >= limit:
            raise GatewayError(
                429,
                "insufficient_quota",
                f"this key may spend {limit:g} dollars a day (UTC), and has spent them",
                code="racer_budget",
            )

    def reserved(self, client: str) -> float:
        """Dollars that are kept for requests of a client that are under way."""
        return sum(one.dollars for one in self._reserved.get(client, ()))

    def spend(self, client: str, dollars: float) -> None:
        """Counts dollars of a client's request against its day."""
        key = (client, today())
        num, total = self._means.get(client, (0, 0.0))
        self._means[client] = num + 1, total + dollars
        if key not in self.spent:  # a clock that jumps comes back to a day that had begun
            days = list(dict.fromkeys(day for _, day in self.spent))[-_DAYS_KEPT:]
            self.spent = {k: v for k, v in self.spent.items() if k[1] in days}
        self.spent[key] = self.spent.get(key, 0.0) + dollars

    def today(self, client: str) -> float:
        """Dollars of a client's requests of this day (UTC)."""
        return self.spent.get((client, today()), 0.0)

    def take(self, written: Mapping[tuple[str, int], float]) -> None:
        """Takes over what all replicas have written; what ended since then is not among it."""
        for key, dollars in written.items():
            self.spent[key] = max(self.spent.get(key, 0.0), dollars)


def _under_way(limit: float) -> GatewayError:
    return GatewayError(
        429,
        "rate_limit_error",
        f"this key may spend {limit:g} dollars a day (UTC), and its requests under way may need "
        "what is left: send it again when they have ended",
        code="racer_budget",
        headers={"retry-after": "1"},
    )


def today() -> int:
    """Days since 1970, UTC."""
    return int(time.time() // SECONDS_OF_A_DAY)


def spent_today(connection: Connection) -> Spent:
    """Dollars of each client's requests of this day."""
    day = today()
    rows = connection.execute(
        "select client, sum(coalesce(charged, dollars)) from decision where at >= ? and "
        "coalesce(charged, dollars) is not null group by client",
        [day * SECONDS_OF_A_DAY],
    ).fetchall()
    return {(client, day): float(dollars) for client, dollars in rows}
