from __future__ import annotations

import hashlib
import http.server
import io
import tarfile
import threading
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from htfcli.config.images import IsSameClassConfig
from htfcli.engine.vision.datasets import cifar10
from htfcli.engine.vision.datasets.drawn_shapes import SHAPES, draw_shapes
from htfcli.engine.vision.datasets.labelled import Labelled, normalization_of, stratified_split
from htfcli.engine.vision.datasets.sources import SOURCES, load_source
from htfcli.errors import ConfigError, DataError


def keys(images: Labelled) -> set[bytes]:
    return {image.numpy().tobytes() for image in images.pixels}


# --- what all sources promise -----------------------------------------------------------------------------------------


@pytest.fixture(params=sorted(SOURCES))
def config(request, tmp_path):
    if request.param == "cifar10":
        archive(tmp_path / "a.tar.gz", batches())
        return IsSameClassConfig(source="cifar10", data_dir=str(tmp_path / "a.tar.gz"))
    if request.param == "folder":
        folder(tmp_path / "images")
        return IsSameClassConfig(source="folder", data_dir=str(tmp_path / "images"))
    return IsSameClassConfig(source=request.param)


def test_every_source(config):
    source = load_source(config)
    classes = len(source.classes)
    for part in (source.train, source.test):
        assert part.pixels.dtype == torch.uint8
        assert part.labels.dtype == torch.int64
        assert len(part.pixels) == len(part.labels)
        counts = torch.bincount(part.labels)
        assert len(counts) == classes
        assert counts.min() >= 0.7 * counts.max()
    assert not keys(source.train) & keys(source.test)
    again = load_source(config)
    assert torch.equal(source.train.pixels, again.train.pixels)
    assert torch.equal(source.test.labels, again.test.labels)
    normalised = source.normalization(source.train.pixels)
    assert torch.isfinite(normalised).all()


def test_digits_split_as_asked():
    source = load_source(IsSameClassConfig(source="digits", test_images=500))
    assert (len(source.train.labels), len(source.test.labels)) == (1297, 500)
    share = torch.bincount(source.test.labels) / torch.bincount(torch.cat([source.train.labels, source.test.labels]))
    assert (share - 500 / 1797).abs().max() < 0.01
    assert len(load_source(IsSameClassConfig(source="digits")).test.labels) == 1797 // 4


# --- shapes -----------------------------------------------------------------------------------------------------------


def test_shapes_vary_within_a_class():
    labels = np.arange(500) % len(SHAPES)
    pixels = draw_shapes(labels, np.random.default_rng(0)).astype(float)
    assert len(SHAPES) >= 10
    for label in range(len(SHAPES)):
        own = pixels[labels == label]
        grey = own.mean(1)
        assert grey.std(0).min() > 20, "some pixel hardly varies"
        pairs = np.corrcoef(grey.reshape(len(grey), -1))
        assert np.abs(pairs[np.triu_indices(len(grey), 1)]).mean() < 0.5, "images of a class look alike"
        assert own.mean((2, 3)).std(0).min() > 20, "colours hardly vary"


def test_shapes_show_something():
    """Their distance functions are negative inside and cover a fair part of the plane, each its own."""
    axis = np.linspace(-1.3, 1.3, 200, dtype=np.float32)
    x, y = np.meshgrid(axis, axis)
    inside = {name: distance(x, y) < 0 for name, distance in SHAPES.items()}
    for name, area in inside.items():
        assert 0.08 < area.mean() < 0.5, name
        assert not area[0].any(), name
        for other in inside:
            if other != name:
                assert (area & inside[other]).sum() < 0.9 * (area | inside[other]).sum(), (name, other)


def test_seeds_of_shapes():
    one, same, other = (load_source(IsSameClassConfig(images=100, seed=seed)) for seed in (5, 5, 6))
    assert torch.equal(one.train.pixels, same.train.pixels)
    assert not keys(one.train) & keys(other.train)


# --- splits and normalization -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("test", [3, 10, 57, 97])
def test_stratified_split(test):
    labels = torch.tensor([0] * 70 + [1] * 25 + [2] * 5)
    images = Labelled(torch.arange(100, dtype=torch.uint8).view(100, 1, 1, 1), labels)
    train, held = stratified_split(images, test, np.random.default_rng(0))
    assert len(held.labels) == test
    assert sorted([*train.pixels.flatten().tolist(), *held.pixels.flatten().tolist()]) == list(range(100))
    for part in (train, held):
        assert torch.equal(part.labels, labels[part.pixels.flatten().long()])
        assert torch.bincount(part.labels, minlength=3).min() >= 1
    due = torch.bincount(labels) * test / 100
    assert ((torch.bincount(held.labels) - due).abs() < 2).all()


@pytest.mark.parametrize(
    ("counts", "test", "message"),
    [
        ((5, 5), 1, "the images cannot be split (got 1 to test on, allowed 2 to 8 of 10, so that both sides have all 2 classes)."),
        ((5, 5), 9, "the images cannot be split (got 9 to test on, allowed 2 to 8 of 10, so that both sides have all 2 classes)."),
        ((5, 1), 2, "the images cannot be split (got 2 to test on, allowed classes of two images or more)."),
    ],
)  # fmt: skip
def test_splits_that_cannot_be(counts, test, message):
    labels = torch.tensor([label for label, count in enumerate(counts) for _ in range(count)])
    with pytest.raises(ConfigError) as error:
        stratified_split(Labelled(torch.zeros(len(labels), 1, 1, 1), labels), test, np.random.default_rng(0))
    assert str(error.value) == message


def test_normalization():
    pixels = torch.randint(0, 256, (40, 2, 5, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pixels[:, 1] = 7
    normalization = normalization_of(pixels)
    normalised = normalization(pixels)
    assert abs(float(normalised[:, 0].mean())) < 1e-6
    assert abs(float(normalised[:, 0].std(correction=0)) - 1) < 1e-6
    assert normalised[:, 1].abs().max() < 1e-6  # a constant channel is only shifted


# --- cifar10 ----------------------------------------------------------------------------------------------------------


def batches(records: int = 20, seed: int = 0) -> dict[str, bytes]:
    """Files as in the public archive, with fewer records."""
    generator = np.random.default_rng(seed)
    files = {"batches.meta.txt": b"airplane\nautomobile\n"}
    for name in (*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin"):
        found = generator.integers(0, 256, (records, 3073), dtype=np.uint8)
        found[:, 0] = np.arange(records) % 10
        files[name] = found.tobytes()
    return files


def archive(path, files: dict[str, bytes], prefix: str = "cifar-10-batches-bin/") -> bytes:
    with tarfile.open(path, "w:gz") as tar:
        tar.addfile(folder_entry := tarfile.TarInfo(prefix.rstrip("/")))
        folder_entry.type = tarfile.DIRTYPE
        for name, data in files.items():
            entry = tarfile.TarInfo(prefix + name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path.read_bytes()


def test_cifar10_from_an_archive_and_from_folders(tmp_path):
    files = batches()
    archive(tmp_path / "a.tar.gz", files)
    inner = tmp_path / "all" / "cifar-10-batches-bin"
    inner.mkdir(parents=True)
    for name, data in files.items():
        (inner / name).write_bytes(data)
    for path in (tmp_path / "a.tar.gz", tmp_path / "all", inner):
        train, test = cifar10.read_cifar10(path)
        assert (len(train.labels), len(test.labels)) == (100, 20)
        record = np.frombuffer(files["data_batch_2.bin"], np.uint8)[3 * 3073 : 4 * 3073]
        assert train.labels[23] == record[0]
        assert np.array_equal(train.pixels[23].numpy(), record[1:].reshape(3, 32, 32))
        assert np.array_equal(test.pixels[0].numpy().ravel(), np.frombuffer(files["test_batch.bin"], np.uint8)[1:3073])


def test_nothing_of_an_archive_is_written(tmp_path):
    archive(tmp_path / "a.tar.gz", batches(), prefix="../../")
    before = sorted(tmp_path.rglob("*"))
    cifar10.read_cifar10(tmp_path / "a.tar.gz")
    assert sorted(tmp_path.rglob("*")) == before


BAD_ARCHIVES = {
    "cut off": (lambda data: data[: len(data) // 2], "is not a whole .tar.gz archive: "),
    "damaged": (lambda data: data[:5000] + bytes(64) + data[5064:], "is not a whole .tar.gz archive: "),
    "no archive": (lambda data: b"hello" * 100, "is not a whole .tar.gz archive: "),
    "empty": (lambda data: b"", "is not a whole .tar.gz archive: "),
}


@pytest.mark.parametrize("name", BAD_ARCHIVES)
def test_bad_archives(tmp_path, name):
    change, message = BAD_ARCHIVES[name]
    path = tmp_path / "a.tar.gz"
    path.write_bytes(change(archive(path, batches())))
    with pytest.raises(DataError) as error:
        cifar10.read_cifar10(path)
    assert str(error.value).startswith(f"{path} {message}")
    assert str(error.value).endswith(". Fetch it again.")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"data_batch_3.bin": None}, "PATH is not CIFAR-10 in binary form: it has no data_batch_3.bin (allowed cifar-10-binary.tar.gz, or a folder of its files)."),
        ({"test_batch.bin": bytes(3072)}, "test_batch.bin is cut off (got 3072 bytes, allowed a multiple of 3073)."),
        ({"data_batch_1.bin": b""}, "data_batch_1.bin is cut off (got 0 bytes, allowed a multiple of 3073)."),
        ({"test_batch.bin": b"\x0a" + bytes(3072)}, "test_batch.bin and its like have a label out of range (got 10, allowed 0 to 9)."),
        ({"test_batch.bin": bytes(3073)}, "test_batch.bin and its like have no image of a class (got automobile)."),
        ({"other": bytes(30_730_001)}, "other is too large for CIFAR-10 (got 30730001 bytes, allowed at most 30730000)."),
        ({f"f{k}": b"" for k in range(40)}, "PATH has too many members for CIFAR-10 (allowed 32)."),
    ],
)  # fmt: skip
def test_archives_of_something_else(tmp_path, changed, message):
    files = {name: data for name, data in {**batches(), **changed}.items() if data is not None}
    archive(tmp_path / "a.tar.gz", files)
    with pytest.raises(DataError) as error:
        cifar10.read_cifar10(tmp_path / "a.tar.gz")
    assert str(error.value) == message.replace("PATH", str(tmp_path / "a.tar.gz"))


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A site on this machine that serves a small archive, and an empty cache."""
    served = tmp_path / "site"
    served.mkdir()
    data = archive(served / cifar10.ARCHIVE, batches())

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(served))

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(cifar10, "URL", f"http://127.0.0.1:{server.server_port}/{cifar10.ARCHIVE}")
    monkeypatch.setattr(cifar10, "MD5", hashlib.md5(data).hexdigest())
    yield server
    server.shutdown()
    server.server_close()


def test_download(site, capfd):
    config = IsSameClassConfig(source="cifar10", download=True)
    source = load_source(config)
    assert len(source.train.labels) == 100
    site.shutdown()
    assert len(load_source(config).train.labels) == 100  # from the cache
    assert capfd.readouterr() == ("", "")


def test_download_of_something_else(site, monkeypatch, tmp_path):
    monkeypatch.setattr(cifar10, "MD5", "0" * 32)
    with pytest.raises(DataError) as error:
        cifar10.download()
    assert str(error.value) == (
        f"what {cifar10.URL} sent is not CIFAR-10: its MD5 is wrong (allowed {'0' * 32}). "
        "Fetch cifar-10-binary.tar.gz by other means and name it with --data-dir."
    )
    assert not [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]


def test_download_without_a_network(site, monkeypatch):
    monkeypatch.setattr(cifar10, "URL", "http://127.0.0.1:9/x.tar.gz")
    with pytest.raises(DataError) as error:
        cifar10.download()
    assert str(error.value).startswith("cannot download http://127.0.0.1:9/x.tar.gz: ")
    assert "\n" not in str(error.value)


def test_cifar10_must_be_somewhere(tmp_path):
    with pytest.raises(ConfigError, match=r"^source cifar10 does not know where CIFAR-10 is\. Name cifar-10-binary"):
        load_source(IsSameClassConfig(source="cifar10"))
    with pytest.raises(DataError, match="none does not exist"):
        cifar10.read_cifar10(tmp_path / "none")


# --- folder -----------------------------------------------------------------------------------------------------------


def folder(path, classes=("cat", "dog", "eel"), each=8, size=(12, 10), mode="RGB", seed=0):
    """Random images of a size (width, height) in sub-folders."""
    generator = np.random.default_rng(seed)
    for name in classes:
        (path / name).mkdir(parents=True)
        for k in range(each):
            pixels = generator.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).convert(mode).save(path / name / f"{k}.png")
    return path


def read(path, **options) -> object:
    return load_source(IsSameClassConfig(source="folder", data_dir=str(path), **options))


def test_folder_has_what_its_files_have(tmp_path):
    folder(tmp_path / "f")
    (tmp_path / "f/cat/notes.txt").write_text("not an image")
    (tmp_path / "f/.hidden").mkdir()
    source = read(tmp_path / "f", test_images=6)
    assert source.classes == ("cat", "dog", "eel")
    assert source.train.pixels.shape == (18, 3, 10, 12)
    files = {
        np.asarray(Image.open(file)).transpose(2, 0, 1).tobytes(): file.parent.name
        for file in (tmp_path / "f").rglob("*.png")
    }
    for part in (source.train, source.test):
        for image, label in zip(part.pixels, part.labels, strict=True):
            assert files.pop(image.numpy().tobytes()) == source.classes[label]
    assert not files


def test_grey_folders_have_one_channel(tmp_path):
    assert read(folder(tmp_path / "grey", mode="L")).train.pixels.shape[1] == 1
    folder(tmp_path / "mixed", mode="L")
    Image.new("P", (12, 10)).save(tmp_path / "mixed/cat/9.gif")
    assert read(tmp_path / "mixed").train.pixels.shape[1] == 3


def test_sizes_are_that_of_the_first_image_or_as_asked(tmp_path):
    folder(tmp_path / "f")
    Image.new("RGB", (31, 7), "red").save(tmp_path / "f/eel/odd.jpg")
    assert read(tmp_path / "f").train.pixels.shape[2:] == (10, 12)
    assert read(tmp_path / "f", image_size=16).train.pixels.shape[2:] == (16, 16)


def test_folder_with_a_split_of_its_own(tmp_path):
    folder(tmp_path / "f/train", each=5)
    folder(tmp_path / "f/test", each=2, size=(20, 20), seed=1)
    source = read(tmp_path / "f")
    assert source.train.pixels.shape == (15, 3, 10, 12)
    assert source.test.pixels.shape == (6, 3, 10, 12)
    with pytest.raises(ConfigError, match=r"has a split of its own, train and test \(got test-images 3\)"):
        read(tmp_path / "f", test_images=3)
    (tmp_path / "f/test/dog").rename(tmp_path / "f/test/fox")
    with pytest.raises(
        DataError, match=r"other classes in test than in train \(got cat, eel, fox, allowed cat, dog, eel"
    ):
        read(tmp_path / "f")


def bomb(path):
    """A small PNG that claims to be huge."""
    buffer = io.BytesIO()
    Image.new("RGB", (1, 1)).save(buffer, "png")
    data = bytearray(buffer.getvalue())
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    path.write_bytes(data)


def large(path):
    Image.new("1", (8000, 8000)).save(path)


FOLDERS = {
    "one class": (lambda f: folder(f, classes=("cat",)), "F has too few sub-folders (got 1, allowed two or more, each with the images of a class)."),
    "no folder": (lambda f: f.write_text("x"), "F is not a folder."),
    "empty class": (lambda f: (folder(f) / "fox").mkdir(), "F/fox has no images (allowed .png .jpg .jpeg .bmp .gif .webp .tif .tiff .ppm .pgm)."),
    "no image": (lambda f: (folder(f) / "cat/9.png").write_text("hello"), "cannot read F/cat/9.png: not an image."),
    "cut off": (lambda f: (folder(f) / "cat/0.png").write_bytes((f / "cat/0.png").read_bytes()[:200]), "cannot read F/cat/0.png: "),
    "bomb": (lambda f: bomb(folder(f) / "dog/9.png"), "F/dog/9.png has too many pixels (allowed 50,000,000 in all)."),
    "large": (lambda f: large(folder(f) / "dog/9.png"), "F/dog/9.png has too many pixels (got 8000 x 8000, allowed 50,000,000 in all)."),
    "16 bits": (lambda f: Image.fromarray(np.zeros((4, 4), np.uint16)).save(folder(f) / "dog/9.png"), "F/dog/9.png does not have 8 bits a channel (got mode I;16)."),
    "a folder": (lambda f: (folder(f) / "dog/9.png").mkdir(), "cannot read F/dog/9.png: "),
}  # fmt: skip


@pytest.mark.parametrize("name", FOLDERS)
def test_bad_folders(tmp_path, name):
    make, message = FOLDERS[name]
    make(tmp_path / "f")
    with pytest.raises(DataError) as error:
        read(tmp_path / "f")
    assert str(error.value).startswith(message.replace("F", str(tmp_path / "f"), 1))
    assert "\n" not in str(error.value)


def test_folders_too_large_to_hold(tmp_path, monkeypatch):
    monkeypatch.setattr("htfcli.engine.vision.datasets.image_folder._MOST_BYTES", 2**10)
    with pytest.raises(DataError, match=r"f is too large \(got 24 images of 10 x 12, allowed 0 GiB\)\. Resize them by"):
        read(folder(tmp_path / "f"))
