"""A page in the browser to look through a data set and mend its labels; see `docs/studio.md`.

How a change travels: the page's `studio.js` → `routes.py` → `session.py`, which orders the changes
of all windows → `changes.py`, which confirms them once they are on the disk. `list_writer.py`
brings them into the lists.
"""
