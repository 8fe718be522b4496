"""Checkpoints of an interrupted training are used only by the same training."""

from ifguide.files.artifacts import write_json
from ifguide.models.checkpoints import keep_only_own_checkpoints
from ifguide.models.training_run import resumable

SETTINGS = {"epochs": 2, "learning_rate": 0.001, "log_steps": 10, "checkpoint_steps": 50}


def test_checkpoints_of_the_same_training_are_kept(tmp_path):
    checkpoints = tmp_path / ".0.checkpoints"
    keep_only_own_checkpoints(checkpoints, {"training": resumable(SETTINGS)})
    write_json(checkpoints / "checkpoint-50" / "trainer_state.json", {})
    again = SETTINGS | {"log_steps": 1, "checkpoint_steps": 5}
    keep_only_own_checkpoints(checkpoints, {"training": resumable(again)})
    assert (checkpoints / "checkpoint-50" / "trainer_state.json").exists()


def test_checkpoints_of_another_training_are_discarded(tmp_path):
    checkpoints = tmp_path / ".0.checkpoints"
    keep_only_own_checkpoints(checkpoints, {"training": resumable(SETTINGS)})
    write_json(checkpoints / "checkpoint-50" / "trainer_state.json", {})
    edited = SETTINGS | {"epochs": 1}
    keep_only_own_checkpoints(checkpoints, {"training": resumable(edited)})
    assert not (checkpoints / "checkpoint-50").exists()


def test_checkpoints_without_a_record_are_discarded(tmp_path):
    checkpoints = tmp_path / ".0.checkpoints"
    write_json(checkpoints / "checkpoint-50" / "trainer_state.json", {})
    keep_only_own_checkpoints(checkpoints, {"training": resumable(SETTINGS)})
    assert not (checkpoints / "checkpoint-50").exists()
