import os

from django.apps import AppConfig


class McpServerConfig(AppConfig):
    name = "mcpserver"

    def ready(self) -> None:
        # Whoever imports a task module finds our configuration, and who does not never imports Celery.
        os.environ["CELERY_LOADER"] = "mcpserver.celery:Loader"
