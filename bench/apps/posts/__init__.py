"""Posts that are written, read and copied into others: calls for a log that is asked."""

from apiary import App, Transaction, Workflow

app = App("posts")


@app.transaction
def write(tx: Transaction, post: int, author: str, body: str) -> None:
    tx.execute(
        "insert or replace into posts values (:post, :author, :body, :post % 2)", post=post, author=author, body=body
    )


@app.query
def read(tx: Transaction, post: int) -> str:
    found = tx.execute("select id, body from posts where id = :post", post=post).first()
    return "" if found is None else str(found.body)


@app.query
def count(tx: Transaction) -> int:
    return int(tx.execute("select count(*) from posts where id < 10").scalar())


@app.transaction
def copy(tx: Transaction, post: int) -> None:
    for row in tx.execute("select id, body from posts where id = :post", post=post):
        tx.execute("insert into copies (post, body) values (:post, :body)", post=post, body=row.body)


@app.workflow
def publish(wf: Workflow, post: int) -> str:
    wf.run(copy, post)
    return wf.run(read, post)
