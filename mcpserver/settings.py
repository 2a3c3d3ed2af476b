"""The environment, read once. No logic lives here: what decides takes these values as arguments."""

from pathlib import Path
from urllib.parse import quote

import environ
from django.core.exceptions import ImproperlyConfigured

from mcpserver.lib import limits as _limits
from mcpserver.lib import log as _log
from mcpserver.lib.proxies import Proxies as _Proxies

BASE_DIR = Path(__file__).resolve().parent.parent

# The real environment wins over `.env` beside manage.py.
environ.Env.read_env(BASE_DIR / ".env", overwrite=False)
env = environ.Env()


def _number(variable: str, default: int) -> int:
    text = env.str(variable, default="").strip()
    if not text:
        return default
    if not text.isascii() or not text.isdigit():
        raise ImproperlyConfigured(f"{variable}={text} is not a number")
    return int(text)


def _folder(variable: str, default: str) -> Path:
    folder = Path(env.str(variable, default=default)).expanduser()
    return folder if folder.is_absolute() else BASE_DIR / folder


HOST: str = env.str("HOST", default="127.0.0.1")
PORT: int = _number("PORT", 3000)
MCP_CONFIG: Path = _folder("MCP_CONFIG", "mcp-config.yaml")
MCP_DATA_DIR: Path = _folder("MCP_DATA_DIR", "data")
MCP_LOG_DIR: Path = _folder("MCP_LOG_DIR", "logs")
MCP_BACKUP_DIR: Path = _folder("MCP_BACKUP_DIR", "backups")
MCP_RUN_DIR: Path = _folder("MCP_RUN_DIR", "run")
MCP_WORKERS: int = _number("MCP_WORKERS", 1)
REDIS_URL: str = env.str("REDIS_URL", default="")
if REDIS_URL and not REDIS_URL.startswith(("redis://", "rediss://", "unix://")):
    raise ImproperlyConfigured("REDIS_URL is not understood: write redis://:password@host:6379/0, rediss:// or unix://")
# Where the other machines of a cluster reach this one; without it, HOST, or the address that it has towards Redis.
MCP_NODE_URL: str = env.str("MCP_NODE_URL", default="").rstrip("/")
MCP_ENCRYPTION_KEYS: list[str] = env.list("MCP_ENCRYPTION_KEYS", default=[])
MCP_ALLOWED_ORIGINS: list[str] = env.list("MCP_ALLOWED_ORIGINS", default=[])
MCP_TRUSTED_PROXIES: list[str] = env.list("MCP_TRUSTED_PROXIES", default=[])

try:
    PROXIES = _Proxies(MCP_TRUSTED_PROXIES)
    LIMITS = _limits.from_environment(env.ENVIRON)
    # files (rotated by us), external (rotated by others), stdout.
    MCP_LOG_TARGET = _log.target(env.str("MCP_LOG_TARGET", default="files"))
    LOG_LEVEL = _log.level(env.str("LOG_LEVEL", default="info"))
except ValueError as error:
    raise ImproperlyConfigured(str(error)) from None

DEBUG: bool = env.bool("DEBUG", default=False)
SECRET_KEY: str = env.str("SECRET_KEY", default="")
if not SECRET_KEY:
    raise ImproperlyConfigured("SECRET_KEY is not set: run ./start once (it writes .env), or set it in the environment")
ALLOWED_HOSTS: list[str] = env.list("ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"])

INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django_prometheus",
    "rest_framework",
    "channels",
    "keys",
    "remotes",
    "gateway",
    "monitoring",
    "mcpserver",
]

# Django serves health, status and metrics alone; the MCP path is raw ASGI and passes none of this.
MIDDLEWARE = ["django.middleware.security.SecurityMiddleware"]
ROOT_URLCONF = "mcpserver.urls"
ASGI_APPLICATION = "mcpserver.asgi.application"
USE_TZ = True
TIME_ZONE = "UTC"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

DATABASES = {"default": env.db_url("DATABASE_URL", default=f"sqlite:///{quote(str(MCP_DATA_DIR / 'gateway.sqlite3'))}")}
if not DATABASES["default"].get("ENGINE"):
    raise ImproperlyConfigured(
        "DATABASE_URL is not understood: write postgresql://user:password@host/name or sqlite:////absolute/path.sqlite3"
    )
# A connection lives for its thread: opening one each second would cost more than all that is asked of it.
DATABASES["default"] |= {"CONN_MAX_AGE": 600, "CONN_HEALTH_CHECKS": True}
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    DATABASES["default"]["ENGINE"] = "mcpserver.lib.sqlite"
    # WAL with IMMEDIATE and a timeout: the defaults lose one concurrent write in ten to "locked".
    DATABASES["default"]["OPTIONS"] = {
        "timeout": 20,
        "transaction_mode": "IMMEDIATE",
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
    }
else:
    # A server that is away or hangs costs seconds, not minutes: connecting, waiting for an answer, noticing that it is gone.
    # libpq reads the first as seconds and the second as milliseconds; what the URL says itself wins.
    DATABASES["default"]["OPTIONS"] = {
        "connect_timeout": 2,
        "tcp_user_timeout": 5000,
        "options": "-c statement_timeout=5s -c idle_in_transaction_session_timeout=30s",
        "application_name": "mcp-server",
    } | DATABASES["default"].get("OPTIONS", {})

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [],
    "DEFAULT_PERMISSION_CLASSES": [],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "monitoring.rest.AlwaysJson",
    "DEFAULT_METADATA_CLASS": None,
    "EXCEPTION_HANDLER": "monitoring.rest.problem",
    "UNAUTHENTICATED_USER": None,
}

# Commands: short lines on stderr. Processes that run on call `mcpserver.lib.log.start` on top of it.
LOGGING = _log.configuration(LOG_LEVEL)

# TLS ends at the proxy in front: what these would add belongs there (deploy/).
SILENCED_SYSTEM_CHECKS = ["security.W004", "security.W008", "security.W003", "security.W001", "security.W002"]
