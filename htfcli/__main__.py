"""`python -m htfcli` is `htf`; the entry point listens to Ctrl-C before it imports anything that takes time."""

import os
import sys

from htfcli.cli.interrupts import finish, listen, watch


def run() -> None:
    """Entry point of the `htf` script."""
    _open_closed_streams()
    listen()
    watch()
    from htfcli.app import main

    finish(main())


def _open_closed_streams() -> None:
    """Streams closed from the start (`>&-`) lead nowhere; else the next file that is opened would take their place."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_RDONLY if number == 0 else os.O_WRONLY)
            if opened != number:
                os.dup2(opened, number)
            setattr(sys, name, open(number, "w" if number else "r"))


if __name__ == "__main__":
    run()
