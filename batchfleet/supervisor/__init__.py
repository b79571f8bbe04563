"""Starting and watching the processes of a fleet on this host."""
