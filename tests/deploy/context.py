"""`context.py DIRECTORY` puts there what `docker build` would get: our files, as .dockerignore lets them in."""

import fnmatch
import pathlib
import shutil
import subprocess
import sys

TOP = pathlib.Path(__file__).resolve().parents[2]


def let_in(path, patterns):
    """Of patterns that match the path or a directory above it, the last one decides. Ours need no more of Docker's rules."""
    inside = True
    heads = ["/".join(path.split("/")[: depth + 1]) for depth in range(path.count("/") + 1)]
    for pattern in patterns:
        plain = pattern.removeprefix("!")
        if any(fnmatch.fnmatchcase(head, plain) or matches_anywhere(head, plain) for head in heads):
            inside = pattern != plain
    return inside


def matches_anywhere(head, pattern):
    return pattern.startswith("**/") and fnmatch.fnmatchcase(head.split("/")[-1], pattern.removeprefix("**/"))


def main(directory):
    lines = (TOP / ".dockerignore").read_text().splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    files = ["git", "-C", TOP, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(files, capture_output=True, text=True, check=True).stdout
    for path in filter(None, listed.split("\0")):
        if let_in(path, patterns) and (TOP / path).exists():
            (directory / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(TOP / path, directory / path)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
