"""`python -m bento migrate` and `python -m bento serve`."""

import argparse
import sys

from bento import config, migrate


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="bento", description="Orders of lunch boxes.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("migrate", help="bring the database's schema up to date")
    serve = commands.add_parser("serve", help="answer HTTP requests")
    serve.add_argument("--host", default="127.0.0.1")
    serve.add_argument("--port", type=int, default=8080)
    options = parser.parse_args(arguments)
    try:
        settings = config.from_environment()
        if options.command == "migrate":
            applied = migrate.migrate(settings.database_url)
            print(f"migrate: {len(applied)} applied ({', '.join(applied) or 'nothing to do'})")
            return 0
    except (config.ConfigError, migrate.MigrationError) as error:
        print(f"bento: {error}", file=sys.stderr)
        return 1
    from bento import server  # the web stack is only loaded when it is needed

    server.serve(settings, options.host, options.port)
    return 0


if __name__ == "__main__":
    sys.exit(main())
