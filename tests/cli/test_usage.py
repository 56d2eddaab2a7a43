from __future__ import annotations

from typing import Annotated, Literal

import pytest
import typer

from htfcli.cli.usage import shortest_call, usage_message

EPILOG = """\b
Examples:
  htf paint wall.png --colour red | htf inspect -
  htf paint other.png"""


def command():
    app = typer.Typer(rich_markup_mode=None, add_completion=False)

    @app.command(epilog=EPILOG)
    def paint(file: str, colour: Annotated[Literal["red", "green"], typer.Option()] = "red", coats: int = 1) -> None:
        pass

    return typer.main.get_command(app)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["x", "--color", "red"], "No such option: --color. Did you mean --colour? See 'paint --help'."),
        (["x", "--zzz"], "No such option: --zzz. See 'paint --help'."),
        ([], "Missing argument 'file'. Shortest useful call: htf paint wall.png --colour red. See 'paint --help'."),
        (["x", "--colour", "gren"], "Invalid value for '--colour': 'gren' is not one of 'red', 'green'. Did you mean green? See 'paint --help'."),
        (["x", "--coats", "many"], "Invalid value for '--coats': Input should be a valid integer, unable to parse string as an integer. See 'paint --help'."),
    ],
)  # fmt: skip
def test_messages(args, message):
    with pytest.raises(typer.TyperException) as error:
        command().main(args, prog_name="paint", standalone_mode=False)
    assert usage_message(error.value, "htf") == message


def test_a_command_without_examples():
    assert shortest_call(None) == ""
