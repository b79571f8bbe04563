"""vLLM in this process. Nothing outside of this folder knows vLLM."""
