"""A fleet on a Slurm cluster: a small job keeps the queue, and jobs of one node each join it as the cluster has room.

`scripts` writes the jobs' scripts into a `RunFolder`, `controller` is what the first of them runs, `worker_jobs`
decides how many of the others there are to be, and `scheduler` talks to Slurm.
"""
