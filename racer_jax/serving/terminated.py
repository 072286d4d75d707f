"""The end of a process by SIGTERM, as an exception."""


class Terminated(BaseException):
    """The process was asked to end by SIGTERM; what was counted is saved on the way out.

    Use this when you catch the end of a process that keeps a state.
    """
