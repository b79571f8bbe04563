"""`batchfleet tune`: finds the settings with which an engine answers fastest, by trying."""
