"""The arguments of `export`. Imports nothing heavy."""

from __future__ import annotations

import argparse
from typing import Any

from socratic_mlflow.cli_fields import add_fields, given_fields
from socratic_mlflow.model_names import TRAINED

_EXAMPLES = """examples:
  socratic-mlflow export models:/socratic-gemma@champion --output_dir my-adapter         a few MB, for peft
  socratic-mlflow export models:/socratic-gemma/2 --to merged --output_dir my-model      whole, for transformers
  socratic-mlflow export outputs/embedded-1234abcd/best_adapter --output_dir my-adapter

The folder is new, or empty; it is written whole or not at all.
"""


def add(commands: Any) -> None:
    """Add the command, with the fields that say which base an adapter folder is for."""
    export = commands.add_parser(
        "export",
        help="write a model to a folder that plain peft or transformers loads",
        usage="socratic-mlflow export MODEL [--to adapter|merged] --output_dir DIR [--FIELD VALUE ...]",
        description="With tokenizer, chat template and a model card. 'adapter' is for peft and needs the base beside it;\n"
        "'merged' is a whole, unquantized model for transformers, which is checked against the adapter.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    export.add_argument("model", metavar="MODEL", help=TRAINED)
    export.add_argument("--to", choices=("adapter", "merged"), default="adapter", help="what is written [adapter]")
    export.add_argument("--output_dir", metavar="DIR", required=True, help="the folder to write; it must not hold anything")
    add_fields(export, ("run.preset", "model.", "quantization."))
    export.set_defaults(run=_export)


def _export(args: argparse.Namespace) -> int:
    from socratic_mlflow.export_command import export

    return export(args.model, args.to, args.output_dir, given_fields(args))
