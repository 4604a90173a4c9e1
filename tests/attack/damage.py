"""Damaged files, and every door that reads one: allowed is one error in one line, or what the whole file gives.

`FIXED` are damages by name, `random_damage` makes one from a generator. `attempt` hands a damaged file to a door and
returns what is wrong with the outcome, None if nothing is. `python -m attack.damage COUNT [SEED]`, in
``tests/helpers/``, tries as many.
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import struct
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np

import hesskern as hk
from hesskern.cli import main as cli

Damage = Callable[[bytes], bytes]


class Mark:
    """Unpickling it leaves a mark: code from the file was run."""

    ran = False

    def __reduce__(self) -> tuple[object, ...]:
        return exec, ("from attack.damage import Mark; Mark.ran = True",)


def saved(array: object, *, pickled: bool = False) -> bytes:
    """Return what `numpy.save` writes."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=pickled)
    return file.getvalue()


def with_header(header: str, body: bytes = b"") -> bytes:
    """Return a ``.npy`` file of this header, whatever it claims."""
    text = header.encode("latin1")
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body


def claiming(shape: str, dtype: str = "'<f8'", body: bytes = b"\0" * 64) -> bytes:
    """Return a ``.npy`` file that claims this shape and dtype."""
    return with_header(f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}, }}", body)


#: Content of a ``.npy`` file, by what is wrong with it.
ARRAYS = {
    "1e12 entries": claiming("(1000000000000,)"),
    "2**63 entries": claiming("(9223372036854775808,)"),
    "entries beyond any integer": claiming("(" + "1000000," * 40 + ")"),
    "a negative shape": claiming("(-8,)"),
    "a shape of text": claiming("('8',)"),
    "a shape that is no tuple": claiming("8"),
    "fewer entries than there are": claiming("(2,)"),
    "more entries than there are": claiming("(9,)"),
    "no entries": claiming("(0, 3)", body=b""),
    "objects": saved(np.array([Mark()], dtype=object), pickled=True),
    "a pickle": pickle.dumps(Mark()),
    "records": saved(np.zeros(3, dtype=[("a", "f8"), ("b", "i4")])),
    "dates": saved(np.zeros(3, dtype="M8[s]")),
    "text": saved(np.array(["one", "two"])),
    "text of no length": claiming("(1000000000000000000,)", "'<U0'", b""),
    "complex numbers": saved(np.ones((3, 2), dtype=complex)),
    "NaN": saved(np.full((3, 2), np.nan)),
    "a scalar": saved(np.float64(1.0)),
    "four axes": saved(np.ones((1, 2, 1, 2))),
    "a dtype that is none": claiming("(8,)", "'<q9'"),
    "a dtype of a million bytes": claiming("(8,)", "'|V1000000'"),
    "a header that never ends": with_header("{'descr': '<f8', 'shape': (("),
    "a header of brackets": with_header("(" * 5000),
    "a header that is code": with_header("__import__('os').abort()"),
    "a header of another length": b"\x93NUMPY\x01\x00\xff\xff{}",
    "a version to come": b"\x93NUMPY\x09\x00" + b"\0" * 100,
    "nothing": b"",
    "one byte": b"P",
    "zeros": b"\0" * 500,
}


def members(content: bytes) -> dict[str, bytes]:
    """Return the members of an archive."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def archive(parts: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """Return an archive of these members."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as opened:
        for name, part in parts.items():
            opened.writestr(name, part)
    return file.getvalue()


def _member(replacement: bytes) -> Damage:
    """Return the damage that puts this content in the place of the last member."""
    return lambda content: archive(members(content) | {list(members(content))[-1]: replacement})


def _directory(offset: int, value: bytes) -> Damage:
    """Return the damage that overwrites a field of the first entry in the archive's directory."""

    def damage(content: bytes) -> bytes:
        at = content.index(b"PK\x01\x02") + offset
        return content[:at] + value + content[at + len(value) :]

    return damage


def _instead(replacement: bytes) -> Damage:
    """Return the damage that leaves nothing of the file."""
    return lambda content: replacement


def _twice(content: bytes) -> bytes:
    """Return an archive with every name twice; the second time with other numbers."""
    changed = {name: part[:-1] + bytes([part[-1] ^ 1]) for name, part in members(content).items()}
    file = io.BytesIO(archive(members(content)))
    with warnings.catch_warnings(), zipfile.ZipFile(file, "a") as opened:
        warnings.simplefilter("ignore")  # zipfile says that the names are taken
        for name, part in changed.items():
            opened.writestr(name, part)
    return file.getvalue()


#: Of a whole ``.npz`` file.
FIXED: dict[str, Damage] = {
    **{f"a member with {name}": _member(content) for name, content in ARRAYS.items()},
    "half": lambda content: content[: len(content) // 2],
    "the last byte is missing": lambda content: content[:-1],
    "bytes before it": lambda content: b"x" * 7 + content,
    "encrypted": _directory(8, b"\x01"),
    "an unknown compression": _directory(10, b"\x61\x00"),
    "a size of 4 GiB": _directory(20, b"\xfe\xff\xff\xff" * 2),
    "an offset beyond the end": _directory(42, b"\xfe\xff\xff\x7f"),
    "a bomb": lambda content: archive(
        {list(members(content))[-1]: claiming("(1000000000000,)", body=b"\0" * 10**7)}, zipfile.ZIP_DEFLATED
    ),
    "no members": lambda _: archive({}),
    "members that are no arrays": lambda _: archive({"readme.txt": b"hello"}),
    "each member twice": _twice,
    **{f"no archive but {name}": _instead(content) for name, content in ARRAYS.items()},
}


def random_damage(content: bytes, rng: np.random.Generator) -> bytes:
    """Return a file with some bits flipped, bytes replaced, cut out, put in or doubled, or cut short."""
    changed = bytearray(content)
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.integers(len(changed))) if changed else 0
        how, length = int(rng.integers(6)), int(rng.integers(1, 33))
        if how <= 1 and changed:
            changed[at] ^= 1 << int(rng.integers(8))
        elif how == 2:
            changed[at : at + length] = rng.bytes(length)
        elif how == 3:
            del changed[at : at + length]
        elif how == 4:
            changed[at:at] = rng.bytes(length)
        else:
            del changed[at:]
    return bytes(changed)


class Doors:
    """Good files in a folder, and what reads each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        rng = np.random.default_rng(0)
        self.net = hk.LinearNetwork.random([3, 4, 2], seed=0, bias=True)
        self.X, self.Y = rng.standard_normal((6, 3)), rng.standard_normal((6, 2))
        self.loss = hk.SquaredLoss(self.X, self.Y)
        self.options = {"lr": 1e-3, "momentum": 0.5, "record": ("loss", "weights")}
        self.net.save(folder / "net.npz")
        np.savez(folder / "X.npz", X=self.X)
        np.savez_compressed(folder / "compressed.npz", X=self.X)
        np.save(folder / "X.npy", self.X)
        np.save(folder / "Y.npy", self.Y)
        np.save(folder / "H.npy", self.loss.hessian(self.net).toarray())
        np.savetxt(folder / "X.csv", self.X, delimiter=",")
        hk.fit(self.net, self.loss, max_steps=4, checkpoint=folder / "state.npz", **self.options)

    #: The doors by name, and the good file that each reads; numbers in a file without checksums may be others.
    FILES: ClassVar = {
        "load": "net.npz", "resume": "state.npz", "--net": "net.npz", "--resume": "state.npz", "--X": "X.npz",
        "--X compressed": "compressed.npz", "--X npy": "X.npy", "--X csv": "X.csv", "explain": "H.npy",
    }  # fmt: skip
    UNCHECKED = ("--X npy", "--X csv", "explain")

    def enter(self, door: str, path: Path) -> str:
        """Return a fingerprint of what comes out; ValueError with the sentence of a command that refuses."""
        if door == "load":
            net = hk.LinearNetwork.load(path)
            return repr((net, net.parameter_names)) + net.flatten().tobytes().hex()
        if door == "resume":
            run = hk.fit(self.net, self.loss, max_steps=6, resume=path, **self.options)
            return run.status + run.network.flatten().tobytes().hex() + run.history["weights"].tobytes().hex()
        given = {"net": "net.npz", "X": "X.npy", "Y": "Y.npy"}
        fixed = {name: str(self.folder / file) for name, file in given.items()}
        if door == "explain":
            command = ["explain", str(path)]
        else:
            command = [
                "fit",
                "--lr",
                "1e-3",
                "--max-steps",
                "6",
                "--json",
                "--momentum",
                "0.5",
                "--record",
                "loss,weights",
            ]
            option = door.partition(" ")[0].removeprefix("--")
            if option == "resume":
                command += ["--resume", str(path)]
            else:
                fixed[option] = str(path)
        command += [part for name, file in fixed.items() for part in (f"--{name}", file)]
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = cli.main(command)
        refused = 3 if door == "explain" else 2
        if code == refused and not out.getvalue():
            raise ValueError(err.getvalue().removesuffix("\n"))
        answers = (0, 1, 2, 3) if door == "explain" else (0, 1)
        assert code in answers, f"exit code {code}: {err.getvalue()}"
        return out.getvalue()


def attempt(doors: Doors, door: str, content: bytes) -> str | None:
    """Return what is wrong with how a door takes this content; None if nothing is."""
    good = doors.folder / doors.FILES[door]
    path = doors.folder / f"damaged{good.suffix}"
    path.write_bytes(content)
    Mark.ran = False
    try:
        found = doors.enter(door, path)
        wanted = None if door in doors.UNCHECKED else doors.enter(door, good)
        wrong = None if wanted in (None, found) else "it is read as other numbers"
    except (ValueError, OSError, MemoryError) as error:
        wrong = None if str(error) and "\n" not in str(error) else f"{len(str(error).splitlines())} lines: {error}"
    except Exception as error:
        wrong = f"{type(error).__name__}: {error}"
    return "code from the file was run" if Mark.ran else wrong


def cases(seed: int) -> Iterator[tuple[str, bytes, Doors]]:
    """Yield doors and damaged files without end, from a seed."""
    with tempfile.TemporaryDirectory() as folder:
        doors, number = Doors(Path(folder)), 0
        while True:
            rng = np.random.default_rng([seed, number])
            door = list(doors.FILES)[int(rng.integers(len(doors.FILES)))]
            yield door, random_damage((doors.folder / doors.FILES[door]).read_bytes(), rng), doors
            number += 1


def main(count: int, seed: int = 0) -> int:
    """Try many; print what is wrong."""
    found = 0
    for number, (door, content, doors) in zip(range(count), cases(seed), strict=False):
        wrong = attempt(doors, door, content)
        if wrong is not None:
            found += 1
            print(f"seed {seed}, number {number}, {door}: {wrong}", flush=True)
    print(f"{count} damaged files, {found} wrong")
    return 1 if found else 0


if __name__ == "__main__":
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    sys.exit(main(*map(int, sys.argv[1:])))
