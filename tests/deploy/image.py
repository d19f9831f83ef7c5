"""What Dockerfile says the image is."""

import json
import re
import shlex

from manifests import TOP

DOCKERFILE = (TOP / "Dockerfile").read_text()


class Image:
    """The last stage: instructions in capitals, with what stands behind them."""

    def __init__(self, text=DOCKERFILE):
        text = re.sub(r"^#.*\n", "", text, flags=re.M).replace("\\\n", " ")
        stages = re.split(r"^(?=FROM )", text, flags=re.M)
        self.build, self.last = stages[-2], dict(line.split(" ", 1) for line in stages[-1].splitlines() if line)
        self.base = self.last["FROM"]
        self.env = dict(word.split("=", 1) for word in shlex.split(self.last["ENV"]))
        self.user = int(self.last["USER"].split(":")[0])
        self.ports = sorted(map(int, self.last["EXPOSE"].split()))
        self.entrypoint = json.loads(self.last["ENTRYPOINT"])
        self.health = json.loads(self.last["HEALTHCHECK"].partition(" CMD ")[2])
        self.made, self.program = re.fullmatch(r"--from=build (\S+) (\S+)", self.last["COPY"]).groups()
