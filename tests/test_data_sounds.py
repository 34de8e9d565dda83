"""Sounds of any width are brought to one length; they are split, hashed and set aside as photos are."""

from __future__ import annotations

import struct
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
from conftest import write_photos, write_sounds

from tlkit.data import augment_sound, batches, load, load_source, sounds
from tlkit.errors import InvalidInput


def write(path: Path, samples: np.ndarray, width: int = 2, rate: int = 8000) -> Path:
    """Write integers (samples, channels) as they are; those of 8 bits are unsigned in the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = samples[:, None] if samples.ndim == 1 else samples
    with wave.open(str(path), "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(width)
        file.setframerate(rate)
        values = samples + 128 if width == 1 else samples
        file.writeframes(b"".join(int(v).to_bytes(width, "little", signed=width > 1) for v in values.ravel()))
    return path


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_every_width_gives_the_same_share_of_full_scale(tmp_path: Path, width: int):
    full = 2 ** (8 * width - 1)
    found = sounds.decode(write(tmp_path / "a.wav", np.array([0, full // 2, -full, full - 1]), width))
    assert (found.shape, found.dtype) == ((4, 1), np.float32)
    np.testing.assert_allclose(found[:, 0], [0, 0.5, -1, 1 - 1 / full], rtol=1e-7)


def test_channels_are_averaged(tmp_path: Path):
    stereo = np.array([[2**14, 2**13], [0, -(2**14)]])
    assert sounds.decode(write(tmp_path / "a.wav", stereo))[:, 0].tolist() == [0.375, -0.25]


def test_a_sound_is_cut_at_its_end_or_followed_by_silence(tmp_path: Path):
    path = write(tmp_path / "a.wav", np.array([2**14, -(2**14)]))
    assert sounds.decode(path, 1).tolist() == [[0.5]]
    assert sounds.decode(path, 4).tolist() == [[0.5], [-0.5], [0], [0]]


def test_what_is_encoded_is_decoded():
    sound = np.array([[0.5], [-1.0], [0.25]], np.float32)
    assert np.array_equal(sounds.decode(sounds.encode(sound, 16000)), sound)
    assert sounds.decode(sounds.encode(np.array([[1.5]]), 16000)) == pytest.approx(1, abs=1e-4)  # and does not wrap


def damaged(path: Path) -> dict[str, bytes]:
    whole = write(path, np.arange(100)).read_bytes()
    no_format = whole[:20] + struct.pack("<H", 3) + whole[22:]
    return {
        "words": b"these are words",
        "nothing": b"",
        "half": whole[:144],
        "silence": write(path, np.zeros(0)).read_bytes(),
        "floats": no_format,
    }


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("words", "a.wav: not a WAV, FLAC or OGG file"),
        ("nothing", "a.wav: not a WAV, FLAC or OGG file"),
        ("half", r"a.wav: cut short: it announces 100 samples and has 50"),
        ("silence", r"a.wav: the sound is empty \(0 samples\)"),
        ("floats", r"a.wav: a WAV file in a format other than PCM \(3\): convert it to 16 bits"),
    ],
)
def test_a_sound_that_cannot_be_decoded_is_named(tmp_path: Path, kind: str, words: str):
    path = tmp_path / "a.wav"
    content = damaged(path)[kind]
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=words) as error:
        sounds.decode(path)
    assert "\n" not in str(error.value)
    with pytest.raises(InvalidInput, match=words):
        sounds.decode(content, name="a.wav")


def test_a_missing_sound_is_named(tmp_path: Path):
    with pytest.raises(InvalidInput, match=r"gone\.wav: No such file or directory"):
        sounds.decode(tmp_path / "gone.wav")


def test_one_long_recording_does_not_decide_the_length():
    lengths = [*range(1000, 1099), 80_000]
    contents = [sounds.encode(np.zeros((n, 1)), 8000) for n in lengths]
    assert sounds.frame(contents, [""] * 100) == (1600, 8000)  # 1098 samples are 0.137 s
    assert sounds.frame(contents[-3:], ["", "", ""]) == (80_000, 8000)
    assert sounds.frame(contents, [""] * 100, seconds=0.5) == (4000, 8000)
    with pytest.raises(InvalidInput, match=r"data\.seconds is 1e-06: less than one sample at 8,000"):
        sounds.frame(contents, [""] * 100, seconds=1e-6)


def streamed(announced: int, whole: int | None = None, samples: int = 800) -> bytes:
    """A WAV file as a program writes it that cannot go back to the header."""
    wav = bytearray(sounds.encode(np.linspace(-0.5, 0.5, samples)[:, None], 8000))
    wav[40:44] = struct.pack("<I", announced)
    if whole is not None:
        wav[4:8] = struct.pack("<I", whole)
    return bytes(wav)


@pytest.mark.parametrize(
    ("announced", "whole"),
    [
        (0xFFFFFFFF, 0xFFFFFFFF),  # ffmpeg
        (0xFFFFFFFF, None),
        (0x7FFFF000, 0x7FFFF024),  # SoX
        (0x80000000, 0x80000024),  # arecord
        (0xFFFFFFDB, 0xFFFFFFFF),
        (0, 0),
        (0, None),
    ],
)
def test_a_length_that_was_not_known_means_until_the_end(tmp_path: Path, announced: int, whole: int | None):
    path = tmp_path / "a.wav"
    path.write_bytes(streamed(announced, whole))
    assert np.array_equal(sounds.decode(path), sounds.decode(streamed(1600)))
    assert sounds.frame([path, path.read_bytes()], ["", ""]) == (800, 8000)
    path.write_bytes(path.read_bytes() + b"\x01")  # half a sample
    assert sounds.decode(path).shape == (800, 1)


@pytest.mark.parametrize(("announced", "whole"), [(1602, None), (1602, 1638), (100_000, 100_036), (0x7000_0000, None)])
def test_a_sound_that_was_cut_short_is_refused_and_decides_no_length(announced: int, whole: int | None):
    cut, good = streamed(announced, whole), sounds.encode(np.zeros((800, 1)), 8000)
    with pytest.raises(InvalidInput, match=rf"c: cut short: it announces {announced // 2:,} samples and has 800"):
        sounds.decode(cut, 100, name="c")
    with pytest.raises(InvalidInput, match="none of the 1 sounds can be decoded: c: cut short"):
        sounds.frame([cut], ["c"])
    assert sounds.frame([good, cut], ["a", "c"]) == (800, 8000)


def chunk(name: bytes, content: bytes, padded: bool = True) -> bytes:
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2 if padded else 0)


def test_other_chunks_are_stepped_over():
    plain = sounds.encode(np.linspace(-0.5, 0.5, 800)[:, None], 8000)
    form, data = plain[12:36], plain[36:]
    odd, unpadded = chunk(b"LIST", b"INFOISFT\x03\0\0\0abc"), chunk(b"bext", bytes(601), padded=False)
    for chunks in (
        chunk(b"JUNK", bytes(2**21)) + form + data,
        form + chunk(b"fact", bytes(4)) + odd + data + odd,
        odd + form + unpadded + data,
        data + odd + form,
        form + odd + data[:4] + b"\xff\xff\xff\xff" + data[8:],
    ):
        wav = b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks
        assert np.array_equal(sounds.decode(wav), sounds.decode(plain))
        assert sounds.frame([wav], [""]) == (800, 8000)
    long = chunk(b"ds64", struct.pack("<QQQI", 0, 1600, 800, 0)) + form + data[:4] + b"\xff\xff\xff\xff" + data[8:]
    wav = b"RF64\xff\xff\xff\xffWAVE" + long + odd
    assert np.array_equal(sounds.decode(wav), sounds.decode(plain))
    empty = plain[:40] + bytes(4) + odd
    with pytest.raises(InvalidInput, match=r"the sound is empty \(0 samples\)"):
        sounds.decode(empty)


def test_no_more_is_read_than_the_network_takes(tmp_path: Path):
    import tracemalloc

    path = tmp_path / "long.wav"
    path.write_bytes(sounds.encode(np.zeros((8, 1)), 8000)[:44])
    with open(path, "r+b") as file:
        file.seek(40)
        file.write(struct.pack("<I", 2**31))
        file.truncate(44 + 2**31)  # an hour, of which the disk holds nothing
    tracemalloc.start()
    try:
        assert sounds.decode(path, 100).shape == (100, 1)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", ["FLAC", "OGG"])
def test_compressed_sounds_are_decoded_where_soundfile_is_installed(tmp_path: Path, kind: str, capsys):
    soundfile = pytest.importorskip("soundfile")
    root = write_sounds(tmp_path / "sounds", {"high": 12, "low": 12})
    for path in root.rglob("*.wav"):
        if path.stem > "005":
            soundfile.write(path.with_suffix(f".{kind.lower()}"), sounds.decode(path), 8000, format=kind)
            reference = sounds.decode(path)
            path.unlink()
    found = root / "high" / f"011.{kind.lower()}"
    wav = write_sounds(tmp_path / "wav", {"high": 12, "low": 12}) / "high" / "011.wav"
    np.testing.assert_allclose(sounds.decode(found), sounds.decode(wav), atol=0 if kind == "FLAC" else 0.1)
    assert np.array_equal(sounds.decode(found, 100), sounds.decode(found.read_bytes())[:100])
    assert sounds.frame([found], [""]) == (len(reference), 8000)
    splits = load("folder", path=root)
    assert len(splits.train) + len(splits.val) + len(splits.test) == 24
    content = found.read_bytes()
    if kind == "FLAC":
        found.write_bytes(content[: len(content) // 2])
        with pytest.raises(InvalidInput, match=r"011\.flac: (cut short|not a FLAC or OGG file that can be decoded)"):
            sounds.decode(found)
        unknown = bytearray(content)
        unknown[21] &= 0xF0  # as into a pipe: the number of samples is 0
        unknown[22:26] = bytes(4)
        assert np.array_equal(sounds.decode(bytes(unknown)), sounds.decode(content))
        assert sounds.frame([bytes(unknown)], [""]) == (len(reference), 8000)
    with pytest.raises(InvalidInput, match="a: not a FLAC or OGG file that can be decoded"):
        sounds.decode(content[:4] + bytes(100), name="a")


def test_without_soundfile_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "soundfile", None)
    words = r"a\.flac: FLAC and OGG are decoded by the package soundfile: pip install 'tlkit\[sounds\]'"
    with pytest.raises(InvalidInput, match=words):
        sounds.decode(b"fLaC\0", name="a.flac")
    with pytest.raises(InvalidInput, match=words):
        sounds.frame([b"fLaC\0"], ["a.flac"])


def test_a_length_beyond_reason_is_refused():
    with pytest.raises(InvalidInput, match=r"data\.seconds is 1e\+09: more than 100 times the longest sound, 0\.1 s"):
        sounds.frame([sounds.encode(np.zeros((800, 1)), 8000)], ["a"], seconds=1e9)


@pytest.mark.parametrize(
    ("at", "value", "words"), [(24, b"\0\0\0\0", "0 samples a second"), (34, b"\x28\0", "40 bits a sample|not a WAV")]
)
def test_a_header_that_makes_no_sense_is_named(at: int, value: bytes, words: str):
    odd = bytearray(sounds.encode(np.zeros((800, 1)), 8000))
    odd[at : at + len(value)] = value
    if at == 34:
        odd[32:34] = b"\x05\0"
        with pytest.raises(InvalidInput, match=words):
            sounds.decode(bytes(odd), name="odd")
    else:
        with pytest.raises(InvalidInput, match=words):
            sounds.frame([bytes(odd)], ["odd"])


def test_the_extensible_header_of_plain_samples_is_read_on_every_python(tmp_path: Path):
    values = np.array([0, 2**22, -(2**23)])
    plain = write(tmp_path / "plain.wav", values, width=3).read_bytes()
    extra = struct.pack("<HHI", 22, 24, 4) + bytes.fromhex("0100000000001000800000aa00389b71")
    extensible = plain[:16] + struct.pack("<I", 40) + b"\xfe\xff" + plain[22:36] + extra + plain[36:]
    extensible = extensible[:4] + struct.pack("<I", len(extensible) - 8) + extensible[8:]
    np.testing.assert_array_equal(sounds.decode(extensible), sounds.decode(plain))
    assert sounds.frame([extensible], ["a"]) == (800, 8000)


def test_a_folder_of_sounds_has_splits_that_follow_from_content(tmp_path: Path):
    root = write_sounds(tmp_path / "sounds", {"high": 40, "low": 40})
    splits = load("folder", path=root)
    assert (splits.kind, splits.rate, splits.classes) == ("sounds", 8000, ["high", "low"])
    names = [name for part in (splits.train, splits.val, splits.test) for name in part.names]
    assert len(names) == len(set(names)) == 80
    assert splits.train.shape == (800, 1)
    assert splits.train.dtype == splits.train.read([0]).dtype == np.float32
    streamed = load("folder", path=root, memory=0)
    assert streamed.train.dtype == np.float32
    assert streamed.digest == splits.digest
    order = np.arange(len(splits.train))[::-1]
    assert np.array_equal(splits.train.read(order), streamed.train.read(order))
    expected = sounds.decode(root / splits.train.names[3], 800)
    assert np.array_equal(splits.train.read([3])[0], expected)
    batch, labels = next(iter(batches(splits.train, 8)))
    assert np.array_equal(np.asarray(batch), splits.train.read(range(8)))
    assert np.asarray(batch).dtype == np.float32
    assert np.array_equal(np.asarray(labels), splits.train.labels[:8])


def test_a_csv_of_sounds(tmp_path: Path):
    root = write_sounds(tmp_path, {"a": 3, "b": 3})
    rows = [
        f"{split}/../{kind}/{i:03}.wav,{kind},{split}"
        for i, split in enumerate(("train", "val", "test"))
        for kind in "ab"
    ]
    for split in ("train", "val", "test"):
        (root / split).mkdir()
    (root / "list.csv").write_text("\n".join(["path,label,split", *rows]), encoding="utf-8")
    splits = load("csv", path=root / "list.csv")
    assert [len(part) for part in (splits.train, splits.val, splits.test)] == [2, 2, 2]


def test_damaged_sounds_are_set_aside_or_an_error(tmp_path: Path, capsys: pytest.CaptureFixture):
    root = write_sounds(tmp_path / "sounds", {"a": 30, "b": 30})
    (root / "a" / "fake.wav").write_text("words", encoding="utf-8")
    assert len(load("folder", path=root).set_aside) == 1
    told = capsys.readouterr().err.splitlines()
    assert told[:2] == [
        "sounds set aside, because they cannot be decoded (1):",
        "a/fake.wav: not a WAV, FLAC or OGG file",
    ]
    with pytest.raises(InvalidInput, match=r"a/fake\.wav: .*; without data\.strict it would be set aside"):
        load("folder", path=root, strict=True)
    for path in root.rglob("*.wav"):
        path.write_bytes(b"")
    with pytest.raises(InvalidInput, match="none of the 61 sounds can be decoded"):
        load("folder", path=root)


def test_copies_across_splits_are_taken_out(tmp_path: Path, capsys: pytest.CaptureFixture):
    for split in ("train", "val", "test"):
        write_sounds(tmp_path / split, {"a": 5, "b": 5}, seed=["train", "val", "test"].index(split))
    (tmp_path / "train" / "a" / "copy.wav").write_bytes((tmp_path / "test" / "a" / "000.wav").read_bytes())
    splits = load("folder", path=tmp_path)
    assert splits.warnings == ["sounds taken out of train, because test has them too (1 of 11): train/a/copy.wav"]
    assert len(splits.train) == 10


def test_sounds_of_two_rates_are_refused(tmp_path: Path):
    root = write_sounds(tmp_path, {"a": 3, "b": 3})
    write(root / "b" / "other.wav", np.arange(100), rate=16000)
    words = r"b/other\.wav has 16,000 samples a second, 6 others have 8,000: bring all sounds to one rate"
    with pytest.raises(InvalidInput, match=words):
        load("folder", path=root)


def test_photos_and_sounds_together_are_refused(tmp_path: Path):
    write_photos(tmp_path / "mixed", {"a": 2, "b": 2})
    write(tmp_path / "mixed" / "b" / "s.wav", np.arange(100))
    with pytest.raises(InvalidInput, match=r"has photos and sounds \(such as a/000\.png and b/s\.wav\): give one"):
        load_source("folder", path=tmp_path / "mixed")
    (tmp_path / "list.csv").write_text("path,label\nmixed/a/000.png,a\nmixed/b/s.wav,b", encoding="utf-8")
    with pytest.raises(InvalidInput, match=r"list\.csv' has photos and sounds"):
        load_source("csv", path=tmp_path / "list.csv")


def test_an_empty_class_beside_sounds_is_told_to_hold_sounds(tmp_path: Path):
    root = write_sounds(tmp_path, {"a": 2, "b": 0})
    with pytest.raises(
        InvalidInput, match=r"/b' holds no sound \(0 other files\): put sounds there \(\.flac, \.oga, \.ogg, \.wav\) or"
    ):
        load_source("folder", path=root)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"size": (8, 8)}, r"size is \(8, 8\), which is for photos; the data are sounds"),
        ({"channels": 1}, "channels is 1, which is for photos; the data are sounds"),
    ],
)
def test_settings_of_photos_are_refused_for_sounds(tmp_path: Path, settings: dict, words: str):
    with pytest.raises(InvalidInput, match=words):
        load("folder", path=write_sounds(tmp_path, {"a": 2, "b": 2}), **settings)


def test_settings_of_sounds_are_refused_for_photos(tmp_path: Path):
    root = write_photos(tmp_path / "photos", {"a": 2, "b": 2})
    with pytest.raises(InvalidInput, match=r"seconds is 1\.0, which is for sounds; the data are photos"):
        load("folder", path=root, size=(8, 8), seconds=1.0)
    with pytest.raises(InvalidInput, match="size is None: give height and width"):
        load("folder", path=root)


class Draws:
    def __init__(self, *draws: float):
        self.draws = draws

    def uniform(self, low: float, high: float, size: int) -> np.ndarray:
        assert (low, high, size) == (-1, 1, len(self.draws))
        return np.array(self.draws)


def test_a_sound_moves_by_its_share_and_silence_moves_in():
    sound = np.arange(1, 11, dtype=np.float32)[:, None]
    later = augment_sound(sound, Draws(1, 0), shift=0.2)
    earlier = augment_sound(sound, Draws(-0.5, 0), shift=0.6)
    assert later[:, 0].tolist() == [0, 0, 1, 2, 3, 4, 5, 6, 7, 8]
    assert earlier[:, 0].tolist() == [4, 5, 6, 7, 8, 9, 10, 0, 0, 0]
    assert sound[0] == 1  # the original is left alone


def test_a_sound_becomes_louder_by_its_share():
    sound = np.array([[0.5], [-0.25]], np.float32)
    louder = augment_sound(sound, Draws(0.7, 0.5), contrast=0.4)
    np.testing.assert_allclose(louder, sound * 1.2, rtol=1e-6)
    assert louder.dtype == np.float32
    assert np.array_equal(augment_sound(sound, Draws(1, 1)), sound)
