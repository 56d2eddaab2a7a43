"""Entry point of `htf` and `python -m htfcli`; handles Ctrl-C before it imports anything that takes time."""

import os
import sys

from htfcli.cli.interrupts import finish, listen, watch


def run() -> None:
    """Run the command line and exit."""
    _open_closed_streams()
    listen()
    watch()
    from htfcli.app import main

    finish(main())


def _open_closed_streams() -> None:
    """Open the null device for streams that are closed (`>&-`), as the next file opened would take their place."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_RDONLY if number == 0 else os.O_WRONLY)
            if opened != number:
                os.dup2(opened, number)
            setattr(sys, name, open(number, "w" if number else "r"))


if __name__ == "__main__":
    run()
