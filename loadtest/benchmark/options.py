"""Options that can be set in the environment, too: ROUNDS=1 is --rounds 1."""
import argparse
import os


def parser(words):
    return argparse.ArgumentParser(
        description=words, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Each option with a variable can be set in the environment: ROUNDS=1 SECONDS=2.")


def number(options, name, default, words):
    variable = name.upper().replace("-", "_")
    options.add_argument(f"--{name}", type=int, default=os.environ.get(variable, default), metavar="N",
                         help=f"{words} ({variable}; {default})")


def programs(options):
    options.add_argument("--programs", metavar="DIR", default=os.environ.get("TOWNHALL_BIN_DIR"),
                         help="measure the programs that are there, and build nothing (TOWNHALL_BIN_DIR)")


def results(options, directory):
    options.add_argument("--results", metavar="DIR", default=os.environ.get("RESULTS", directory),
                         help="where the result is kept; elsewhere than by default no manual is changed (RESULTS)")


def sections(options, names):
    options.add_argument("sections", nargs="*", metavar="SECTION", help=f"what to measure, of {', '.join(names)}; all")


def chosen_sections(options, chosen, names):
    unknown = set(chosen.sections) - set(names)
    if unknown:
        options.error(f"{', '.join(sorted(unknown))}: sections are {', '.join(names)}")
    return chosen.sections or list(names)
