"""Every causal language model of transformers as a backbone: tiny random ones, and what is asked of each."""
