"""The file that MLflow runs to make the model ("models from code"): it names the model and nothing else."""

from mlflow.models import set_model

from socratic_mlflow.serving import SocraticModel

set_model(SocraticModel())
