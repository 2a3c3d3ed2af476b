"""What this app tells those above it, who connect in their `AppConfig.ready`. It never learns who listens."""

from django.dispatch import Signal

# Before a revision replaces another: `number` and `text` of the one that still runs. A receiver that raises stops the change.
config_changing = Signal()

# After the commit: `number` of the revision that runs now. Sent by the process that made it, only there.
config_changed = Signal()
