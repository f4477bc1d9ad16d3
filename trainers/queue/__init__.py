"""A training queue that is folders: drop a file in, it is trained exactly once, whatever is killed meanwhile.

    python -m trainers.queue --root FOLDER COMMAND

``inbox/``                 anybody puts files here (or straight into ``high/``, ``normal/``, ``low/``)
``high/ normal/ low/``     wait for their turn, in the order of their arrival
``processing/``            the one that is being trained
``done/ failed/``          nothing more to do; to be looked at by somebody (`retry` puts it back)
``runs/ID/``               the trainer's output folder of a file; ID begins its SHA-256, so equal content has one
``reports/ID/``            the queue's own: ``report.json``, and for each attempt its settings, output and end
``ledger.sqlite``          memory: order, attempts, reasons. Lost or damaged, it is made again from the folders
``queue.toml``             the settings (or ``queue.json``), `trainers.queue.options`
``log.jsonl``              one line an event
``paused``                 while this file is there, nothing new is started

What is true where two of them differ: a file is where it is; it is trained if its report says so, or its
trainer said so in the last attempt; the ledger is made to agree. `trainers.queue.steps` names the steps of a
file's way, between any two of which the queue may be killed.
"""
