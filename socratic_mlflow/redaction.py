"""Text that leaves this process (params, tags, artifacts, journal, logs) -> the same text without secrets.

Knows nothing of where the text goes. Standard library only; nothing is read but the environment, at every call.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Iterator, Mapping
from urllib.parse import quote, quote_plus

HIDDEN = "***"

# Names of environment variables whose values are secret. TOKEN stands at the end of a word: TOKENIZERS_PARALLELISM and
# MAX_TOKENS hold none.
_SECRET_NAME = re.compile(
    r"TOKEN(?![A-Z])|SECRET|PASSWORD|PASSWD|PASSPHRASE|PASSCODE|(?:^|_)PASS$|_PWD$|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY"
)
# These hold now and then a secret, now and then the name of a method or a file: only long values count.
_MAYBE_NAME = re.compile(r"CREDENTIAL|AUTH|KEY$|COOKIE|BEARER|SIGNATURE|CONNECTION_STRING")
_NO_SECRET_NAME = re.compile(r"_(?:FILE|PATH|DIR|SOCK|URL|URI|ENDPOINT|HOST|TYPE|TTL|TIMEOUT|EXPIRY)$|^GOOGLE_APPLICATION_")
_NO_SECRET = frozenset({"disabled", "enabled", "required", "optional", "default", "kerberos", "implicit", "explicit"})

# What stands before a token: the beginning of a word, or an escaped line break. Nothing begins inside a run of these
# characters, so that each run is read once, however long it is.
_START = r"(?:(?<![A-Za-z0-9_-])|(?<=\\[nrt]))"
_SHAPES = re.compile(
    rf"{_START}(?:hf_[A-Za-z0-9]{{16,}}|gh[pousr]_[A-Za-z0-9]{{20,}}|github_pat_\w{{20,}}|glpat-[\w-]{{20,}}"
    r"|A[KS]IA[A-Z0-9]{16}(?![A-Za-z0-9])|dapi[0-9a-f]{32}(?:-\d)?|AIza[\w-]{35}|xox[a-z]-[\w-]{10,}"
    r"|sk-(?=[\w-]*[0-9])[\w-]{20,}|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*)"
    r"|(?P<header>(?i:authorization)[\"']?\s{0,3}[:=]\s{0,3}[\"']?(?i:bearer|basic|token)\s{1,3})[^\s\"',;}]{4,}"
    rf"|(?P<bearer>{_START}[Bb]earer\s)(?=[A-Za-z._~+/=-]*[0-9])[\w.~+/=-]{{16,}}"
    r"|(?P<query>[?&#](?:[A-Za-z_.-]{0,40}(?i:token|password|passwd|secret|api_?key|access_?key|signature|credential)"
    r"|pwd|sig|auth)=)[^&\s#\"'`<>]+"
    r"|(?P<setting>(?<![A-Za-z0-9?&#])(?i:password|passwd)=|;(?i:pwd)=)[^&;,\s\"'`<>)]+",
    re.ASCII,
)
_KEY = re.compile(
    r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----(?:(?!-----).)*(?:-----END [A-Z ]{0,30}PRIVATE KEY-----)?", re.DOTALL
)
_LONGEST = 4096
# What follows :// up to where an address surely ends, or where the next of a list begins.
_ADDRESS = re.compile(rf"://((?:(?![,;|&=(){{}}\[\]][A-Za-z][A-Za-z0-9+.-]{{0,20}}://)[^\s\"'`<>]){{1,{_LONGEST}}})")


def redact(text: str) -> str:
    """`text` with `***` for secrets: values of secret environment variables, credentials in URIs, well-known tokens.

    Never raises; takes time linear in the length of `text`; redacting twice changes nothing more.
    """
    if known := _known_secrets(os.environ):
        text = _any_of(known).sub(HIDDEN, text)
    text = _ADDRESS.sub(lambda found: "://" + _without_userinfo(found[1], f"{HIDDEN}@"), _KEY.sub(HIDDEN, text))
    return _SHAPES.sub(_keep_name, text)


def without_credentials(uri: str) -> str:
    """`uri` with user name and password, if it holds any, left out."""
    scheme, separator, rest = uri.partition("://")
    return scheme + separator + _without_userinfo(rest[:_LONGEST], "") + rest[_LONGEST:]


def _keep_name(found: re.Match[str]) -> str:
    return (found[found.lastgroup] if found.lastgroup else "") + HIDDEN


def _without_userinfo(address: str, instead: str) -> str:
    """`address` (what follows ://) with `instead` for all up to the @ behind its credentials; one inside it alike."""
    done = ""
    while True:
        if end := _userinfo_end(address):
            done, address = done + instead, address[end:]
        before, separator, address = address.partition("://")
        done += before + separator
        if not separator:
            return done


def _userinfo_end(address: str) -> int:
    """Where the host begins; 0 if nothing stands before it.

    A password with a raw @ or / cannot be told from a path with one: where there is a password, the last @ counts.
    """
    authority = re.split(r"[/?#]", address, maxsplit=1)[0]
    user, colon, rest = authority.partition(":")
    if colon and "@" not in user:
        # Without @ the rest is a port or the beginning of a password that has a slash in it.
        password = "@" in rest or not (rest.isdigit() or rest == "" or user.startswith("["))
        return address.rfind("@") + 1 if password else 0
    return authority.rfind("@") + 1


def _known_secrets(environment: Mapping[str, str]) -> tuple[str, ...]:
    """All forms in which the secret values of `environment` may stand in a text, the longest first."""
    forms = {form for name, value in environment.items() for secret in _secrets(name, value) for form in _forms(secret)}
    return tuple(sorted(forms, key=lambda form: (-len(form), form)))


def _secrets(name: str, value: str) -> Iterator[str]:
    name, value = name.upper(), value.strip()
    if "://" in value and (end := _userinfo_end(value.partition("://")[2])):
        password = value.partition("://")[2][: end - 1].partition(":")[2]
        if _is_secret(password):
            yield password
    if _NO_SECRET_NAME.search(name) or not _is_secret(value):
        return
    if _SECRET_NAME.search(name) or (_MAYBE_NAME.search(name) and len(value) >= 16):
        yield value


def _is_secret(value: str) -> bool:
    """Whether `value` is long and odd enough to be a secret: a flag's 'true' or a short word must not vanish from texts."""
    shortest = 8 if value.isalpha() or value.isdigit() else 6
    return len(value) >= shortest and value.lower() not in _NO_SECRET and set(value) != {"*"}


def _forms(secret: str) -> Iterator[str]:
    """`secret` as it is, quoted for a URL, and escaped in JSON or Python; of several lines, also each long one."""
    yield from (quote(secret, errors="replace"), quote(secret, safe="", errors="replace"))
    yield quote_plus(secret, errors="replace")
    yield from (secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], repr(secret)[1:-1])
    yield from (line for line in secret.splitlines() if len(line) >= 16)


@functools.lru_cache(maxsize=8)
def _any_of(forms: tuple[str, ...]) -> re.Pattern[str]:
    # A quoted form's escapes come in capitals and in small letters.
    return re.compile("|".join(re.sub("%([0-9A-F]{2})", r"%(?i:\1)", re.escape(form)) for form in forms))
