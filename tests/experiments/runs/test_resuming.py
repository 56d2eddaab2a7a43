from __future__ import annotations

import pytest

from htfcli.config.tensors import FitConfig
from htfcli.engine.runtime.distributed import Workers
from htfcli.errors import ConfigError, DataError
from htfcli.experiments.runs.resuming import absolute, merged, open_folder

SAVED = FitConfig(lr=0.5, width=4).model_dump(mode="json")


def test_saved_settings_hold_unless_given():
    found = merged(FitConfig(iterations=7), SAVED, {"iterations"})
    assert (found.iterations, found.lr, found.width) == (7, 0.5, 4)
    assert merged(FitConfig(width=4), SAVED, set()).width == 4  # the same may be said again


def test_what_cannot_change():
    with pytest.raises(ConfigError) as error:
        merged(FitConfig(init_std=0.3), SAVED, {"iterations"})
    assert str(error.value) == "--init-std cannot change when a run is resumed (got 0.3). Leave it out."


def test_what_is_given_must_suit_the_saved_settings():
    saved = FitConfig(solver="second-order").model_dump(mode="json")
    with pytest.raises(ConfigError, match="lr"):
        merged(FitConfig(lr=0.3), saved, {"lr"})


@pytest.mark.parametrize(("output", "force", "given"), [("-", False, "-o -"), ("r", True, "--force")])
def test_options_that_exclude_resuming(output, force, given):
    with pytest.raises(ConfigError, match=rf"--resume continues a run folder as it is \(got {given}, "):
        open_folder(output, "x", Workers(), lambda saved: None, resume=True, force=force)


def test_what_is_wrong_shows_before_a_folder_is_made(tmp_path):
    def prepare(saved):
        assert saved is None
        raise DataError("wrong")

    with pytest.raises(DataError, match="wrong"):
        open_folder(str(tmp_path / "r"), "x", Workers(), prepare)
    assert not (tmp_path / "r").exists()


def test_only_the_first_process_has_a_folder(tmp_path):
    assert open_folder(str(tmp_path / "r"), "x", Workers(1, 2), lambda saved: None) is None
    assert not (tmp_path / "r").exists()
    folder = open_folder(str(tmp_path / "r"), "x", Workers(0, 2), lambda saved: None)
    assert folder is not None
    folder.close()


def test_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert absolute("a.npy") == str(tmp_path / "a.npy")
    assert absolute("-") is absolute(None) is None
