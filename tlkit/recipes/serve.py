"""Serve a trained model over HTTP, with a page to try it in a browser.

Of models:/NAME@champion, the new version takes over when the alias moves, without a request being lost.

python -m tlkit.recipes.serve models:/flowers@champion --port 8000
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tlkit import cli
from tlkit.config import Serve
from tlkit.display import say
from tlkit.recipes import _jobs, _listening, _models, _versions

if TYPE_CHECKING:
    from tlkit.serving.web.batching import Batcher, Served


def run(config: Serve) -> None:
    """Load the model, say where it listens, and answer until Ctrl-C; see `config.Serve` for the settings.

    Raises:
        InvalidInput: the model does not exist, or is not one for photos.
        Unavailable: the port is in use.
    """
    version = _versions.resolve(config.model)
    path = _models.locate(version.uri)
    with _listening.listener(config.host, config.port) as listening:
        say("loading the model; this takes some seconds", error=True)
        _jobs.start_keras()
        from tlkit.serving.web import app, batching, counters

        served = load(config.model, version, path)
        batcher = batching.Batcher(served, config.waiting, counters.Counters())
        limits = app.Limits(int(config.megabytes * 2**20), config.photos, config.timeout)
        server = _listening.server(app.make(batcher, limits))
        _print_start(config, served, _listening.address(listening), _listening.is_loopback(listening))
        with _watching(config, version, batcher), contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[listening])
        batcher.close()
        answered, failed = batcher.counters.answered, batcher.counters.failed
        say(f"the server has ended; photos answered: {answered:,}, and not: {failed:,}")


def load(model: str, version: _versions.Version, path: Path | None = None) -> Served:
    """Load a model and make it ready.

    Raises:
        InvalidInput: it is not a classifier of photos, or cannot predict.
    """
    from tlkit.serving.web import batching

    loaded = _models.load_classifier(version.uri, path, "serve")
    name = model if model.startswith(_models.URIS) else Path(model).name  # strangers need not know folders
    return batching.prepare(
        loaded.model, loaded.classes, loaded.reading, name, version.number, loaded.abstention, loaded.references
    )


@contextlib.contextmanager
def _watching(config: Serve, version: _versions.Version, batcher: Batcher) -> Iterator[None]:
    """Have the version that an alias moves to take over."""
    if not (version.number and config.reload):
        yield
        return

    def take(moved: _versions.Version) -> None:
        try:
            batcher.served = load(config.model, moved)
        except Exception:
            batcher.counters.add_reload(False)
            raise
        batcher.counters.add_reload(True)

    ended = _versions.watch(config.model, version.number, config.reload, take)
    try:
        yield
    finally:
        ended.set()


def _print_start(config: Serve, served: Served, address: str, is_loopback: bool) -> None:
    version = f", version {served.version}" if served.version else ""
    say(f"model  {served.name}{version}: {len(served.classes)} classes, computed by {served.engine.name}")
    if version and config.reload:
        say(f"       the alias is looked up again every {config.reload:g} s")
    if not is_loopback:
        say(
            f"anyone who reaches {address} can use it: there is no authentication and no TLS; put a proxy in front "
            "that has both",
            error=True,
        )
    local = address.replace("0.0.0.0", "127.0.0.1").replace("[::]", "[::1]")  # noqa: S104
    say(f"page   {local}/")
    say(f"ask    curl -F photo=@photo.jpg {local}/predict")
    say(f"also   {local}/docs  {local}/healthz  {local}/metrics")
    say("Ctrl-C ends it")


if __name__ == "__main__":
    cli.main(Serve, run, positional=("model",))
