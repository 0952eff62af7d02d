"""Many recordings on many machines: manifests, stores, workers, and who does what.

The road is ``manifest`` (what to separate) → ``dispatch`` (who does what, and again) → a crew of
workers (``local_crew``: processes of this machine; ``ray_crew``: a Ray cluster) → ``worker`` (one
recording, through ``apps.separate_files``) → ``table`` (what became of it). ``separate_many`` walks
it.
"""
