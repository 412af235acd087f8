"""General preference models for the Hugging Face world: see README.md."""
