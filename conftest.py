"""Test runs of this checkout. Options and fixtures are those of the plugin, xai_assert.testing."""

pytest_plugins = ["pytester"]
