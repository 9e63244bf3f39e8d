"""Of an address that leaves this process, user and password stay behind, however odd the password is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socratic_mlflow.redaction import redact, without_credentials


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at https://ada:secret@host:5000/mlflow?x=1 now", "at https://***@host:5000/mlflow?x=1 now"),
        ("postgresql+psycopg://ada:p%40ss@db/mlflow", "postgresql+psycopg://***@db/mlflow"),
        ("https://token@host", "https://***@host"),
        ("https://ada:a@b@host/path", "https://***@host/path"),
        ("https://ada:a/b@host/path", "https://***@host/path"),
        ("https://ada:a@b/c@host/path", "https://***@host/path"),
        ("https://ada:a:b?c#d@host", "https://***@host"),
        ("https://:secret@host", "https://***@host"),
        ("https://ada:12/34@host", "https://ada:12/34@host"),
        ("u:p@[::1]", "u:p@[::1]"),
        ("http://u:p@[::1]:5000/x", "http://***@[::1]:5000/x"),
        ("http://a:b@one,http://c:d@two http://e:f@three", "http://***@one,http://***@two http://***@three"),
        ("(http://host.example,mysql://c:d@two)", "(http://host.example,mysql://***@two)"),
        ("http://token@one/http://c:d@two", "http://***@one/http://***@two"),
        ('{"uri": "https://a:b@host/", "mail": "a@b.example"}', '{"uri": "https://***@host/", "mail": "a@b.example"}'),
    ],
)
def test_user_and_password_in_an_address_are_hidden(text: str, shown: str) -> None:
    assert redact(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "sqlite:///mlflow.db",
        "sqlite:////home/a@b/mlflow.db",
        "file:./mlruns",
        "http://localhost:5000/#/models/x@champion",
        "http://[::1]:5000/a@b",
        "models:/socratic-gemma@champion",
        "mail ada@example.org: see https://example.org/",
        "git@github.com:ada/project.git",
        "a://b",
        "://",
    ],
)
def test_an_address_without_credentials_stays(text: str) -> None:
    assert redact(text) == text
    assert without_credentials(text) == text


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("https://ada:secret@tracking.example:5000/mlflow?x=1", "https://tracking.example:5000/mlflow?x=1"),
        ("postgresql+psycopg://ada:p%40ss@db/mlflow", "postgresql+psycopg://db/mlflow"),
        ("https://token@host", "https://host"),
        ("https://ada:a@b@host/path", "https://host/path"),
        ("https://ada:a/b c@host/path", "https://host/path"),
        ("https://[bad", "https://[bad"),
        ("http://localhost:5000", "http://localhost:5000"),
        ("", ""),
    ],
)
def test_credentials_are_left_out_of_an_address(uri: str, shown: str) -> None:
    assert without_credentials(uri) == shown


@given(
    st.text("abz01/@:?#%", max_size=12),
    st.text("abz01/@:?#%&", min_size=1, max_size=20).map(lambda text: f"x{text}"),
    st.sampled_from(["https", "postgresql+psycopg", "mysql"]),
)
def test_no_password_outlives_its_address(user: str, password: str, scheme: str) -> None:
    name = user.replace("/", "").replace(":", "").replace("@", "").replace("?", "").replace("#", "")
    text = f"see {scheme}://{name}:{password}@host.example/path for more"
    assert redact(text) == f"see {scheme}://***@host.example/path for more"
