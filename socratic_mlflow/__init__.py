"""Fine-tune a chat model into a speaking style, with every step in MLflow. Importing this package loads nothing else."""

__version__ = "0.1.0"
