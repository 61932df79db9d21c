import errno
import fcntl
import os
from pathlib import Path

import pytest

from harness.data.corpus import DataConfig
from harness.data.tokenizer import TokenizerConfig
from harness.data.tokens import prepare
from harness.errors import UserError
from harness.files import folder_unless_refused, make_folder, remove_temporary, write_atomically
from harness.tracking.cells import CellMirror
from harness.tracking.mirrors import MirrorTask, wait_for_mirrors


def test_replaces_whole_and_leaves_nothing_beside(tmp_path):
    path = tmp_path / "a.txt"
    write_atomically(path, "one")
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_writer_that_fails_leaves_the_old_content(tmp_path):
    path = tmp_path / "a.txt"
    write_atomically(path, "old")

    def half(temporary):
        temporary.write_text("ha")
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError):
        write_atomically(path, half)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_what_a_killed_writer_left_is_removed(tmp_path):
    def die(temporary):
        temporary.write_text("ha")
        os._exit(9)

    if (child := os.fork()) == 0:
        write_atomically(tmp_path / "a.pt", die)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    write_atomically(tmp_path / "b.pt", "whole")
    assert len(os.listdir(tmp_path)) == 2
    remove_temporary(tmp_path)
    assert os.listdir(tmp_path) == ["b.pt"]


def test_a_full_disk_is_one_sentence():
    # /dev/full refuses every write, as a full disk does
    from harness.files import file_error

    with pytest.raises(OSError) as caught, open("/dev/full", "w") as file:
        file.write("x" * 100_000)
    message = str(file_error(__import__("pathlib").Path("runs/x/run.json"), caught.value))
    assert message.startswith("no space left to write runs/x/run.json")
    assert "\n" not in message


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "outputs").write_text("")
    with pytest.raises(UserError, match="choose an output_directory"):
        make_folder(tmp_path / "outputs" / "cpu")


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_said_before_any_work(tmp_path, monkeypatch, number):
    def refuse(descriptor, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    said = f"lies on a file system without file locks \\({os.strerror(number)}\\)"
    refused = pytest.raises(UserError, match=f"^{tmp_path}/sweep {said}.*: choose another output_directory")
    with refused, folder_unless_refused(tmp_path / "sweep"):
        pytest.fail("it began")
    data = DataConfig(source="files", path=str(tmp_path / "a.txt"), store_directory=str(tmp_path / "stores"))
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(UserError, match=f"^{tmp_path}/stores {said}.*: choose another data.store_directory"):
        prepare(data, TokenizerConfig(kind="bytes"), 1000)
    assert sorted(os.listdir(tmp_path)) == ["a.txt", "stores"] and not os.listdir(tmp_path / "stores")


def test_what_tracks_a_sweep_needs_no_locks(tmp_path, monkeypatch):
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb" / "mirrors.lock").touch()
    monkeypatch.setattr(fcntl, "flock", lambda descriptor, operation: os.close(-1))  # an OSError
    assert wait_for_mirrors(tmp_path, 0)
    mirror = CellMirror(MirrorTask(str(tmp_path), ["c"], "offline", "", "p", None), "c")
    assert mirror._locked(wait=False)


def test_a_refused_command_leaves_no_folder_and_keeps_what_was_there(tmp_path):
    (tmp_path / "old").mkdir()
    with pytest.raises(UserError), folder_unless_refused(tmp_path / "old" / "new" / "sweep"):
        raise UserError("no")
    assert os.listdir(tmp_path) == ["old"] and not os.listdir(tmp_path / "old")
    with folder_unless_refused(tmp_path / "kept"):
        pass
    assert (tmp_path / "kept").is_dir()


def test_a_folder_that_takes_no_files_is_one_sentence():
    with pytest.raises(UserError, match="cannot write /proc/none/x"):
        make_folder(Path("/proc/none/x"))
    with pytest.raises(UserError, match="cannot write /proc/x.json"):
        write_atomically(Path("/proc/x.json"), "")
