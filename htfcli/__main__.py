"""`python -m htfcli` is `htf`; the entry point listens to Ctrl-C before it imports anything that takes time."""

from htfcli.leaving import finish, listen, watch


def run() -> None:
    """Entry point of the `htf` script."""
    listen()
    watch()
    from htfcli.app import main

    finish(main())


if __name__ == "__main__":
    run()
