"""The page: separate, listen, and teach in a browser (``unbraid web``, extra ``[web]``).

``choices`` says what can be picked, ``separating`` and ``teaching`` do what a visitor asks for by
the same functions as the command line, ``visitors`` keeps what belongs to one visitor and removes
it, ``files`` serves it, ``showing`` puts it into words, ``page`` lays everything out with Gradio,
and ``server`` runs it. Only the last two know Gradio.
"""
