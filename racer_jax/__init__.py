"""RACER in JAX: small sets of LLMs from any router's scores, calibrated to a risk of at most alpha."""

TYPE_CHECKING = False  # to those who read types it is True; `typing` itself takes time to import
if TYPE_CHECKING:
    from racer_jax.core.calibration import calibrate, critical_scores, miss_budget
    from racer_jax.core.nonconformity import augment, gap, inverse_probability, null_score, tie_break
    from racer_jax.core.prediction_sets import abstains, avoidably_missed, misrouted, prediction_sets, set_size

__version__ = "0.1.0"

__all__ = [
    "abstains",
    "augment",
    "avoidably_missed",
    "calibrate",
    "critical_scores",
    "gap",
    "inverse_probability",
    "misrouted",
    "miss_budget",
    "null_score",
    "prediction_sets",
    "set_size",
    "tie_break",
]

# Imported when first asked for: the command has to be ready for Ctrl-C before JAX is there, which takes a second.
_HOMES = {
    "calibration": ("calibrate", "critical_scores", "miss_budget"),
    "nonconformity": ("augment", "gap", "inverse_probability", "null_score", "tie_break"),
    "sets": ("abstains", "avoidably_missed", "misrouted", "prediction_sets", "set_size"),
}


def __getattr__(name: str) -> object:
    if name not in __all__ and name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    for home, names in _HOMES.items():
        module = import_module(f"{__name__}.{home}")
        globals().update({each: getattr(module, each) for each in names})
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
