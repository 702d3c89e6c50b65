"""Files are complete or absent."""

import multiprocessing
from pathlib import Path

import pytest
from travel.files import locked, replace, write_once


def test_a_file_is_written_once(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.eml"
    assert write_once(path, b"first")
    assert not write_once(path, b"second")
    assert path.read_bytes() == b"first"
    assert [file.name for file in path.parent.iterdir()] == ["a.eml"]


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("travel.files.os.fsync", fail)
    for write in (write_once, replace):
        with pytest.raises(OSError, match="no space"):
            write(tmp_path / "a.eml", b"first")
    assert list(tmp_path.iterdir()) == []


def add_one(path: Path, times: int) -> None:
    for _ in range(times):
        with locked(path.with_suffix(".lock")):
            replace(path, str(int(path.read_text()) + 1).encode())


def test_a_lock_keeps_processes_apart(tmp_path: Path) -> None:
    path = tmp_path / "count"
    path.write_text("0")
    spawn = multiprocessing.get_context("fork")
    workers = [spawn.Process(target=add_one, args=(path, 50)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert path.read_text() == "150"
