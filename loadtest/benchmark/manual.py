"""The pages and blocks that are made of what was measured."""
import os

from . import goals, halls, pictures, plan, redis, results, scaled, scaling, scrape, servers, summary

README = os.path.join(servers.TOP, "README.md")
LOADTEST = os.path.join(servers.TOP, "loadtest", "README.md")
SCALING = os.path.join(servers.TOP, "docs", "scaling.md")
# The worked examples of docs/scaling.md: a room says something every ten seconds, or every second.
LOADS = [scaling.Load(1_000_000, 100_000, joined=1, rate=rate, history=1000) for rate in (0.1, 1)]
NODE = scaling.Machine(cores=4, memory_gib=8, network_gbit=10, share=0.5)
PAGES = {"redis": ("Storing in one Redis", redis), "halls": ("Several halls on one Redis, and a failover", halls),
         "scrape": ("A scrape of /metrics", scrape)}
GENERATED = "<!-- written by a program: see loadtest/README.md -->"


def write_comparison(everything, directory):
    page = [*comparison_page(everything), *commands(everything["runs"]), ""]
    results.write(results.path("compare.md", directory), "\n".join(page))
    for name, _, svg in pictures.of(everything):
        results.write(results.path(f"{name}.svg", directory), svg)
    if is_the_projects(directory):
        results.rewrite(README, "compare", readme_block(everything))
        write_goals()


def write_bench(name, everything, directory):
    """Returns the page."""
    title, section = PAGES[name]
    text = "\n".join([GENERATED, f"# {title}\n", machine_line(everything) + "\n", *section.page(everything)])
    results.write(results.path(f"{name}.md", directory), text + "\n")
    if is_the_projects(directory):
        lines = [f"- {line}" for line in section.conclusions(everything["runs"])]
        results.rewrite(README, name, "\n".join([machine_line(everything) + "\n", *lines]))
        write_goals()
    return text


def write_scaling(everything, directory):
    if not is_the_projects(directory):
        return
    costs, checks = scaled.read(everything)
    results.rewrite(SCALING, "costs", f"{machine_line(everything)}\n\n{plan.costs_table(costs)}")
    results.rewrite(SCALING, "checks", plan.checks_table(checks))
    results.rewrite(SCALING, "plans", plan.plans(costs, LOADS, NODE))


def is_the_projects(directory):
    return os.path.realpath(directory) == os.path.realpath(results.DIRECTORY)


def write_goals():
    rows = goals.goals(*(results.load(name) for name in ("compare", "redis", "halls", "scrape")))
    results.rewrite(LOADTEST, "goals", goals.markdown(rows))


# --- the comparison's -----------------------------------------------------------------------------------------------------


def machine_line(everything):
    it = everything["machine"]
    versions = ", ".join(f"{name} {it[name]}" for name in ("Rust", "Go", "Node", "Redis") if name in it)
    return (f"{everything['date']}, {it['model']}, {it['cores']} cores, of which other work took "
            f"{everything['taken_by_others']:.0%} when it began; Linux {it['kernel']}, {versions}; "
            f"{rounds_of(everything)}, where they differ with the least and the greatest.")


def rounds_of(everything):
    rounds = everything["settings"]["rounds"]
    return f"medians of {rounds} rounds" if rounds > 1 else "one round"


def comparison_page(everything):
    """All tables, in Markdown."""
    runs, settings = everything["runs"], everything["settings"]
    yield from (GENERATED, "# Townhall beside others\n", machine_line(everything) + "\n")
    yield from (f"- {line}" for line in summary.conclusions(runs))
    yield from (f"- not measured: {program}: {why}" for program, why in everything["not_measured"].items())
    yield from ("", *summary.void_line(runs))
    for title, text in summary.tables(runs, settings):
        yield from (f"\n## {title}\n", text)


def commands(runs):
    """The servers', and the hall's and its generator's in each scenario, as a person would type them. The JSON has all."""
    yield "\n## The commands\n"
    shown = [its[-1]["commands"][:1] for its in runs.get("flat out", {}).values()]
    shown += [by_name[summary.HALL][-1]["commands"][1:] for by_name in runs.values() if summary.HALL in by_name]
    yield from (f"    {command}" for commands_ in shown for command in commands_)


def readme_block(everything):
    runs, settings = everything["runs"], everything["settings"]
    it, busy = everything["machine"], everything["taken_by_others"]
    others = f", {busy:.0%} of them taken by other work" if busy > 0.05 else ""
    images = [f'<img src="loadtest/results/{name}.svg" width="49%" alt="{alt}">'
              for name, alt, _ in pictures.of(everything)]
    return "\n".join([
        GENERATED,
        f"{it['model']}, {it['cores']} cores{others}: the server has one, the generator the other; "
        f"{settings['connections']:,} clients in one room, {settings['size']} bytes of text; "
        f"{rounds_of(everything)}; `make compare`, {everything['date']}.\n",
        summary.overview(runs, settings), "", *summary.void_line(runs),
        "<p>", *images, "</p>",
    ])
