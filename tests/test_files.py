"""Files and folders are there whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from fettle.errors import MissingFileError, StorageError
from fettle.files import recover, whole_file, whole_folder, write_json, write_text


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


def test_write(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "ü\n")
    write_text(tmp_path / "a.txt", "second\r\n")
    write_json(tmp_path / "b.json", {"ü": 1})
    assert (tmp_path / "a.txt").read_bytes() == b"second\r\n"
    assert (tmp_path / "b.json").read_text() == '{\n  "ü": 1\n}\n'
    assert names(tmp_path) == ["a.txt", "b.json"]


def test_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=rf"{path}: the disk is full"):
        write_text(path, "new")
    with (
        pytest.raises(StorageError, match=rf"{tmp_path / 'made'}: the disk is full"),
        whole_folder(tmp_path / "made") as part,
    ):
        (part / "x").write_text("x")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_full_disk_when_opening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(StorageError, match="the disk is full"):
        write_text(tmp_path / "a.txt", "new")


def half_a_file(path: Path, fault: BaseException) -> None:
    with whole_file(path) as part:
        part.write_text("half")
        raise fault


def half_a_folder(path: Path, fault: BaseException) -> None:
    with whole_folder(path) as part:
        (part / "new").write_text("half")
        raise fault


@pytest.mark.parametrize("fault", [KeyboardInterrupt(), ValueError("x"), MissingFileError("y")])
def test_a_block_that_fails_leaves_nothing(tmp_path: Path, fault: BaseException) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "kept").write_text("old")
    with pytest.raises(type(fault)):
        half_a_file(tmp_path / "f.txt", fault)
    with pytest.raises(type(fault)):
        half_a_folder(tmp_path / "a", fault)
    assert names(tmp_path) == ["a", "kept"]


def test_whole_file_and_folder(tmp_path: Path) -> None:
    with whole_file(tmp_path / "f.parquet") as part:
        assert part.suffix == ".parquet"
        part.write_text("x")
    for text in ("one", "two"):
        with whole_folder(tmp_path / "deep" / "a") as part:
            (part / text).write_text(text)
    assert names(tmp_path) == ["a", "deep", "f.parquet", "two"]


def test_a_folder_that_cannot_be_exchanged_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "kept").write_text("old")
    rename = Path.rename

    def refusing(self: Path, target: Path) -> Path:
        if self.name.startswith(".part-"):
            full()
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refusing)
    with pytest.raises(StorageError), whole_folder(tmp_path / "a") as part:
        (part / "new").write_text("x")
    assert names(tmp_path) == ["a", "kept"]


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "none" / "a", tmp_path / "file" / "a", tmp_path / ("a" * 300), tmp_path / "folder"):
        with pytest.raises(StorageError, match=r"cannot be written \("):
            write_text(path, "x")
    with pytest.raises(StorageError, match="cannot be written"), whole_folder(tmp_path / "file" / "a"):
        pass
    assert names(tmp_path) == ["file", "folder"]


def test_what_a_killed_process_left_is_tidied(tmp_path: Path) -> None:
    for name in (".old-0a1b2c3d-best", ".old-11111111-step-1", "step-1", ".part-22222222-step-2"):
        (tmp_path / name).mkdir()
    (tmp_path / ".old-0a1b2c3d-best" / "x").write_text("kept")
    (tmp_path / ".part-33333333-a.json").write_text("{")
    recover(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best", "step-1"]
    assert (tmp_path / "best" / "x").read_text() == "kept"
