"""Each test that a document names as a proof exists, and each guarantee names one."""

import ast
import re

import pytest

PROOF = re.compile(r"\[`((?:tests|examples/\w+/tests)/[\w/]+\.py)::(\w+)`\]\(\.\./([^)]+)\)")
GUARANTEE = re.compile(r"^\*\*\d+\.\*\*.*?(?=^\*\*\d+\.\*\*|^## |\Z)", re.MULTILINE | re.DOTALL)
PLAIN_PROOF = re.compile(r"\w+\.py::\w+")


@pytest.mark.parametrize("document", ["guarantees.md", "choosing-an-engine.md"])
def test_the_proofs_that_a_document_names_exist(root, document):
    text = (root / "docs" / document).read_text(encoding="utf-8")
    proofs = PROOF.findall(text)
    assert len(proofs) == len(PLAIN_PROOF.findall(text)), "a proof is written [`path::name`](../path)"
    missing = []
    for path, name, target in proofs:
        assert path == target, f"{path}::{name} leads to {target}"
        file = root / path
        tree = ast.parse(file.read_text(encoding="utf-8")) if file.exists() else ast.Module([], [])
        if name not in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}:
            missing.append(f"{path}::{name}")
    assert not missing


def test_every_guarantee_has_a_proof(root):
    text = (root / "docs" / "guarantees.md").read_text(encoding="utf-8")
    guarantees = GUARANTEE.findall(text)
    assert guarantees
    assert not [guarantee for guarantee in guarantees if not PROOF.search(guarantee)]
