"""Containers with changed metadata or tensors."""

from __future__ import annotations

import json

from safetensors.torch import save_file

from htfcli.files.own import container


def tamper(path, **changes):
    """Rewrite a container with some of its metadata changed."""
    artefact = container.read(path)
    metadata = {
        "htf.kind": artefact.kind,
        "htf.schema": "1",
        "htf.content": json.dumps(artefact.content),
        "htf.config": "{}",
    }
    tensors = changes.pop("tensors", artefact.tensors())
    save_file(tensors, path, metadata={**metadata, **{f"htf.{k}": v for k, v in changes.items()}})
