"""What can be wrong with a racer or its artefact."""

from racer_jax.data.errors import DataError


class ArtefactError(DataError):
    """A folder that cannot be read or written as an artefact.

    Use this when you catch whatever can be wrong with an artefact.
    """


class NewerFormatError(ArtefactError):
    """An artefact written by a newer version of this package.

    Use this when you catch an artefact that needs an upgrade of this package.
    """


class CorruptError(ArtefactError):
    """An artefact whose content is not what was written: bits flipped, files edited or lost.

    Use this when you catch an artefact that was damaged.
    """


class OtherPoolError(ArtefactError):
    """An artefact for another pool of models.

    Use this when you catch an artefact of other models than yours.
    """


class OtherWeightsError(ArtefactError):
    """An artefact whose router was trained on an encoder with other weights.

    Use this when you catch an artefact that needs another encoder.
    """


class NotCalibratedError(ValueError):
    """A step that needs a threshold, before there is one.

    Use this when you catch a use before `calibrate`.
    """

    def __init__(self, step: str) -> None:
        super().__init__(f"{step} needs a threshold: call calibrate(table, alpha) first")
        self._step = step

    def __reduce__(self) -> tuple[type["NotCalibratedError"], tuple[str]]:
        return NotCalibratedError, (self._step,)


class ForkedError(RuntimeError):
    """A computation in a process that was forked after JAX was used.

    Use this when you catch JAX after a fork, such as in a worker process.
    """

    def __init__(self) -> None:
        super().__init__(
            "this process was forked after JAX was used, and JAX would wait in it for ever: start "
            "workers by multiprocessing.get_context('spawn') and call Racer.load in each"
        )

    def __reduce__(self) -> tuple[type["ForkedError"], tuple[()]]:
        # A pool sends it from the worker it is raised in; one that cannot be read stops the pool.
        return ForkedError, ()


class OverlapError(ValueError):
    """Calibration on questions the router was trained on.

    Use this when you catch calibration questions that were trained on.
    """


class NoRecordError(ValueError):
    """A change of the pool or of the options, where the artefact does not keep what it needs.

    Use this when you catch an artefact of an older version that cannot be changed without data.
    """

    def __init__(self, step: str) -> None:
        super().__init__(
            f"{step} needs what calibration saw, which an artefact of an older version does not "
            f"keep: calibrate it once more on labelled queries"
        )


class UnknownGroupError(ValueError):
    """A query of a group without calibration queries, where calibration said that it is an error.

    Use this when you catch a query that names a wrong group, or none.
    """


class UnknownGroupWarning(UserWarning):
    """A query of a group without calibration queries, or of none, where thresholds are by group.

    Use this when you filter warnings; each unknown group is warned of once.
    """
