"""llama.cpp, through the `xllamacpp` wheel: every GGUF model."""
