"""What the model is shown: templates and chat templates."""
