"""A measured rate of recovery as a run folder: settings and final numbers."""

from __future__ import annotations

import time
from collections.abc import Callable

from htfcli.config.records import Record
from htfcli.config.recovery import RecoveryConfig
from htfcli.engine.fitting.recovery import measure_recovery
from htfcli.files.own.run_folder import RunFolder, versions


def run_recovery(
    config: RecoveryConfig, output: str, should_stop: Callable[[int], bool], *, force: bool = False
) -> Record:
    """Measure a rate of recovery and write its run folder; returns its summary.

    Args:
        config: settings. output: the run folder. should_stop: called often; True interrupts. force: replace a run.
    Raises:
        ConfigError: if the settings do not fit each other, or the folder holds a run. Interrupted: on request.
    """
    with RunFolder(output, force=force, resumable=False) as folder:
        started = time.monotonic()
        folder.write_config(config.model_dump(mode="json", exclude_unset=True), versions())
        summary = {**measure_recovery(config, should_stop), "seconds": round(time.monotonic() - started, 2)}
        folder.write_summary(summary)
    return summary
