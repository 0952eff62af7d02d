"""A server that separates what is sent to it, and the client for it.

``client`` needs no other package; all else needs ``pip install 'unbraid[serve]'``.
"""
