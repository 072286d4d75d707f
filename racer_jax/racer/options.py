"""The options of a calibration beside alpha, named once for every call that takes them."""

from collections.abc import Iterable
from typing import TypedDict

from racer_jax.racer.unknown_groups import UnknownGroup
from racer_jax.risk_control.group_scores import Fallback


class CalibrationOptions(TypedDict, total=False):
    """The options of a calibration beside alpha: keywords of `Racer.calibrate` and `recalibrate`.

    Use this when several racers are calibrated alike: make it once and hand it on with `**`.

    Attributes:
      by_group: Where the table has groups, a threshold for each, so that the risk is at most alpha
        in each; true by default.
      fallback: What a group too small for alpha gets: `"all"` models, the default, which keeps the
        promise (unless sets are capped, the null mode is `never` or the loss is `grade`), or the
        `"pooled"` threshold, which makes none for it.
      delta: The risk is to be at most alpha with confidence 1 - delta in the calibration set; None,
        the default, for a risk of at most alpha on average over calibration sets.
      unknown_group: What a query gets whose group is unknown or missing, where thresholds are by
        group: `"all"` models, the default, which keeps the promise as for `fallback`, the
        `"pooled"` threshold of all groups, which makes none for it, or an `"error"`. The first two
        warn once for each group.
      max_models: No query calls more models than this; None, the default, for no limit. The risk is
        at most alpha as before, down to the least alpha that so few models can reach; below it a
        warning says so.
      min_models: Every query calls this many models at least, the most plausible ones, so that none
        is left without an answer; 0 by default. The promise is the same; `added_models` is the
        price.
    """

    by_group: bool
    fallback: Fallback
    delta: float | None
    unknown_group: UnknownGroup
    max_models: int | None
    min_models: int


DEFAULT_OPTIONS = CalibrationOptions(
    by_group=True,
    fallback="all",
    delta=None,
    unknown_group="all",
    max_models=None,
    min_models=0,
)


def check_option_names(names: Iterable[str]) -> None:
    """Refuses an option that a calibration does not have.

    Use this when options come as keywords or from a file.

    Raises:
      TypeError: If a name is unknown.
    """
    for name in names:
        if name not in DEFAULT_OPTIONS:
            known = ", ".join(DEFAULT_OPTIONS)
            raise TypeError(f"an option must be one of {known}, got {name!r}")
