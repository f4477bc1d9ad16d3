"""What follows from a trace alone: the model of CUDA's caching allocator, budgets and cards; torch is not needed."""
