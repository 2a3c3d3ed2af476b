"""Django's own pages: health, status and metrics. The MCP paths never come here."""

from django.urls import URLPattern, URLResolver, re_path

from monitoring import views

urlpatterns: list[URLPattern | URLResolver] = [
    re_path(r"^health/?$", views.health, name="health"),
    re_path(r"^health/live/?$", views.live, name="health-live"),
    re_path(r"^health/ready/?$", views.ready, name="health-ready"),
    re_path(r"^metrics/?$", views.metrics, name="metrics"),
    # A view rather than handler404, which DEBUG would replace by a page for browsers.
    re_path(r"", views.not_found),
]

handler400 = views.refused
handler404 = views.not_found
handler500 = views.broken
