"""DATA: SQL and files that reach for more than the tables end in a typed refusal or at a limit, and reach nothing."""

# ruff: noqa: E501 a row of the table is a line

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import struct
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pytest

from sandbox import ExitReason, Host, Result, Template, load_policies
from tests.attacks.field import Field, Secrets
from tests.attacks.table import CATALOGUE, ELSEWHERE
from tests.support.synchronous import Sandbox

POLICY = load_policies(Path(__file__).resolve().parents[2] / "policies")["data_processing"]
REFUSED = (ExitReason.ERROR,)
STOPPED = (
    ExitReason.ERROR,
    ExitReason.MEMORY_LIMIT,
    ExitReason.CPU_LIMIT,
    ExitReason.WALL_LIMIT,
    ExitReason.WORKSPACE_LIMIT,
)
DATA = [{"x": 1, "y": "a"}, {"x": 2, "y": "b"}]
Control = Callable[[Path], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class HostileQuery:
    """One row: what is asked, what becomes of it, and the proof that plain DuckDB would have done it."""

    id: str
    title: str
    sql: str = ""
    parameters: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Instead of a query."""
    reasons: tuple[ExitReason, ...] = REFUSED
    codes: tuple[str, ...] = ("invalid_sql", "one_select_only")
    limits: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    control: Control | None = None
    no_control: str = ""

    @property
    def name(self) -> str:
        return f"{self.id}-{self.title.replace(' ', '-')}"

    def request(self) -> bytes:
        parameters = self.parameters or {"operation": "query", "data": DATA, "sql": self.sql}
        return json.dumps({"task_type": "data_processing", "parameters": parameters}).encode()


def outside(sql: str, expected: Any = ...) -> Control:
    """The same SQL, in plain DuckDB, on a file that is there: it reads it."""

    def run(folder: Path) -> None:
        (folder / "secret").write_text("canary")
        found = duckdb.connect().execute(sql.format(folder=folder)).fetchall()
        assert found
        assert expected is ... or expected in str(found)

    return run


def replaced(_folder: Path) -> None:
    secret = duckdb.sql("SELECT 'canary' AS x")  # noqa: F841 it is what the query finds
    found = duckdb.sql("SELECT * FROM secret")
    assert found is not None
    assert "canary" in str(found.fetchall())


def spilled(folder: Path) -> None:
    connection = duckdb.connect(config={"temp_directory": str(folder / "spill"), "memory_limit": "64MB", "threads": 1})
    connection.execute("CREATE TABLE t AS SELECT hash(i) AS h, repeat('x', 50) AS s FROM range(2000000) r(i)")
    found = connection.execute("SELECT max(s), count(*) FROM (SELECT * FROM t ORDER BY h)").fetchall()
    assert 2_000_000 == found[0][1]
    assert (folder / "spill").exists()


def several(_folder: Path) -> None:
    connection = duckdb.connect()
    connection.execute("CREATE TABLE smuggled AS SELECT 1; SELECT 2")
    assert [(1,)] == connection.execute("SELECT * FROM smuggled").fetchall()


def thrift_bomb() -> str:
    """A Parquet file whose footer says 2**31 row groups."""
    footer = b"\x15\x02\x19\x4c\xfc\xff\xff\xff\x0f" + b"\x00" * 64
    return base64.b64encode(b"PAR1" + footer + struct.pack("<I", len(footer)) + b"PAR1").decode()


def parquet_bomb() -> str:
    """A Parquet file of some KiB that is 4 GiB of text."""
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(duckdb.connect()) as connection:
        path = Path(folder, "bomb.parquet")
        connection.execute(
            f"COPY (SELECT repeat('a', 100000) AS a FROM range(40000)) TO '{path}' (COMPRESSION zstd, ROW_GROUP_SIZE 2048)"
        )
        content = path.read_bytes()
    assert len(content) < 4 << 20
    return base64.b64encode(content).decode()


def file(format_: str, **how: Any) -> dict[str, Any]:
    return {"operation": "statistics", "data": {"format": format_, **how}}


NO_NETWORK = "the extension that would fetch it is not part of DuckDB, and cannot be had here"
ROWS = (
    HostileQuery(id="DATA-01", title="read text", sql="SELECT * FROM read_text('/etc/passwd')",
                 control=outside("SELECT content FROM read_text('{folder}/secret')", "canary")),
    HostileQuery(id="DATA-01", title="read blob", sql="SELECT * FROM read_blob('/proc/self/environ')",
                 control=outside("SELECT content FROM read_blob('{folder}/secret')", "canary")),
    HostileQuery(id="DATA-01", title="read csv", sql="SELECT * FROM read_csv('/etc/passwd', columns={'a': 'VARCHAR'})",
                 control=outside("SELECT * FROM read_csv('{folder}/secret', columns={{'a': 'VARCHAR'}}, header=false)", "canary")),
    HostileQuery(id="DATA-01", title="glob", sql="SELECT * FROM glob('/etc/*')",
                 control=outside("SELECT * FROM glob('{folder}/*')", "secret")),
    HostileQuery(id="DATA-01", title="file as table", sql="SELECT * FROM '/etc/passwd.csv'",
                 no_control="as read csv"),
    HostileQuery(id="DATA-01", title="database of another file", sql="ATTACH '/app/x.db'", no_control="as read blob"),
    HostileQuery(id="DATA-01", title="write", sql="COPY data TO '/work/artifacts/x.csv'", no_control="no SELECT"),
    HostileQuery(id="DATA-02", title="out of the folder", sql="SELECT * FROM read_text('/work/tmp/../../etc/passwd')",
                 control=outside("SELECT content FROM read_text('{folder}/../' || parse_filename('{folder}') || '/secret')")),
    HostileQuery(id="DATA-02", title="inputs of others", sql="SELECT * FROM read_text('/work/inputs/*')", no_control="as above"),
    HostileQuery(id="DATA-04", title="install", sql="INSTALL httpfs", no_control=NO_NETWORK),
    HostileQuery(id="DATA-04", title="load", sql="LOAD '/work/tmp/x.duckdb_extension'", no_control=NO_NETWORK),
    HostileQuery(id="DATA-04", title="autoload", sql="SELECT * FROM read_xlsx('x.xlsx')", no_control=NO_NETWORK),
    HostileQuery(id="DATA-05", title="http", sql="SELECT * FROM 'http://127.0.0.1/x.csv'", no_control=NO_NETWORK),
    HostileQuery(id="DATA-05", title="metadata", sql="SELECT * FROM read_json('http://169.254.169.254/')", no_control=NO_NETWORK),
    HostileQuery(id="DATA-05", title="s3", sql="SELECT * FROM 's3://bucket/x.parquet'", no_control=NO_NETWORK),
    HostileQuery(id="DATA-07", title="environment", sql="SELECT getenv('PATH')", no_control="DuckDB's shell alone has it"),
    HostileQuery(id="DATA-07", title="settings unlocked", sql="SET memory_limit = '100GB'",
                 control=outside("SELECT current_setting('memory_limit')")),
    HostileQuery(id="DATA-08", title="variables of the interpreter", sql="SELECT * FROM secret", control=replaced),
    HostileQuery(id="DATA-10", title="cross join", sql="SELECT count(*) FROM range(1000000) a, range(1000000) b, range(100) c WHERE "
                 "a.range * b.range % 7 = c.range", reasons=(ExitReason.WALL_LIMIT, ExitReason.CPU_LIMIT), limits={"wall_s": 2.0},
                 no_control="it would not end"),
    HostileQuery(id="DATA-10", title="recursion without end", sql="WITH RECURSIVE t AS (SELECT 1 AS x UNION ALL SELECT x + 1 FROM t) "
                 "SELECT max(x) FROM t", reasons=STOPPED, limits={"wall_s": 2.0}, no_control="it would not end"),
    HostileQuery(id="DATA-10", title="rows without end", sql="SELECT list(i) FROM range(1000000000000) r(i)", reasons=STOPPED,
                 limits={"wall_s": 20.0}, no_control="it would not end"),
    HostileQuery(id="DATA-11", title="sort that spills", sql="SELECT max(s) FROM (SELECT hash(i) AS h, repeat('x', 200) || i AS s "
                 "FROM range(20000000) r(i) ORDER BY h OFFSET 1)", reasons=STOPPED, limits={"wall_s": 30.0}, control=spilled),
    HostileQuery(id="DATA-13", title="unterminated quote", parameters=file("csv", text='a,b\n1,"' + "x\n" * 100_000),
                 codes=("invalid_csv",)),
    HostileQuery(id="DATA-13", title="many columns", parameters=file("csv", text="a" * 10 + ",b" * 100_000 + "\n"),
                 codes=("too_many_fields",)),
    HostileQuery(id="DATA-13", title="long line", parameters=file("csv", text="a,b\n" + "x" * (20 << 20) + ",1\n"),
                 codes=("invalid_csv",)),
    HostileQuery(id="DATA-13", title="mixed encodings", codes=("invalid_csv",),
                 parameters={**file("csv", base64="YSxiCuksMQrDqSwyCg=="), "data": {"format": "csv", "encoding": "utf-8",
                                                                                   "base64": "YSxiCuksMQrDqSwyCg=="}}),
    HostileQuery(id="DATA-14", title="row groups that are not there", parameters=file("parquet", base64=thrift_bomb()),
                 codes=("invalid_parquet",)),
    HostileQuery(id="DATA-14", title="text that inflates", parameters=file("parquet", base64=parquet_bomb()),
                 reasons=STOPPED, codes=("invalid_parquet", None)),  # type: ignore[arg-type]
    HostileQuery(id="DATA-17", title="second statement", sql="SELECT 1; CREATE TABLE smuggled (x INT)", control=several),
    HostileQuery(id="DATA-17", title="pragma", sql="PRAGMA database_list", control=outside("PRAGMA database_list")),
    HostileQuery(id="DATA-17", title="call", sql="CALL duckdb_settings()", control=outside("CALL duckdb_settings()")),
    HostileQuery(id="DATA-17", title="export", sql="EXPORT DATABASE '/work/artifacts'", no_control="no SELECT"),
)  # fmt: skip


@pytest.fixture(scope="module")
def data_box(planted: Secrets, host: Host, template: Template) -> Iterator[Sandbox]:
    """A pool of data_processing under its own policy, started beside the secrets."""
    places = dict(template.places) | {"inputs": template.places["scripts"]}
    box = Sandbox(POLICY, host, msgspec.structs.replace(template, places=places), ready=1)
    yield box
    box.close()


@pytest.fixture
def aimed(field: Field, data_box: Sandbox) -> Iterator[Field]:
    """The field, around that pool for the time of one test."""
    own, field.box = field.box, data_box
    yield field
    field.box = own


def ask(field: Field, request: bytes, **limits: Any) -> Result:
    in_force = msgspec.structs.replace(field.box.policy.limits, **limits)
    result: Result = field.box.do(field.box.pool.run(request, limits=in_force))
    return result


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_hostile_data_does_no_harm(row: HostileQuery, aimed: Field) -> None:
    """It ends in an expected way, brings no secret out, and the next task is served."""
    with aimed.unharmed():
        result = ask(aimed, row.request(), **row.limits)
        aimed.assert_secret(result)
        assert result.exit_reason in row.reasons, result
        if result.exit_reason is ExitReason.ERROR:
            assert result.error is not None
            assert result.error.code in row.codes, result.error
        assert result.usage.memory_peak_mib <= aimed.box.policy.limits.memory_mib * 1.1
        good = json.dumps({"task_type": "data_processing", "parameters": {"operation": "sum", "data": [1, 2]}}).encode()
        assert {"sum": 3}.items() <= msgspec.json.decode(ask(aimed, good).value).items()  # type: ignore[arg-type]


@pytest.mark.parametrize("row", [row for row in ROWS if row.control], ids=lambda row: row.name)
def test_plain_duckdb_would_have_done_it(row: HostileQuery, tmp_path: Path) -> None:
    """The positive control."""
    assert row.control is not None
    row.control(tmp_path)


def test_no_case_of_data_is_passed_over() -> None:
    """Each case that the table leaves to this module has a row, and each row a control or the reason for none."""
    place = "attacks/test_hostile_data.py::test_hostile_data_does_no_harm"
    here = {f"DATA-{number}" for number in CATALOGUE["DATA"].split()}
    assert {row.id for row in ROWS} == {case for case in here if ELSEWHERE[case] == place}
    queries = [row for row in ROWS if row.sql]
    assert [] == [row.name for row in queries if bool(row.control) == bool(row.no_control)]
