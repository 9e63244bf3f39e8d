"""`python -m socratic_mlflow` is the same as `socratic-mlflow`."""

from socratic_mlflow.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
