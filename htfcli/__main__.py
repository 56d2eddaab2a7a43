"""`python -m htfcli` is `htf`."""

from htfcli.app import run

if __name__ == "__main__":
    run()
