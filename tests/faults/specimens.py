"""Valid files of every format that is read, small, and by which entry points they are read."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.io
import torch
from PIL import Image
from pyarrow import feather

from htfcli.app import main
from htfcli.config.completion_run import CompletionRunConfig
from htfcli.config.images import PathfinderConfig
from htfcli.config.plan import PlanConfig
from htfcli.config.tensors import FitConfig
from htfcli.config.vision import TrainCnnConfig
from htfcli.engine.ranks.hierarchical_rank import spectra_of
from htfcli.experiments.runs.generate_pathfinder import PathfinderRun
from htfcli.experiments.runs.image_input import load_images
from htfcli.experiments.sweeps.plan import planned_runs, read_plan
from htfcli.files.completion_input import load_data, load_queries
from htfcli.files.description import describe_input
from htfcli.files.foreign.readers import read_mask
from htfcli.files.inputs import load_observations, load_tensor
from htfcli.files.locating import locate
from htfcli.files.networks import read_weights, to_network
from htfcli.files.own import container
from htfcli.files.own.axes import Axis
from htfcli.files.own.completion import to_completion
from htfcli.files.own.records import flatten, load_records
from tests.faults import fuzzing

Read = Callable[[str], object]
TENSOR = np.arange(24.0).reshape(2, 3, 4)
ROWS = [(i, j, k, float(TENSOR[i, j, k])) for i in range(2) for j in range(3) for k in range(4)]
TABLE = [("oslo", "2024-01", 1.5), ("oslo", "2024-02", ""), ("rome", "2024-01", 2.25), ("rome", "2024-02", -3e5)]
PATHS = {"size": 16, "draw_size": 64, "path_length": 2, "distractors": 1, "train": 4, "test": 2}


@dataclass(frozen=True)
class Specimen:
    """A format.

    Args:
        suffix: of the file. make: its bytes. read: what is called with its path. mutate: ways to break it.
    """

    suffix: str
    make: Callable[[Path], bytes]
    read: tuple[Read, ...]
    mutate: tuple[Callable, ...] = (fuzzing.mutate,)
    share: float = 1.0  # of the cases: fewer where each one takes a process


def written(*argv: object) -> Callable[[Path], bytes]:
    """Bytes of a file that htf writes; `-o FILE` is added, and earlier specimens are in the folder."""

    def make(folder: Path) -> bytes:
        assert main([*map(str, argv), "-q", "-o", str(folder / "made.safetensors"), "--force"]) == 0
        return (folder / "made.safetensors").read_bytes()

    return make


def run_file(name: str, *argv: object) -> Callable[[Path], bytes]:
    def make(folder: Path) -> bytes:
        (folder / "data").write_bytes(DATA(folder))
        (folder / "data").rename(folder / "data.safetensors")
        (folder / "pairs.safetensors").write_bytes(PAIRS(folder))
        place = [f"{folder}/{a}" if str(a).endswith((".safetensors", ".csv")) else str(a) for a in argv]
        output = (
            ["-o", str(folder / "filled.npy"), "--run", str(folder / "run")]
            if argv[0] == "complete"
            else ["-o", str(folder / "run")]
        )
        assert main([*place, "-q", *output, "--force"]) == 0
        return (folder / "run" / name).read_bytes()

    return make


DATA = written("generate", "tensor", "--order", 3, "--dim", 3, "--rank", 2, "--observed", 18)
PAIRS = written("generate", "is-same-class", "--images", 40, "--height", 32, "--width", 64, "--train", 6, "--test", 4)
CNN = ("train-cnn", "pairs.safetensors", "--model", "resnet-mini", "--widths", "4,4", "--blocks", "1,1", "--epochs", 1)
FIT = ("fit", "data.safetensors", "--width", 2, "--iterations", 4, "--record-every", 2)


def saved(save: Callable[[io.BytesIO], object]) -> Callable[[Path], bytes]:
    def make(folder: Path) -> bytes:
        file = io.BytesIO()
        save(file)
        return file.getvalue()

    return make


def text(lines: list[tuple], delimiter: str, first: int = 0) -> Callable[[Path], bytes]:
    rows = [delimiter.join(str(f + first if isinstance(f, int) else f) for f in line) for line in lines]
    return lambda folder: ("\n".join(rows) + "\n").encode()


def of_table(path: str) -> object:
    return load_data(locate(path), CompletionRunConfig())


def of_queries(path: str) -> object:
    axes = (Axis("city", 2, ("oslo", "rome")), Axis("month", 2, ("2024-01", "2024-02")))
    return load_queries(path, axes, "value", CompletionRunConfig())


def ranks(path: str) -> object:
    return [spectrum.rank() for spectrum in spectra_of(load_tensor(path))]


def artefact(path: str) -> container.Artefact:
    return container.read(Path(path))


def unfinished(path: str) -> object:
    return PathfinderRun(PathfinderConfig(**PATHS), path.removesuffix(".part"), resume=True)


def unfinished_file(folder: Path) -> bytes:
    run = PathfinderRun(PathfinderConfig(**PATHS), str(folder / "paths.safetensors"))
    run._save(folder / "paths.safetensors.part")
    return (folder / "paths.safetensors.part").read_bytes()


def records(path: str) -> object:
    return [dict(flatten(record)) for record in load_records(path).records]


def picture(kind: str) -> Callable[[Path], bytes]:
    pixels = np.random.default_rng(0).integers(0, 255, (9, 12, 3), np.uint8)
    return saved(lambda file: Image.fromarray(pixels).save(file, kind))


def as_folder(path: str) -> object:
    """The file as an image of a folder of images, beside good ones."""
    folder = Path(path).parent / "images"
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(5):
            good = folder / name / f"{number}.png"
            if not good.exists():
                Image.new("RGB", (12, 9), (number, 0, 9)).save(good)
    with_suffix = folder / "a" / ("x" + Path(path).suffix)
    with_suffix.write_bytes(Path(path).read_bytes())
    return load_images(str(folder), size=8)


def plan(path: str) -> object:
    read = read_plan(path)
    size = len(read.seeds)
    for values in read.grid.values():
        size *= len(values)
    return planned_runs(read) if size < 1000 else None


def parquet(**columns: object) -> Callable[[Path], bytes]:
    return saved(lambda file: pq.write_table(pa.table(columns), file))


def sheet(folder: Path) -> bytes:
    book = openpyxl.Workbook()
    for row in (("city", 2001, 2002), ("oslo", 1.5, None), ("rome", 2.5, 3.5)):
        book.active.append(row)
    book.save(folder / "made.xlsx")
    return (folder / "made.xlsx").read_bytes()


ITERATION = {
    "kind": "iteration",
    "iteration": 0,
    "train_loss": 0.5,
    "nodes": [{"node": "{0}", "modes": [0], "effective_rank": 1.5}],
}
CONTAINER = (fuzzing.mutate, fuzzing.mutate_container, fuzzing.mutate_container)

SPECIMENS: dict[str, Specimen] = {
    "observations": Specimen(".safetensors", DATA, (describe_input, load_observations, of_table), CONTAINER),
    "rank-one sensing": Specimen(".safetensors", written("generate", "tensor", "--task", "sensing", "--order", 3, "--dim", 3, "--rank", 2, "--observed", 9), (describe_input, load_observations), CONTAINER),
    "matrix sensing": Specimen(".safetensors", written("generate", "tensor", "--target", "matrix", "--task", "sensing", "--dims", "3,4", "--rank", 1, "--observed", 9), (describe_input, load_observations), CONTAINER),
    "factorization htf": Specimen(".safetensors", run_file("model.safetensors", *FIT), (describe_input, ranks), CONTAINER),
    "factorization cp": Specimen(".safetensors", run_file("model.safetensors", *FIT, "--model", "cp"), (describe_input, ranks), CONTAINER),
    "checkpoint of fit": Specimen(".safetensors", run_file("checkpoint.safetensors", *FIT), (describe_input,), CONTAINER),
    "completion": Specimen(".safetensors", run_file("model.safetensors", "complete", "data.safetensors", "--width", 1), (describe_input, lambda p: to_completion(artefact(p)), ranks), CONTAINER),
    "image pairs": Specimen(".safetensors", PAIRS, (describe_input, load_images), CONTAINER),
    "pathfinder": Specimen(".safetensors", written("generate", "pathfinder", *(f"--{k.replace('_', '-')}={v}" for k, v in PATHS.items()), "--workers", 1), (describe_input, load_images), CONTAINER),
    "unfinished images": Specimen(".safetensors.part", unfinished_file, (unfinished,), CONTAINER),
    "cnn": Specimen(".safetensors", run_file("model.safetensors", *CNN), (describe_input, lambda p: to_network(artefact(p)), read_weights), CONTAINER),
    "npy": Specimen(".npy", saved(lambda f: np.save(f, TENSOR)), (describe_input, of_table, ranks)),
    "npy mask": Specimen(".npy", saved(lambda f: np.save(f, TENSOR > 5)), (read_mask,)),
    "npz": Specimen(".npz", saved(lambda f: np.savez_compressed(f, x=TENSOR)), (describe_input, of_table), (fuzzing.mutate, fuzzing.mutate_member)),
    "pt": Specimen(".pt", saved(lambda f: torch.save({"x": torch.from_numpy(TENSOR)}, f)), (describe_input, of_table, read_weights), (fuzzing.mutate, fuzzing.mutate_member)),
    "mat": Specimen(".mat", saved(lambda f: scipy.io.savemat(f, {"x": TENSOR}, do_compression=False)), (describe_input, of_table), share=0.03),
    "csv": Specimen(".csv", text([("i", "j", "k", "value"), *ROWS], ","), (describe_input, of_table, load_tensor)),
    "csv with labels": Specimen(".csv", text([("city", "month", "value"), *TABLE], ","), (of_table, of_queries)),
    "tsv": Specimen(".tsv", text(ROWS, "\t"), (describe_input, of_table, of_queries)),
    "tns": Specimen(".tns", text(ROWS, " ", 1), (describe_input, of_table, load_observations)),
    "tns.gz": Specimen(".tns.gz", lambda folder: gzip.compress(text(ROWS, " ", 1)(folder), mtime=0), (describe_input, of_table), (fuzzing.mutate, fuzzing.gzipped)),
    "parquet": Specimen(".parquet", parquet(i=[0, 0, 1], j=[0, 1, 1], v=[1.0, 2.0, 3.5]), (describe_input, of_table)),
    "parquet with labels": Specimen(".parquet", parquet(city=["oslo", "rome"], month=["2024-01", "2024-02"], value=[1.0, None]), (of_table, of_queries)),
    "csv of a spreadsheet": Specimen(".csv", lambda folder: "Ort;2021;2022\r\nKöln;1.234,5;\r\nBonn;0,25;1.000,5\r\n".encode("cp1252"), (describe_input, of_table)),
    "csv in UTF-16": Specimen(".csv", lambda folder: "city\tday\tv\na\t1\t0,5\nb\t2\t\n".encode("utf-16"), (describe_input, of_table)),
    "feather": Specimen(".feather", saved(lambda f: feather.write_feather(pa.table({"x": ["a", "b"], "y": [1, 2], "v": [0.5, None]}), f)), (describe_input, of_table)),
    "xlsx": Specimen(".xlsx", sheet, (describe_input, of_table), (fuzzing.mutate, fuzzing.mutate_member)),
    "json lines": Specimen(".jsonl", lambda folder: b'{"x": "a", "y": 1, "v": 0.5}\n{"x": "b", "y": 2, "v": null}\n', (describe_input, of_table)),
    "png": Specimen(".png", picture("png"), (as_folder,)),
    "jpeg": Specimen(".jpg", picture("jpeg"), (as_folder,)),
    "gif": Specimen(".gif", picture("gif"), (as_folder,)),
    "tiff": Specimen(".tif", picture("tiff"), (as_folder,)),
    "records": Specimen(".jsonl", lambda folder: "".join(json.dumps(ITERATION | {"iteration": n}) + "\n" for n in range(3)).encode(), (records, describe_input)),
    "yaml of fit": Specimen(".yaml", lambda folder: FitConfig(width=[2, 3], matricization=[[0, 1]]).to_yaml().encode(), (lambda p: FitConfig.resolve({}, [], p),)),
    "yaml of train-cnn": Specimen(".yaml", lambda folder: TrainCnnConfig(task="pathfinder").to_yaml().encode(), (lambda p: TrainCnnConfig.resolve({}, [], p),)),
    "yaml of a plan": Specimen(".yaml", lambda folder: PlanConfig(data="x.csv", grid={"lr": [0.1, 0.2], "iterations": [10, 20]}, base={"depth": 2, "model": "matrix"}, seeds=[0, 1]).to_yaml().encode(), (plan,)),
}  # fmt: skip
