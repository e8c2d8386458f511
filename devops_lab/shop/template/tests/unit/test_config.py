"""Configuration from the environment."""

import pytest

import bento
from bento.config import ConfigError, from_environment


def test_everything_has_a_default():
    config = from_environment({})
    assert config.database_url == "sqlite:///bento.db"
    assert (config.release, config.replica, config.log_level) == (bento.__version__, "local", "INFO")


def test_the_environment_wins():
    config = from_environment({"BENTO_RELEASE": "9.9.9", "BENTO_REPLICA": "r2", "BENTO_LOG_LEVEL": "debug"})
    assert (config.release, config.replica, config.log_level) == ("9.9.9", "r2", "DEBUG")


@pytest.mark.parametrize(
    "wrong",
    [
        {"BENTO_LOG_LEVEL": "loud"},
        {"DATABASE_URL": "mysql://db/bento"},
        {"DATABASE_URL": "bento.db"},
        {"BENTO_DRAIN_SECONDS": "soon"},
        {"BENTO_DRAIN_SECONDS": "-1"},
    ],
)
def test_nonsense_is_refused_with_its_name(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        from_environment(wrong)
