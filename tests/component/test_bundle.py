"""The bundle for bug reports holds no secret, wherever one was put and however it is quoted."""

import io
import json
import random
import string
import tarfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml

from monitoring import bundle
from monitoring.doctor import Check

pytestmark = pytest.mark.django_db(transaction=True)
ALPHABETS = (
    string.ascii_letters + string.digits,
    string.hexdigits,
    string.ascii_letters + string.digits + "+/=-_.~!$%",
)
PLACES = 14


def planted(seed: int) -> list[str]:
    """One for each place; of the shapes that tokens, passwords and keys have."""
    dice = random.Random(seed)
    made = []
    for number in range(PLACES):
        alphabet = ALPHABETS[(number + seed) % 3]
        made.append("".join(dice.choice(alphabet) for _ in range(dice.randint(9, 64))) + str(dice.randint(10, 99)))
    return made


@pytest.mark.parametrize("seed", range(12))
def test_no_planted_secret_is_in_it(seed: int, tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = planted(seed)
    (path_token, query, password, header, environment, argument, client, refresh, default, of_file, redis, database,
     variable, odd_variable) = secrets  # fmt: skip
    for name in ("DATA", "LOG", "RUN", "BACKUP"):
        (tmp_path / name.lower()).mkdir(mode=0o700)
        setattr(settings, f"MCP_{name}_DIR", tmp_path / name.lower())
    (tmp_path / "secret").write_text(f"{of_file}\n")
    spelt = {one: quote(one, safe="") for one in (password, path_token, query)}
    address = f"https://u:{spelt[password]}@shop.example.com/s/{spelt[path_token]}/mcp?x={spelt[query]}"
    from_file = "Bearer ${file:" + str(tmp_path / "secret") + "}"
    fallback = "${NOT_SET:-" + default + "}"
    auth = {"token_url": "https://id.example.com/token", "client_id": "known-client", "client_secret": client}
    config = {
        "version": 1,
        "mcpServers": {
            "shop": {"url": address, "headers": {"X-A": header, "X-B": "${PLAIN}", "X-C": from_file}},
            "local": {"command": "prog", "args": ["--key", argument, fallback], "env": {"A": environment}},
            "id": {"url": "https://id.example.com/mcp", "auth": auth | {"refresh_token": refresh}},
        },
    }  # fmt: skip
    settings.MCP_CONFIG = tmp_path / "mcp-config.yaml"
    settings.MCP_CONFIG.write_text(yaml.safe_dump(config))
    settings.REDIS_URL = f"redis://:{quote(redis, safe='')}@127.0.0.1:1/0"
    monkeypatch.setitem(settings.DATABASES["default"], "PASSWORD", database)
    monkeypatch.setenv("SHOP_API_TOKEN", variable)
    monkeypatch.setenv("PLAIN", odd_variable)
    quoted = [f"prog said: {one}" for one in secrets] + [
        f"GET {address}",
        json.dumps({"k": secrets}),
        quote(" ".join(secrets)),
    ]
    lines = [
        {"time": "2026-11-22T12:00:00Z", "level": "ERROR", "message": said, "extra": {"said": said}} for said in quoted
    ]
    (tmp_path / "log" / "combined.log").write_text("".join(json.dumps(line) + "\n" for line in lines))
    checks = [Check("remote", "warning", f"shop is unhealthy: {one}", f"try {one}") for one in secrets]
    whole = told(tmp_path / "report.tgz", checks)
    left = [one for one in secrets if any(form in whole for form in (one, json.dumps(one)[1:-1], quote(one, safe="")))]
    assert {secrets.index(one): one for one in left} == {}
    assert "shop.example.com" in whole
    assert "prog said: " in whole


def told(path: Path, checks: list[Check]) -> str:
    parts = bundle.write(path, checks)
    with tarfile.open(fileobj=io.BytesIO(path.read_bytes())) as archive:
        texts = [archive.extractfile(one).read().decode() for one in archive.getmembers()]
    assert len(texts) == len(parts) == 5
    for text in texts:
        json.loads(text)
    return "".join(texts)
