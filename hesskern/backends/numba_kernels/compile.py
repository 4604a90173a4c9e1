"""How the functions here are compiled, and where the compiled code is kept.

Numba keeps compiled functions in files next to their source, in the user's cache folder, or in NUMBA_CACHE_DIR. This
module differs from Numba in five ways:

- Each signature has a file of its own, named by everything the code depends on. Numba numbers the files, and two
  processes that compile at once may give one number to two signatures.
- That includes the text of all modules here and in `hesskern.numba`: a function holds the code of those it calls.
- A file that is truncated or changed is compiled again. Numba would stop, or run it.
- Where nothing can be written, the code is compiled again in each process, with one warning. Numba would stop.
- Code is neither run from nor kept in a folder that others can write to (`hesskern._base.trusted`): a file of compiled
  code is a pickle, which can do anything. The next of Numba's folders is used instead; if NUMBA_CACHE_DIR names the
  folder, none. Numba would run the code.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, TypeVar, cast

import numba
from llvmlite import binding
from numba.core import config, types
from numba.core.caching import CompileResultCacheImpl, NullCache, UserProvidedCacheLocator, UserWideCacheLocator
from numba.core.serialize import dumps

from hesskern._base import array_files, atomic_write, trusted
from hesskern.backends.numba_kernels.vectors import VECTOR_BYTES

Function = TypeVar("Function", bound=Callable[..., Any])


@functools.cache
def _sources() -> bytes:
    """Return a fingerprint of everything that compiled code comes from."""
    fingerprint = hashlib.sha256(f"numba {numba.__version__}".encode())
    package = Path(__file__).parents[2]
    for folder in (package / "backends" / "numba_kernels", package / "numba"):
        for path in sorted(folder.glob("*.py")):
            fingerprint.update(path.name.encode() + path.read_bytes())
    return fingerprint.digest()


@functools.cache
def _warn(why: str) -> None:
    warnings.warn(
        f"compiled functions of hesskern.numba cannot be kept ({why}) and are compiled again in each process; set "
        "NUMBA_CACHE_DIR to a folder that only you can write to.",
        stacklevel=2,
    )


class _Locator:
    """One of Numba's ways to find a folder for compiled code, taken if the folder is trusted."""

    def __init__(self, kind: Any) -> None:
        self._kind = kind

    def from_function(self, function: Callable[..., Any], file: str) -> Any:
        """Return the locator of the folder; None to try the next way."""
        chosen = self._kind is UserProvidedCacheLocator and config.CACHE_DIR
        if chosen or self._kind is UserWideCacheLocator:  # for this user alone; Numba would apply the umask
            with contextlib.suppress(OSError):
                trusted.make(self._kind(function, file).get_cache_path())
        locator = self._kind.from_function(function, file)
        why = None if locator is None else trusted.distrust(locator.get_cache_path())
        if why is None:
            return locator
        if chosen:
            raise RuntimeError(why)
        return None


class _Place(CompileResultCacheImpl):
    """Where the compiled signatures of one function are kept, and how they are written."""

    _locator_classes: ClassVar = [_Locator(kind) for kind in CompileResultCacheImpl._locator_classes]


class _Cache(NullCache):
    """The compiled signatures of one function, a file each."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    @functools.cached_property
    def _place(self) -> _Place | None:
        try:
            place = _Place(self._function)
        except RuntimeError as error:
            # Numba's own error names each function; it has one reason.
            _warn("no folder for them can be written to" if "cannot cache" in str(error) else str(error))
            return None
        why = trusted.distrust(place.locator.get_cache_path())  # NUMBA_CACHE_LOCATOR_CLASSES are ways of the user's own
        if why is not None:
            _warn(why)
        return place if why is None else None

    @property
    def cache_path(self) -> str | None:
        """The folder, for Numba's `inspect` and its statistics."""
        return None if self._place is None else str(self._place.locator.get_cache_path())

    def _path(self, place: CompileResultCacheImpl, signature: Any, codegen: Any) -> str:
        key = hashlib.sha256(_sources() + repr((signature, codegen.magic_tuple())).encode()).hexdigest()
        return os.path.join(place.locator.get_cache_path(), f"{place.filename_base}.{key[:24]}.hesskern")

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the compiled signature, or None."""
        target_context.refresh()
        place = self._place
        if place is None or not _can_be_kept(sig):
            return None
        try:
            path = self._path(place, sig, target_context.codegen())
            with array_files.ordinary(path) as file:
                if trusted.distrust_file(path, os.fstat(file.fileno())) is not None:
                    return None  # it is replaced by one of this user's own
                digest, data = file.read(32), file.read()
            if hashlib.sha256(data).digest() != digest:
                return None
            return place.rebuild(target_context, pickle.loads(data))
        except Exception:
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep a compiled signature."""
        place = self._place
        if place is None or not _can_be_kept(sig) or not place.check_cachable(data):
            return
        path = self._path(place, sig, data.codegen)
        content = dumps(place.reduce(data))
        try:
            atomic_write.write(
                path,
                "the cache",
                lambda file: file.write(hashlib.sha256(content).digest() + content),
                mode=0o600,
                private=True,
            )
        except OSError as error:
            _warn(error.strerror or str(error))


def _can_be_kept(signature: Any) -> bool:
    """Return whether a signature means the same in another process: a function as argument does not."""
    return not any(isinstance(kind, types.Callable | types.FunctionType) for kind in signature)


def jit(function: Function) -> Function:
    """Compile on first use; without the GIL, and with multiplications and additions fused where the processor can."""
    dispatcher = numba.njit(nogil=True, error_model="numpy", fastmath={"contract"})(function)
    dispatcher._cache = _Cache(function)
    by_type = dispatcher.get_call_template

    def get_call_template(arguments: Any, keywords: Any) -> Any:
        """Compile once for a type: Numba compiles again for each constant that a jitted caller passes."""
        plain = {name: types.unliteral(kind) for name, kind in keywords.items()}
        return by_type(tuple(map(types.unliteral, arguments)), plain)

    dispatcher.get_call_template = get_call_template
    return cast(Function, dispatcher)


def jit_inlined(function: Function) -> Function:
    """Compile as part of each caller: for functions that only call another, which Numba would optimise twice."""
    return cast(Function, numba.njit(nogil=True, error_model="numpy", inline="always")(function))


def processor() -> str:
    """Return the processor and the compiler, which decide the last bits of a result."""
    name = config.CPU_NAME or binding.get_host_cpu_name()
    return f"{name}, {8 * VECTOR_BYTES} bits, numba {numba.__version__}"
