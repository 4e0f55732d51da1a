"""How good answers are: scorers, comparisons of variants with their statistics, and the search for better prompts."""
