"""How the help of a command looks: a short usage, its own options first, text that is wrapped."""

import argparse
import textwrap
from collections.abc import Iterable
from typing import Any


class HelpPage(argparse.RawDescriptionHelpFormatter):
    """Help whose usage names what must be typed; the options are listed below it.

    Use this when a parser of a command is made.
    """

    def add_usage(
        self,
        usage: str | None,
        actions: Iterable[argparse.Action],
        groups: Iterable[Any],
        prefix: str | None = None,
    ) -> None:
        """The usage line: what is optional is `[options]`.

        Use this when argparse asks for it: nobody else does.
        """
        needed = [action for action in actions if action.required or not action.option_strings]
        options = argparse.Action([], dest="options", metavar="[options]")
        super().add_usage(usage, [options, *needed], [], prefix)

    def add_text(self, text: str | None) -> None:
        """A text; a description is wrapped, examples stay as they are.

        Use this when argparse asks for it: nobody else does.
        """
        if text is not None and "\n" not in text and text is not argparse.SUPPRESS:
            text = textwrap.fill(text, self._width)
        super().add_text(text)
