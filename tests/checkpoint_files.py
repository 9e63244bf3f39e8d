"""Checkpoint folders for tests: small files under the names that transformers gives them."""

from __future__ import annotations

from pathlib import Path

from socratic_mlflow.checkpoints import seal

OURS = "a" * 64
FILES = {
    "adapter_model.safetensors": b"weights" * 9,
    "adapter_config.json": b"{}",
    "optimizer.pt": b"o" * 200,
    "trainer_state.json": b'{"global_step": 4}',
}


def written(folder: Path, step: int) -> Path:
    """checkpoint-STEP as transformers leaves it."""
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    for name, data in FILES.items():
        (checkpoint / name).write_bytes(data)
    return checkpoint


def sealed(folder: Path, step: int, identity: str = OURS) -> Path:
    checkpoint = written(folder, step)
    seal(checkpoint, identity)
    return checkpoint


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
