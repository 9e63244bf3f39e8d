"""The arguments of `completion`. Imports nothing heavy."""

from __future__ import annotations

import argparse
from typing import Any

SHELLS = ("bash", "zsh", "fish")
_EXAMPLES = """examples:
  socratic-mlflow completion bash > ~/.local/share/bash-completion/completions/socratic-mlflow
  socratic-mlflow completion zsh > ~/.zfunc/_socratic-mlflow
  socratic-mlflow completion fish > ~/.config/fish/completions/socratic-mlflow.fish

Make the folder first (mkdir -p). A new shell then completes commands, options, what an option takes (--preset emb TAB),
files and folders.
bash: the package bash-completion reads that folder; without it, let ~/.bashrc end with
      source ~/.local/share/bash-completion/completions/socratic-mlflow
zsh:  in ~/.zshrc, before compinit: fpath=(~/.zfunc $fpath)
fish: reads that folder by itself.
The script starts no Python. Write it again after an update, which may bring new options.
"""


def add(commands: Any) -> None:
    """Add the command."""
    completion = commands.add_parser(
        "completion",
        help="print the script with which TAB completes all this",
        description="Print the script for your shell; the examples say where it goes.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    completion.add_argument("shell", choices=SHELLS, metavar="SHELL", help="bash, zsh or fish")
    completion.set_defaults(run=_completion)


def _completion(args: argparse.Namespace) -> int:
    from socratic_mlflow.completion_command import completion

    return completion(args.shell)
