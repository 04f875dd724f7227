"""What a run leaves behind: the record, results.json, the table at the end."""
