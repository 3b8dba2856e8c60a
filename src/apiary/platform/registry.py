"""The registry: which apps, versions and keys there are. It is itself an app of the platform, with its own database."""

from __future__ import annotations

import hashlib
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel

from apiary.bundle import unpack
from apiary.runtime.declaration import App
from apiary.runtime.errors import Conflict, NotFound, UnknownApp
from apiary.runtime.transaction import Transaction

registry = App("apiary", description="The platform's own records.")


class Version(BaseModel):
    """A version of an app. `active` says that it serves now."""

    app: str
    version: str
    created: datetime
    created_by: str
    active: bool
    activated: datetime | None


class Deployment(BaseModel):
    """A version that is about to serve, and is not activated yet.

    `server`: the identity of the one that sees to it. `phase`: `loading`, or `migrating` from the moment in which its
    migrations may be applied.
    """

    app: str
    version: str
    begun_by: str
    id: str
    server: str
    phase: str


class Code(BaseModel):
    """What a host must know to load a version. `packages` is the locked list of its requirements."""

    app: str
    version: str
    module: str
    packages: str


class Key(BaseModel):
    """Who a key belongs to."""

    name: str
    roles: list[str]


class State(BaseModel):
    """What all servers must know: keys by their digest, versions that serve and deployments by the name of the app."""

    keys: dict[str, Key]
    active: dict[str, str]
    begun: dict[str, Deployment]


@registry.transaction(timeout=60)
def add_version(
    tx: Transaction, app: str, version: str, module: str, packages: str, staged: str, created_by: str
) -> None:
    """Keep the code of a version; `staged` is the file that holds its archive. The same code twice is no change."""
    tx.execute(
        "insert into versions (app, version, module, content, packages, created, created_by) "
        "values (:app, :version, :module, :content, :packages, :now, :created_by) on conflict do nothing",
        app=app,
        version=version,
        module=module,
        content=Path(staged).read_bytes(),
        packages=packages,
        now=tx.now,
        created_by=created_by,
    )


@registry.transaction
def begin(tx: Transaction, app: str, version: str, begun_by: str, id: str, server: str, phase: str) -> bool:
    """Note that a version is about to serve, so that it can be found out if its server dies before its activation.

    `False` where another server has a deployment of the app in hand. What one left itself is given up by that.
    """
    done = tx.execute(
        "insert into deployments (app, version, begun, begun_by, id, server, phase) "
        "values (:app, :version, :now, :begun_by, :id, :server, :phase) on conflict (app) do update set "
        "version = excluded.version, begun = excluded.begun, begun_by = excluded.begun_by, id = excluded.id, "
        "phase = excluded.phase where deployments.server = excluded.server",
        app=app,
        version=version,
        now=tx.now,
        begun_by=begun_by,
        id=id,
        server=server,
        phase=phase,
    )
    return done.rowcount == 1


@registry.transaction
def migrate(tx: Transaction, app: str, id: str, server: str) -> None:
    """Note that a deployment may migrate from now on."""
    _own(tx, app, id, server)
    tx.execute("update deployments set phase = 'migrating' where app = :app", app=app)


@registry.transaction
def claim(tx: Transaction, app: str, id: str, lost: str, server: str) -> bool:
    """See to the deployment of a server that is lost; `False` where another one was faster."""
    done = tx.execute(
        "update deployments set server = :server where app = :app and id = :id and server = :lost",
        app=app,
        id=id,
        lost=lost,
        server=server,
    )
    return done.rowcount == 1


@registry.transaction
def forget(tx: Transaction, app: str, id: str, server: str) -> None:
    """Forget a deployment that has not migrated, and its version, if that never served."""
    _own(tx, app, id, server)
    version = tx.execute("delete from deployments where app = :app returning version", app=app).scalar()
    tx.execute(
        "delete from versions where app = :app and version = :version "
        "and not exists (select 1 from activations a where a.app = :app and a.version = :version)",
        app=app,
        version=version,
    )


@registry.transaction
def activate(tx: Transaction, app: str, version: str, activated_by: str, id: str | None, server: str) -> None:
    """Let a version serve from now on. The deployment of this `id` (`None`: there was none) is over by that."""
    if id is not None:
        _own(tx, app, id, server)
    tx.execute("delete from deployments where app = :app", app=app)
    tx.execute(
        "insert into activations (app, version, activated, activated_by) values (:app, :version, :now, :by)",
        app=app,
        version=version,
        now=tx.now,
        by=activated_by,
    )


def _own(tx: Transaction, app: str, id: str, server: str) -> None:
    """Refuse where the deployment has been settled by another server, which took this one for lost."""
    found = tx.execute("select id, server from deployments where app = :app", app=app).first()
    if found is None or (found.id, found.server) != (id, server):
        raise Conflict(
            "another server has settled this deployment, because this one was declared lost",
            hint="look at what serves (apiary versions), and deploy again where that is not it",
        )


@registry.query
def state(tx: Transaction) -> State:
    """What all servers must know."""
    keys = tx.execute("select digest, name, roles from keys")
    active = tx.execute(
        "select app, version from activations a "
        "where number = (select max(number) from activations b where b.app = a.app) order by app"
    )
    begun = tx.execute("select app, version, begun_by, id, server, phase from deployments").all(Deployment)
    return State(
        keys={row.digest: Key(name=row.name, roles=row.roles) for row in keys},
        active={row.app: row.version for row in active},
        begun={deployment.app: deployment for deployment in begun},
    )


@registry.query
def versions(tx: Transaction, app: str) -> list[Version]:
    """The versions of an app, the latest activated first."""
    found = tx.execute(
        "select v.app, v.version, v.created, v.created_by, "
        "coalesce(max(a.number) = (select max(number) from activations where app = :app), false) as active, "
        "max(a.activated) as activated "
        "from versions v left join activations a on a.app = v.app and a.version = v.version "
        "where v.app = :app group by v.app, v.version order by max(a.number) desc nulls last, v.created desc",
        app=app,
    ).all(Version)
    if not found:
        raise UnknownApp(f"there is no app {app!r}")
    return found


@registry.query
def version_before(tx: Transaction, app: str) -> str:
    """The version that served before the present one."""
    found = tx.execute(
        "select version from activations where app = :app and version <> "
        "(select version from activations where app = :app order by number desc limit 1) "
        "order by number desc limit 1",
        app=app,
    ).scalar()
    if found is None:
        raise NotFound(f"{app} has had one version only, so there is none to go back to")
    return str(found)


@registry.query(timeout=60)
def code(tx: Transaction, app: str, version: str, into: str) -> Code:
    """What is needed to load a version, named in full or by its first digits.

    Its files are written to the folder `into` where they are not there yet.
    """
    found = tx.execute(
        "select app, version, module, packages, content from versions "
        "where app = :app and :version <> '' and substr(version, 1, length(:version)) = :version limit 2",
        app=app,
        version=version,
    ).all()
    if len(found) != 1:
        problem = f"more than one version that begins with {version!r}" if found else f"no version {version!r}"
        raise NotFound(f"{app} has {problem}", hint=f"list them: apiary versions {app}")
    row = found[0]
    folder = Path(into) / row.version
    if not folder.exists():
        fresh = folder.with_name(f"{folder.name}.{tx.id}")
        unpack(row.content, fresh)
        fresh.rename(folder)
    return Code(app=row.app, version=row.version, module=row.module, packages=row.packages)


@registry.transaction
def add_key(tx: Transaction, name: str, digest: str, roles: list[str]) -> None:
    """Keep a key by its digest. The first one of a name stays."""
    tx.execute(
        "insert into keys (name, digest, roles, created) values (:name, :digest, :roles, :now) on conflict do nothing",
        name=name,
        digest=digest,
        roles=roles,
        now=tx.now,
    )


def digest_of(key: str) -> str:
    """What is kept of a key. Keys are long and random, so that a plain hash is enough."""
    return hashlib.sha256(key.encode()).hexdigest()
