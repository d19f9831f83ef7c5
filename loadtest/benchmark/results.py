"""What was measured, where it is kept: as JSON with every run, and in texts, between marks, so that no figure is written by hand."""
import json
import os
import re

from . import servers

DIRECTORY = os.path.join(servers.TOP, "loadtest", "results")


def path(name, directory=DIRECTORY):
    return os.path.join(directory, name)


def load(name, directory=DIRECTORY):
    """None: it was not measured."""
    try:
        with open(path(f"{name}.json", directory), encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        return None


def save(name, everything, directory=DIRECTORY):
    write(path(f"{name}.json", directory), json.dumps(everything, indent=1, ensure_ascii=False) + "\n")


def write(where, text):
    os.makedirs(os.path.dirname(where), exist_ok=True)
    with open(where, "w", encoding="utf-8") as file:
        file.write(text)


def replaced(text, mark, block):
    """The text with what is between two marks replaced, which must be there once."""
    begin, end = f"<!-- {mark}:begin -->", f"<!-- {mark}:end -->"
    changed, count = re.subn(rf"{begin}.*?{end}", lambda _: f"{begin}\n{block.strip()}\n{end}", text, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"{count} blocks between {begin} and {end}, and not one")
    return changed


def rewrite(where, mark, block):
    with open(where, encoding="utf-8") as file:
        text = file.read()
    write(where, replaced(text, mark, block))
