"""File or caller -> questions; results -> file or caller."""
