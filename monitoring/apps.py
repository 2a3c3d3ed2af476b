from django.apps import AppConfig


class MonitoringConfig(AppConfig):
    name = "monitoring"

    def ready(self) -> None:
        from remotes.signals import config_changing

        config_changing.connect(_back_up, dispatch_uid="backup before a change")


def _back_up(**facts: object) -> None:
    # Imported here: every command gets ready, few change anything.
    from monitoring.backups import saving

    saving.before_change(**facts)  # type: ignore[arg-type]
