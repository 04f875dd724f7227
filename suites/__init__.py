"""The ready-made gates: `pytest suites` in a checkout, `pytest --pyargs xai_assert.suites` from a wheel."""
