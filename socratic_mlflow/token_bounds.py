"""How many tokens a text has at least, without tokenizing it: a message of 10 MB would take minutes and gigabytes."""

from __future__ import annotations

import json
from typing import Any

# Pre-tokenizers that drop no character, as long as their 'behavior' is not to remove.
_KEEPING = {"ByteLevel", "Metaspace", "Split", "Digits", "Punctuation", "UnicodeScripts", "Sequence"}


class TokenBound:
    """Divides a text's length by that of the longest token, where the tokenizer is of a kind that drops no character."""

    def __init__(self, tokenizer: Any) -> None:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        self._normalizer = backend.normalizer if backend is not None else None
        certain = backend is not None and _keeps_everything(backend) and not _swallows_spaces(tokenizer)
        added = (self._normalized(token) for token in tokenizer.get_added_vocab())
        # 0: nothing is certain.
        self._longest = max(map(len, [*tokenizer.get_vocab(), *added])) if certain else 0

    def at_least(self, text: str) -> int:
        """The number of tokens that `text` has for certain, whichever way it is cut into pieces beforehand."""
        return -(-len(self._normalized(text)) // self._longest) if self._longest else 0

    def _normalized(self, text: str) -> str:
        return str(self._normalizer.normalize_str(text)) if self._normalizer is not None else text


def _swallows_spaces(tokenizer: Any) -> bool:
    """Whether an added token takes any amount of space around it."""
    return any(token.lstrip or token.rstrip for token in tokenizer.added_tokens_decoder.values())


def _keeps_everything(backend: Any) -> bool:
    """Whether each character of a normalized text becomes part of a token, unknown ones included."""
    normalizers, pre_tokenizers = _parts(backend.normalizer), _parts(backend.pre_tokenizer)
    kinds = {part["type"] for part in normalizers + pre_tokenizers}
    return (
        # What is stripped at the ends depends on where a text is cut.
        not any(part["type"] in ("Strip", "BertNormalizer") for part in normalizers)
        and all(part["type"] in _KEEPING and part.get("behavior") != "Removed" for part in pre_tokenizers)
        and _spells_anything(backend, byte_level="ByteLevel" in kinds)
    )


def _parts(component: Any) -> list[dict[str, Any]]:
    """The settings of a normalizer or pre-tokenizer and of all those in it."""
    found, parts = [json.loads(component.__getstate__())] if component is not None else [], []
    while found:
        part = found.pop()
        parts.append(part)
        found += part.get("normalizers", []) + part.get("pretokenizers", [])
    return parts


def _spells_anything(backend: Any, byte_level: bool) -> bool:
    """Whether no character is dropped as unknown, and no run of unknown ones becomes one token."""
    from tokenizers.pre_tokenizers import ByteLevel

    model, kind = backend.model, type(backend.model).__name__
    if kind not in ("BPE", "Unigram"):
        return False
    if byte_level and all(backend.token_to_id(char) is not None for char in ByteLevel.alphabet()):
        return True
    if model.byte_fallback and all(backend.token_to_id(f"<0x{byte:02X}>") is not None for byte in range(256)):
        return True
    return kind == "BPE" and model.unk_token is not None and not model.fuse_unk
