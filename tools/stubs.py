"""Write hesskern/_core.pyi from the installed extension, or with --check tell whether the file is current."""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

STUB = Path("hesskern/_core.pyi")

# What pybind11 leaves open, so that the stub passes mypy --strict; and constants that depend on the machine.
MENDED = [
    (r"\bSequence\b(?!\[)", "Sequence[typing.Any]"),
    (r"\bdict\b(?!\[)", "dict[str, typing.Any]"),
    (r"-> tuple:", "-> tuple[typing.Any, ...]:"),
    (r"^available_isas: tuple\b.*$", "available_isas: tuple[str, ...]"),
    (r"^(isa|version): str\b.*$", r"\1: str"),
]


def generate() -> str:
    """Return the stub of the installed extension."""
    tool = [sys.executable, "-m"]
    with tempfile.TemporaryDirectory() as folder:
        stubgen = [*tool, "pybind11_stubgen", "hesskern._core", "-o", folder]
        subprocess.run(stubgen, check=True, stdout=subprocess.DEVNULL)
        text = (Path(folder) / STUB).read_text(encoding="utf-8")
    for pattern, replacement in MENDED:
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    # Unused imports, their order and long lines are fixed by the tool that checks them.
    for command in (["check", "--fix", "--exit-zero", "--quiet"], ["format", "--quiet"]):
        ruff = [*tool, "ruff", *command, f"--stdin-filename={STUB}", "-"]
        text = subprocess.run(ruff, input=text, capture_output=True, check=True, text=True).stdout
    return text


def main() -> int:
    """Write or compare."""
    text = generate()
    if sys.argv[1:] == ["--check"]:
        if STUB.exists() and STUB.read_text(encoding="utf-8") == text:
            return 0
        print(f"{STUB} is not what the extension says; run `make stubs` and commit it.", file=sys.stderr)
        return 1
    STUB.write_text(text, encoding="utf-8")
    print(f"wrote {STUB}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
