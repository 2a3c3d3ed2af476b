import base64

from mcpserver.launch import dotenv


def test_both_secrets_are_made_once_and_for_the_owner_alone(tmp_path):
    path = tmp_path / ".env"
    assert dotenv.ensure(path, {}) == ["SECRET_KEY", "MCP_ENCRYPTION_KEYS"]
    first = path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert dotenv.ensure(path, {}) == []
    assert path.read_text() == first
    assert list(tmp_path.iterdir()) == [path]


def test_the_secrets_are_what_django_and_fernet_accept(tmp_path):
    dotenv.ensure(tmp_path / ".env", {})
    values = dotenv.read((tmp_path / ".env").read_text())
    assert len(values["SECRET_KEY"]) >= 50
    assert len(base64.urlsafe_b64decode(values["MCP_ENCRYPTION_KEYS"])) == 32


def test_what_an_operator_wrote_is_kept_and_what_is_missing_is_added(tmp_path):
    path = tmp_path / ".env"
    path.write_text("# mine\nSECRET_KEY='kept'\nPORT=4000")
    assert dotenv.ensure(path, {}) == ["MCP_ENCRYPTION_KEYS"]
    assert path.read_text().startswith("# mine\nSECRET_KEY='kept'\nPORT=4000\nMCP_ENCRYPTION_KEYS=")


def test_nothing_is_written_when_the_environment_has_both(tmp_path):
    environment = {"SECRET_KEY": "a", "MCP_ENCRYPTION_KEYS": "b"}
    assert dotenv.ensure(tmp_path / ".env", environment) == []
    assert not (tmp_path / ".env").exists()


def test_two_installations_share_no_secret():
    assert dotenv.secret_key() != dotenv.secret_key()
    assert dotenv.encryption_key() != dotenv.encryption_key()


def test_lines_are_read_as_people_write_them():
    text = "# SECRET_KEY=commented\nexport HOST=0.0.0.0\n PORT = '4000'\nnonsense\nURL=a=b\n"
    assert dotenv.read(text) == {"HOST": "0.0.0.0", "PORT": "4000", "URL": "a=b"}
