"""From a file or caller to questions, and from results to a file or caller."""
