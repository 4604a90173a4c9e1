"""Write constraints.txt: what pip resolves today for the package, its extras and its build, in a new environment."""

import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

# The one version that other files name too.
PINNED = ["torch==2.13.0"]
# Installed by scikit-build-core where the machine has none.
BUILD_TOOLS = ["cmake", "ninja"]

HEADER = """\
# What `make` installs, in these versions, the requirements of the build included; made by `make lock`.
# Which CUDA packages a Linux build of torch brings along, torch itself pins.
"""


def main() -> None:
    """Resolve and write."""
    config = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
    project = config["project"]
    wanted = [*PINNED, *BUILD_TOOLS, *config["build-system"]["requires"], *project["dependencies"]]
    extras = project["optional-dependencies"]  # of "peers", which no test needs, the current versions are compared with
    wanted += [line for name, extra in extras.items() if name != "peers" for line in extra]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        python = Path(folder) / "bin" / "python"
        subprocess.run([python, "-m", "pip", "install", *wanted], check=True)
        freeze = [python, "-m", "pip", "freeze", "--all", "--exclude=pip"]
        lines = subprocess.run(freeze, check=True, capture_output=True, text=True).stdout.splitlines()
    left = [
        line for line in lines if line.startswith("cuda-core==") or not line.startswith(("nvidia-", "cuda-", "triton"))
    ]
    names = [line.split("+")[0] for line in left]
    Path("constraints.txt").write_text(HEADER + "\n".join(names) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
