"""kube-score on every overlay: nothing is left but what an annotation ignores, with its reason beside it."""

import os
import subprocess
import unittest

import manifests


def score(text):
    command = [os.environ["KUBE_SCORE"], "score", "--exit-one-on-warning", "--output-format", "ci", "-"]
    told = subprocess.run(command, input=text, capture_output=True, text=True)
    return told.returncode, told.stdout + told.stderr


class KubeScore(unittest.TestCase):
    def test_every_overlay_passes(self):
        for name in manifests.OVERLAYS:
            with self.subTest(name):
                code, said = score(manifests.overlay(name))
                self.assertEqual(code, 0, said)

    def test_what_is_broken_does_not(self):
        code, said = score(manifests.overlay("production").replace("readOnlyRootFilesystem: true", "privileged: true"))
        self.assertEqual(code, 1, said)
