"""Digests of files that are remembered, and what of a broken memory."""

import hashlib
import os
import shutil

from prudent.workflow.remembered import Memory


def test_contents_are_known_whatever_their_times(tmp_path):
    """As cp -p, tar and rsync -a leave them: other content, an older time of modification."""
    place = tmp_path / "memory.json"
    data = tmp_path / "data.csv"
    data.write_text("text\nfirst\n")
    before = Memory(place)
    first = before.of(data)
    before.save()
    other = tmp_path / "other.csv"
    other.write_text("text\nother\n")
    os.utime(other, ns=(1, data.stat().st_mtime_ns))
    shutil.copy2(other, data)
    assert Memory(place).of(data).sha256 != first.sha256
    assert first.lines == 2 and first.sha256 == hashlib.sha256(b"text\nfirst\n").hexdigest()


def test_a_digest_is_computed_once_for_a_version(tmp_path, monkeypatch):
    place, folder = tmp_path / "memory.json", tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.json").write_text("1")
    (folder / "sub/b").write_text("2")
    memory = Memory(place)
    digest = memory.digest(folder)
    memory.save()
    again = Memory(place)
    monkeypatch.setattr("builtins.open", None)  # nothing is read again
    assert again.digest(folder) == digest and not again.changed
    monkeypatch.undo()
    (folder / "sub/b").write_text("3")
    assert Memory(place).digest(folder) != digest
    assert Memory(place).digest(tmp_path / "nothing") is None


def test_a_memory_that_is_broken_or_cannot_be_written_is_no_error(tmp_path):
    (tmp_path / "data").write_text("x")
    for text in ("", "[", "[1]", '{"a": 1}'):
        (tmp_path / "memory.json").write_text(text)
        memory = Memory(tmp_path / "memory.json")
        assert memory.of(tmp_path / "data").lines == 1
    memory = Memory(tmp_path / "data" / "memory.json")
    memory.of(tmp_path / "data")
    memory.save()
