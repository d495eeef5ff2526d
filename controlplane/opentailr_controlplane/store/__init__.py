"""The durable truth: tables, migrations, the engine's writer and the loader."""
