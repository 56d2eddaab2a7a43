"""Ctrl-C and SIGTERM end a process wherever it is. The waits below are a minute long; no test waits for them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from htfcli.cli.interrupts import StopSignals, terminate

START = "from htfcli.cli.interrupts import listen, watch; listen(); watch(); import sys\n"
SWALLOWS = """
import time
print("ready", flush=True)
try:
    time.sleep(60)
except BaseException:
    pass
time.sleep(60)
"""
COMPUTES = "import hashlib; print('ready', flush=True); hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)\n"


def interrupted(script, folder, number):
    """Exit code and stderr of Python code that is sent a signal when it has said that it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.5)  # for what comes next to begin
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    finally:
        process.kill()
    return process.returncode, err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_import_that_swallows_exceptions(tmp_path, number):
    (tmp_path / "swallows.py").write_text(SWALLOWS)
    assert interrupted(START + "import swallows", tmp_path, number) == (130, "Error: interrupted.\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_computation_that_lets_no_handler_run(tmp_path, number):
    assert interrupted(START + COMPUTES, tmp_path, number) == (130, "Error: interrupted.\n")


def test_a_state_that_may_have_to_be_saved_is_waited_for(tmp_path):
    """The same computation, shorter, where a run would save its state after it."""
    script = START + "from htfcli.cli.interrupts import StopSignals\nwith StopSignals() as stop:\n    "
    script += COMPUTES.replace("10**9", "10**7 // 2").strip() + "\n    print(stop.received, file=sys.stderr)\n"
    assert interrupted(script, tmp_path, signal.SIGINT) == (0, "True\n")


def test_ctrl_c_in_the_background_of_a_script_stays_ignored():
    script = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n" + START
    script += "import os; os.kill(os.getpid(), signal.SIGINT)\nfrom htfcli.cli.interrupts import StopSignals\n"
    script += "with StopSignals() as stop: os.kill(os.getpid(), signal.SIGINT)\nprint('off' if stop.received else 'on')"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "on\n"


def test_patience_ends():
    def patient():
        with StopSignals(patience=0.05) as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.received
            time.sleep(60)

    with pytest.raises(KeyboardInterrupt):
        patient()
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_asking_in_time_ends_the_wait():
    with StopSignals(patience=0.2) as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.received
    time.sleep(0.3)


def test_outside_imports_it_is_an_exception():
    with pytest.raises(KeyboardInterrupt):
        terminate(signal.SIGINT, None)
