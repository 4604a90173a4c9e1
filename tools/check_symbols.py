"""Refuse an instruction-set object that shares code with the rest of the program.

Each of these objects is compiled for one processor. A function that it defines outside its own namespace (an inline
function of the standard library, say) has the same name in the other objects, the linker keeps only one copy, and that
may be the one compiled for AVX-512, on a processor without it.
"""

import re
import subprocess
import sys
from pathlib import Path


def shared(listing: str, isa: str) -> list[str]:
    """Return the symbols of an `nm` listing that are visible outside the object but not in the namespace of `isa`."""
    own = re.compile(rf"_?_Z(GV|GR|T[VTIS]|Z)*NK?8hesskern{len(isa)}{isa}")
    symbols = (line.split() for line in listing.splitlines())
    visible = [parts[-1] for parts in symbols if len(parts) == 3 and (parts[1].isupper() or parts[1] in "uvw")]
    return [name for name in visible if not own.match(name)]


def main() -> int:
    """Check every object below the build directory named on the command line."""
    objects = sorted(Path(sys.argv[1]).glob("**/hesskern_isa_*.dir/**/*.o"))
    if not objects:
        print(f"no instruction-set objects below {sys.argv[1]}; build first.", file=sys.stderr)
        return 1
    failed = False
    for path in objects:
        isa = next(found[1] for part in path.parts if (found := re.fullmatch(r"hesskern_isa_(\w+)\.dir", part)))
        listing = subprocess.run(["nm", "--defined-only", path], capture_output=True, check=True, text=True).stdout
        names = shared(listing, isa)
        failed |= bool(names)
        print(f"{isa}: {len(names)} shared symbols" + "".join(f"\n  {name}" for name in names))
    return failed


if __name__ == "__main__":
    sys.exit(main())
