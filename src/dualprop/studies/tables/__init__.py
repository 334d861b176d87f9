"""Tables that reproduce a paper: their definitions, TOML files in this folder, and the records that fill them.

A definition says what each row is made by and what was published for it. A new table is a file here, or one's own.
"""

from dualprop.studies.tables.definition import Metric, Published, Row, Table, read, shipped
from dualprop.studies.tables.makers import MAKERS, Maker, Record
from dualprop.studies.tables.records import Found, find, records

__all__ = [
    "MAKERS",
    "Found",
    "Maker",
    "Metric",
    "Published",
    "Record",
    "Row",
    "Table",
    "find",
    "read",
    "records",
    "shipped",
]
