"""What must not leave this process does not, what is no secret stays, and no text makes it slow or fail."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from unittest import mock
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socratic_mlflow.redaction import redact, without_credentials

ODD = "pa/ss wörd&?=%:@\"'\\1"
# Put together here, so that no scanner takes this file for a leak.
HUGGING_FACE = "hf_" + "aBcDeFgHiJkLmNoPqRsTuVwXyZ012345"


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """No secrets of this machine, so that each test knows all that there are."""
    with mock.patch.dict(os.environ, {"PATH": os.environ["PATH"]}, clear=True):
        yield


@pytest.mark.parametrize(
    "name",
    [
        "HF_TOKEN",
        "MLFLOW_TRACKING_TOKEN",
        "MLFLOW_TRACKING_PASSWORD",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "WANDB_API_KEY",
        "OPENAI_APIKEY",
        "PGPASSWORD",
        "MYSQL_PWD",
        "DB_PASS",
        "SSH_PASSPHRASE",
        "DJANGO_SECRET",
        "my_private_key",
    ],
)
@pytest.mark.parametrize("value", ["x7-q9!", "correct horse", ODD, "/begins/with+slash="])
def test_the_value_of_a_secret_variable_is_hidden_in_every_form(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    forms = [value, quote(value), quote(value, safe=""), quote_plus(value), json.dumps(value)[1:-1], repr(value)[1:-1]]
    forms += [quote(value, safe="").replace("%2F", "%2f"), json.dumps(value, ensure_ascii=False)[1:-1]]
    for form in forms:
        assert redact(f"before\\n{form}後") == "before\\n***後"
        assert redact(form * 3) == "***" * 3


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TOKENIZERS_PARALLELISM", "false-or-true-1"),
        ("MAX_TOKENS", "100000000"),
        ("HF_TOKEN_PATH", "/home/ada/hf-token-1"),
        ("GOOGLE_APPLICATION_CREDENTIALS", "/home/ada/key-file-1.json"),
        ("SSH_AUTH_SOCK", "/run/user/1000/agent-socket-1"),
        ("MLFLOW_TRACKING_AUTH", "sigv4-basic"),
        ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1"),
        ("USE_SECRET", "true"),
        ("SECRET_MODE", "Required"),
        ("SOME_PASSWORD", "mlflow"),
        ("PWD", "/srv/place-1"),
        ("AUTHOR", "Ada Lovelace"),
        ("PASSENGERS", "twelve-12"),
        ("EMPTY_TOKEN", ""),
    ],
)
def test_what_is_no_secret_stays(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    assert redact(f"a {value} b") == f"a {value} b"


def test_the_environment_counts_as_it_is_at_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    assert redact("planted-1") == "planted-1"
    monkeypatch.setenv("HF_TOKEN", "planted-1")
    assert redact("planted-1") == "***"
    monkeypatch.setenv("HF_TOKEN", "planted-2")
    assert redact("planted-1 planted-2") == "planted-1 ***"


def test_a_secret_that_begins_like_another_is_hidden_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_TOKEN", "abc-123")
    monkeypatch.setenv("B_TOKEN", "abc-123-456")
    assert redact("abc-123-456 abc-123") == "*** ***"


def test_the_password_of_an_address_in_the_environment_is_hidden_without_its_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://ada:s3cret-word@db:5432/mlflow")
    assert redact("login with s3cret-word failed on db:5432") == "login with *** failed on db:5432"


@pytest.mark.parametrize(
    "token",
    [
        HUGGING_FACE,
        "ghp_" + "a1B2c3D4" * 5,
        "github_pat_" + "11ABCDEFG0_abcdefgh" * 3,
        "glpat-" + "a1B2-3D4_" * 3,
        "AKIA" + "ABCDEFGH12345678",
        "dapi" + "0123456789abcdef" * 2,
        "sk-proj-" + "a1B2c3D4" * 5,
        "eyJhbGciOiJIUzI1" + ".eyJzdWIiOiIxMjM0" + ".SflKxw_c-1",
        "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4\nMIIE1\n-----END RSA PRIVATE KEY-----",
    ],
)
def test_tokens_of_well_known_shapes_are_hidden(token: str) -> None:
    for before, after in (("", ""), ("トークン：", "です"), ("'", "'"), ("line\\n", " "), ("x=", "\n")):
        assert redact(before + token + after) == f"{before}***{after}"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ('{"authorization": "Basic YWRhOnNlY3JldA=="}', '{"authorization": "Basic ***"}'),
        ("sent bearer 0123456789abcdef0123 twice", "sent bearer *** twice"),
        ("https://host/x?token=abc&y=1", "https://host/x?token=***&y=1"),
        ("https://host/x?y=1&password=a%20b#top", "https://host/x?y=1&password=***#top"),
        ("https://host/x?X-Amz-Signature=0f&client_secret=z", "https://host/x?X-Amz-Signature=***&client_secret=***"),
        ("host=db password=hunter2 dbname=x", "host=db password=*** dbname=x"),
        ("Server=db;UID=ada;PWD=hunter2;", "Server=db;UID=ada;PWD=***;"),
    ],
)
def test_headers_and_parameters_lose_their_value_and_keep_their_name(text: str, shown: str) -> None:
    assert redact(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "the bearer of good news; a bearer must authenticate himself",
        "?max_new_tokens=64&temperature=1",
        "a task-oriented-and-rather-long-word-1, sk-learn, hf_hub_download_of_something_1",
        "tokens_per_s=2200, token: <start_of_turn>, password: ask your administrator",
        "PWD=/srv/place",
        "authorization: required",
        "-----BEGIN CERTIFICATE-----\nMIIE\n-----END CERTIFICATE-----",
        "学習率は 8e-5、最良のステップは 84 です。",
    ],
)
def test_ordinary_text_is_not_eaten(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize("file", ["README.md", "docs/style.md", "socratic_mlflow/commands.py", "conda.yaml"])
def test_the_files_of_this_project_hold_nothing_that_would_be_eaten(repository: Path, file: str) -> None:
    text = (repository / file).read_text(encoding="utf-8")
    assert redact(text) == text


PIECES = (
    *(
        "://",
        "@",
        ":",
        "/",
        ".",
        "a",
        "1",
        "\\n",
        " ",
        "'",
        "***",
        "hf_",
        "sk-",
        "eyJ",
        "?token=",
        "&password=",
        ",http://",
    ),
    *(
        "Authorization: Bearer ",
        "-----BEGIN PRIVATE KEY-----",
        "-----",
        "a" * 20,
        "\ud800",
        "planted-1",
        "pa%2Fss1",
        "pa/ss1",
    ),
)


@given(st.text() | st.lists(st.sampled_from(PIECES), max_size=40).map("".join))
def test_any_text_is_redacted_once_and_for_all(text: str) -> None:
    with mock.patch.dict(os.environ, {"A_TOKEN": "planted-1", "B_PASSWORD": "pa/ss1"}):
        once = redact(text)
        assert redact(once) == once
        assert not any(secret in once for secret in ("planted-1", "pa/ss1"))
    without_credentials(text)


ENDLESS = (
    *(
        "://",
        "a://",
        "@",
        "://a:",
        "sk-",
        "hf_",
        "eyJ",
        "eyJaaaaaaaaaaa.",
        "bearer ",
        "?token",
        "&a",
        "a",
        "-",
        "\\n",
        ",a://",
    ),
    *(
        "-----BEGIN PRIVATE KEY-----",
        "Authorization: ",
        "[",
        "password",
        "%41",
        "planted-",
        "://a:b@",
        ":",
        "\\nsk-",
        "&a-b.c_",
    ),
)


@pytest.mark.parametrize("piece", ENDLESS)
def test_half_a_megabyte_of_anything_is_done(piece: str) -> None:
    """Quadratic time would take hours here."""
    with mock.patch.dict(os.environ, {"A_TOKEN": "planted-1"}):
        assert len(redact(piece * (500_000 // len(piece)))) > 0
        without_credentials(piece * (500_000 // len(piece)))
